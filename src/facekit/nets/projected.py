"""Discriminator heads on frozen features, and the projection for contrasting them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .spectral_norm import SpectralConv2d


class FeatureHead(nn.Module):
    """Judge feature maps [N, C, H, W] patch by patch -> [N, 1, H', W'], halved `downs` times (Sauer et al. 2021).

    With `compare` it also sees how much the images of a batch differ (minibatch deviation, Karras et al. 2018,
    section 3), which exposes a generator whose outputs are all alike. Real and fake come in separate batches.
    """

    def __init__(self, channels: int, width: int, downs: int, compare: bool = False):
        super().__init__()
        layers: list[nn.Module] = [SpectralConv2d(channels, width, 1), nn.LeakyReLU(0.2)]
        for _ in range(downs):
            layers += [SpectralConv2d(width, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.compare = compare
        self.merge = SpectralConv2d(width + compare, width, 3, padding=1)
        self.out = SpectralConv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        if self.compare:
            deviation = (x.float().var(0, correction=0) + 1e-6).sqrt().mean()
            x = torch.cat([x, deviation.to(x.dtype).expand(len(x), 1, *x.shape[2:])], 1)
        return self.out(F.leaky_relu(self.merge(x), 0.2))


class Projection(nn.Module):
    """Map features [N, C, H, W] to unit vectors [N, width, H, W] (Park et al. 2020, section 3)."""

    def __init__(self, channels: int, width: int = 128):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.layers(x).float(), dim=1)
