"""A small net that draws the edges that an enlarged picture lacks: residual blocks at half of its resolution.

Residual blocks without normalisation and one sub-pixel layer at the end, as in Lim et al. 2017, "Enhanced Deep Residual
Networks for Single Image Super-Resolution" (EDSR), section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + scale [3 x 3, leaky ReLU, 3 x 3]: [N, C, H, W] -> [N, C, H, W]; `scale` starts at 0.1 per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.second(F.leaky_relu(self.first(x), 0.2))


class Upscaler(nn.Module):
    """A picture enlarged to twice its size by interpolation -> the same picture with sharp edges.

    [N, 3, H, W] in about [-1, 1] -> the same, H and W even. It begins as the identity.
    """

    def __init__(self, width: int = 32, blocks: int = 4):
        super().__init__()
        self.stem = nn.Conv2d(12, width, 3, padding=1)  # H/2, after 2 x 2 space-to-depth
        self.blocks = nn.Sequential(*[ResidualBlock(width) for _ in range(blocks)])
        self.head = nn.Conv2d(width, 12, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.stem(F.pixel_unshuffle(x, 2)), 0.2)
        return x + F.pixel_shuffle(self.head(self.blocks(y)), 2)
