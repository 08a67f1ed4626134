"""Augmentation with a strength that adapts: what a discriminator sees, changed at random with probability p.

Karras, Aittala, Hellsten, Laine, Lehtinen and Aila 2020, "Training Generative Adversarial Networks with Limited Data"
(ADA), appendix B: pixel blitting, geometric and colour transformations. Two choices of our own: geometry is applied
by bilinear sampling of reflected images, without the paper's wavelet filters, and the image-space filters, noise and
cutout, which the paper found of no use, are left out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class Augmentation(torch.nn.Module):
    """Holds p and adapts it so that the discriminator is right about real images at a target rate.

    `target` is the mean of sign(D(real)) to reach; p can move by 1 within `images` real images. The state is in
    buffers, so that a resumed run continues with the same p.
    """

    p: Tensor

    def __init__(self, target: float = 0.6, images: int = 500_000):
        super().__init__()
        self.target, self.images = target, images
        self.register_buffer("p", torch.zeros(()))

    @torch.no_grad()
    def adapt(self, real_logits: Tensor, seen: int) -> None:
        """Move p after `seen` real images were judged; `real_logits` [N, 1] are those of every process."""
        error = (real_logits.sign().mean() - self.target).sign()
        self.p.add_(error * seen / self.images).clamp_(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Change images [N, 3, H, W] in [-1, 1], each transformation of each image with probability p."""
        return change_colour(change_geometry(x, self.p), self.p)


def _chance(x: Tensor, p: Tensor) -> Tensor:
    """Return for each image whether a transformation happens: [N] of bools."""
    return torch.rand(len(x), device=x.device) < p


def _matrices(count: int, device: torch.device) -> Tensor:
    return torch.eye(3, device=device).repeat(count, 1, 1)


def geometry(x: Tensor, p: Tensor) -> Tensor:
    """Draw a map from output to input positions per image, in units of half the edge: [N, 3, 3]."""
    count, device = len(x), x.device

    def chosen(values: Tensor, neutral: float, hit: Tensor) -> Tensor:
        return torch.where(hit, values, torch.full_like(values, neutral))

    def rotate(angle: Tensor) -> Tensor:
        m = _matrices(count, device)
        m[:, 0, 0], m[:, 0, 1] = angle.cos(), -angle.sin()
        m[:, 1, 0], m[:, 1, 1] = angle.sin(), angle.cos()
        return m

    def scale(along_x: Tensor, along_y: Tensor) -> Tensor:
        m = _matrices(count, device)
        m[:, 0, 0], m[:, 1, 1] = along_x, along_y
        return m

    def move(along_x: Tensor, along_y: Tensor) -> Tensor:
        m = _matrices(count, device)
        m[:, 0, 2], m[:, 1, 2] = along_x, along_y
        return m

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, device=device) * (high - low) + low

    def normal(deviation: float) -> Tensor:
        return torch.randn(count, device=device) * deviation

    one = torch.ones(count, device=device)
    flip = chosen(1 - 2 * torch.randint(0, 2, (count,), device=device).float(), 1.0, _chance(x, p))
    m = scale(flip, one)
    m = m @ rotate(chosen(torch.randint(0, 4, (count,), device=device) * (math.pi / 2), 0.0, _chance(x, p)))
    hit, edge = _chance(x, p), x.shape[-1]
    steps = [(uniform(-0.125, 0.125) * edge).round() * 2 / edge for _ in range(2)]
    m = m @ move(chosen(steps[0], 0.0, hit), chosen(steps[1], 0.0, hit))
    zoom = chosen(torch.exp2(normal(0.2)), 1.0, _chance(x, p))
    m = m @ scale(zoom, zoom)
    half = 1 - (1 - p).clamp(min=0).sqrt()  # for each of two rotations, so that p is that of either
    m = m @ rotate(chosen(uniform(-math.pi, math.pi), 0.0, _chance(x, half)))
    stretch = chosen(torch.exp2(normal(0.2)), 1.0, _chance(x, p))
    m = m @ scale(stretch, 1 / stretch)
    m = m @ rotate(chosen(uniform(-math.pi, math.pi), 0.0, _chance(x, half)))
    hit = _chance(x, p)
    return m @ move(chosen(normal(0.25), 0.0, hit), chosen(normal(0.25), 0.0, hit))


def change_geometry(x: Tensor, p: Tensor) -> Tensor:
    """Mirror, rotate, move, zoom and stretch each image at random; borders are reflected."""
    grid = F.affine_grid(geometry(x, p)[:, :2].to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def change_colour(x: Tensor, p: Tensor) -> Tensor:
    """Change brightness, contrast, luma, hue and saturation of each image at random."""
    count, device = len(x), x.device
    axis = torch.full((3,), 3**-0.5, device=device)
    grey = torch.outer(axis, axis)  # projects a colour onto the grey axis
    eye = torch.eye(3, device=device)

    def hit(neutral: Tensor, changed: Tensor) -> Tensor:
        return torch.where(_chance(x, p)[:, None, None], changed, neutral)

    brightness = torch.where(_chance(x, p), torch.randn(count, device=device) * 0.2, torch.zeros(count, device=device))
    contrast = torch.exp2(torch.randn(count, 1, 1, device=device) * 0.5)
    m = hit(eye, eye * contrast)
    m = hit(eye, (eye - 2 * grey * torch.randint(0, 2, (count, 1, 1), device=device))) @ m  # mirror the luma
    angle = (torch.rand(count, 1, 1, device=device) * 2 - 1) * math.pi
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=device) * 3**-0.5
    m = hit(eye, grey + (eye - grey) * angle.cos() + cross * angle.sin()) @ m  # hue: a rotation about the grey axis
    saturation = torch.exp2(torch.randn(count, 1, 1, device=device))
    m = hit(eye, grey + (eye - grey) * saturation) @ m
    shifted = x + brightness.view(-1, 1, 1, 1).to(x.dtype)
    return torch.einsum("nij,njhw->nihw", m.to(x.dtype), shifted)
