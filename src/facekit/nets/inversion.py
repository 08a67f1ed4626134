"""Inversion: the styles with which a StyleGAN2 generator draws a given picture.

Abdal, Qin and Wonka 2019, "Image2StyleGAN"; the start at the mean latent, the falling noise on it and the penalty on
noise maps are those of Karras et al. 2020, StyleGAN2, appendix D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.losses import direction_distance, wide
from .stylegan2 import Generator

RISE, FALL = 0.05, 0.25  # shares of the steps in which the learning rate rises and falls
NOISE_SHARE = 0.75  # share of the steps in which noise is added to the latent


@dataclass
class Inverted:
    """Styles [N, L, D], the noise maps that go with them, and each picture's remaining distance [N]."""

    styles: Tensor
    noises: list[Tensor]
    distance: Tensor


def noise_correlation(noise: Tensor) -> Tensor:
    """Return how much neighbouring px of noise maps [N, 1, H, W] agree, over all scales down to 8 px: [N].

    0 for white noise; without this penalty the picture hides in the noise maps.
    """
    total = torch.zeros(len(noise), device=noise.device, dtype=noise.dtype)
    while noise.shape[-1] >= 8:
        for axis in (2, 3):
            total = total + (noise * noise.roll(1, axis)).mean((1, 2, 3)).square()
        noise = F.avg_pool2d(noise, 2) * 2  # the mean of four, at the variance of one
    return total


def _rate(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: up, flat, and down along a cosine."""
    done = step / steps
    fall = min(1.0, (1 - done) / FALL)
    return (0.5 - 0.5 * math.cos(fall * math.pi)) * min(1.0, done / RISE if step else 1 / (RISE * steps))


def invert(
    generator: Generator,
    pictures: Tensor,
    features: Callable[[Tensor], Sequence[Tensor]],
    steps: int = 500,
    lr: float = 0.1,
    seed: int = 0,
    noise_weight: float = 1e5,
    start: Tensor | None = None,
) -> Inverted:
    """Find styles for pictures [N, 3, S, S] in [-1, 1] by gradient descent from the mean latent.

    With `start`, styles [N, L, D] such as an encoder gives, it begins there, without adding noise to the latent.

    `features` gives feature maps [N, C, H, W] of images; pictures are compared by their directions (Zhang et al. 2018)
    and by the squared difference of their px. The pictures do not influence one another. The generator is left as it
    was.
    """
    learns = [parameter.requires_grad for parameter in generator.parameters()]
    for parameter in generator.parameters():
        parameter.requires_grad_(False)
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(pictures)

    count = len(pictures)
    try:
        with torch.no_grad():
            wanted = [x.detach() for x in features(pictures)]
            w = generator.mapping(draw(1024, generator.width))
            mean, deviation = w.mean(0), (w - w.mean(0)).square().sum(1).mean().sqrt()
        first = mean.repeat(count, generator.latents, 1) if start is None else start.detach().clone()
        deviation = deviation if start is None else torch.zeros_like(deviation)
        styles = first.requires_grad_()
        noises = [draw(count, *noise.shape[1:]).requires_grad_() for noise in generator.noises]
        optimizer = torch.optim.Adam([styles, *noises], lr=lr, betas=(0.9, 0.999))

        def distance(image: Tensor) -> Tensor:
            parts = [
                torch.stack([direction_distance(a[None], b[None]) for a, b in zip(x, y, strict=True)])
                for x, y in zip(features(image), wanted, strict=True)
            ]
            return torch.stack(parts).mean(0) + (wide(image) - wide(pictures)).square().mean((1, 2, 3))

        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * _rate(step, steps)
            strength = 0.05 * deviation * max(0.0, 1 - step / (steps * NOISE_SHARE)) ** 2
            image = generator.synthesis(styles + strength * draw(*styles.shape), noises)
            penalty = torch.stack([noise_correlation(noise) for noise in noises]).sum(0)
            loss = (distance(image) + noise_weight * penalty).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for noise in noises:
                    noise.sub_(noise.mean((1, 2, 3), keepdim=True))
                    noise.mul_(torch.rsqrt(noise.square().mean((1, 2, 3), keepdim=True) + 1e-8))
        with torch.no_grad():
            left = distance(generator.synthesis(styles, noises))
    finally:
        for parameter, learned in zip(generator.parameters(), learns, strict=True):
            parameter.requires_grad_(learned)
    return Inverted(styles.detach(), [noise.detach() for noise in noises], left)
