"""UNIT's nets as in the authors' code: an encoder and a decoder per domain, and discriminators at three scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import EPS, InstanceNorm2d, initialise, normal_002, reflect_residual


class LayerNorm(nn.Module):
    """gamma (x - mean) / (deviation + eps) + beta over (C, H, W) of each image; the deviation is the unbiased one.

    eps is added to the deviation, not to the variance; gamma begins in U(0, 1), as in the authors' code.
    """

    cheap = True  # to recompute in the backward pass

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        deviation, mean = torch.std_mean(wide, (1, 2, 3), correction=1, keepdim=True)
        return ((wide - mean) / (deviation + EPS) * self.gamma + self.beta).to(x.dtype)


class UNITGenerator(nn.Module):
    """The two auto-encoders: images [N, 3, S, S] in [-1, 1] and latents [N, 4 width, S/4, S/4], per domain "a" and "b".

    The latent is the mean of a Gaussian of variance 1; training adds the noise. The last `tied` residual blocks of
    the encoders and the first `tied` of the decoders are the same objects for both domains, kept here once. With none
    tied (the authors' code) the domains share the latent space alone.
    """

    def __init__(self, width: int = 64, blocks: int = 4, tied: int = 0):
        super().__init__()
        w, own = width, blocks - tied
        if own < 0:
            raise ValueError(f"{tied} of {blocks} residual blocks cannot be tied")
        self.encoders = nn.ModuleDict({domain: down(w, own) for domain in ("a", "b")})
        self.last = nn.Sequential(*[reflect_residual(4 * w) for _ in range(tied)])
        self.first = nn.Sequential(*[reflect_residual(4 * w) for _ in range(tied)])
        self.decoders = nn.ModuleDict({domain: up(w, own) for domain in ("a", "b")})
        initialise(self, nn.init.kaiming_normal_)

    def encoder(self, domain: str) -> nn.Sequential:
        """Return the encoder of a domain; its last part is shared with the other domain."""
        return nn.Sequential(self.encoders[domain], self.last)

    def decoder(self, domain: str) -> nn.Sequential:
        """Return the decoder of a domain; its first part is shared with the other domain."""
        return nn.Sequential(self.first, self.decoders[domain])

    def encode(self, x: Tensor, domain: str) -> Tensor:
        """Return the latents' means of images of a domain."""
        return self.encoder(domain)(x)

    def decode(self, z: Tensor, domain: str) -> Tensor:
        """Return images of a domain."""
        return self.decoder(domain)(z)


def down(width: int, blocks: int) -> nn.Sequential:
    """Make a domain's private part of the encoder: [N, 3, S, S] -> [N, 4 width, S/4, S/4]."""
    w = width
    return nn.Sequential(
        nn.Conv2d(3, w, 7, padding=3, padding_mode="reflect"),
        InstanceNorm2d(w),
        nn.ReLU(),
        nn.Conv2d(w, 2 * w, 4, stride=2, padding=1, padding_mode="reflect"),  # S/2
        InstanceNorm2d(2 * w),
        nn.ReLU(),
        nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1, padding_mode="reflect"),  # S/4
        InstanceNorm2d(4 * w),
        nn.ReLU(),
        *[reflect_residual(4 * w) for _ in range(blocks)],
    )


def up(width: int, blocks: int) -> nn.Sequential:
    """Make a domain's private part of the decoder: [N, 4 width, S/4, S/4] -> [N, 3, S, S]."""
    w = width
    return nn.Sequential(
        *[reflect_residual(4 * w) for _ in range(blocks)],
        nn.Upsample(scale_factor=2),  # S/2
        nn.Conv2d(4 * w, 2 * w, 5, padding=2, padding_mode="reflect"),
        LayerNorm(2 * w),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),  # S
        nn.Conv2d(2 * w, w, 5, padding=2, padding_mode="reflect"),
        LayerNorm(w),
        nn.ReLU(),
        nn.Conv2d(w, 3, 7, padding=3, padding_mode="reflect"),
        nn.Tanh(),
    )


class MultiScaleDiscriminator(nn.Module):
    """Judge images [N, 3, S, S] at S, S/2 and S/4: a list of [N, 1, S/16, S/16] and so on; no norm, no sigmoid."""

    def __init__(self, width: int = 64, scales: int = 3):
        super().__init__()
        w = width
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, w, 4, stride=2, padding=1, padding_mode="reflect"),  # S/2
                nn.LeakyReLU(0.2),
                nn.Conv2d(w, 2 * w, 4, stride=2, padding=1, padding_mode="reflect"),  # S/4
                nn.LeakyReLU(0.2),
                nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1, padding_mode="reflect"),  # S/8
                nn.LeakyReLU(0.2),
                nn.Conv2d(4 * w, 8 * w, 4, stride=2, padding=1, padding_mode="reflect"),  # S/16
                nn.LeakyReLU(0.2),
                nn.Conv2d(8 * w, 1, 1),
            )
            for _ in range(scales)
        )
        initialise(self, normal_002)

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        judged = []
        for net in self.scales:
            judged.append(net(x))
            x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return judged
