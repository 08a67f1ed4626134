"""A small fast generator: depthwise residual blocks at low resolution, no normalisation.

Inverted residuals as in Sandler et al. 2018, "MobileNetV2", section 3. Statistics of an image change when a face
moves; without normalisation a video does not flicker because of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """x + scale [1 x 1 to twice the channels, depthwise 3 x 3, 1 x 1 back]: [N, C, H, W] -> [N, C, H, W].

    `scale` starts at 0.1 per channel, close to the identity: what keeps a deep net without normalisation stable.
    """

    def __init__(self, channels: int):
        super().__init__()
        wide = 2 * channels
        self.widen = nn.Conv2d(channels, wide, 1)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.narrow = nn.Conv2d(wide, channels, 1)
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.widen(x), 0.2)
        y = F.leaky_relu(self.depthwise(y), 0.2)
        return x + self.scale * self.narrow(y)


class Down(nn.Sequential):
    """Half the resolution, twice the channels: depthwise 3 x 3 with stride 2, then 1 x 1."""

    def __init__(self, channels: int):
        super().__init__(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.LeakyReLU(0.2),
        )


class Up(nn.Module):
    """Twice the resolution, half the channels: 1 x 1, nearest neighbour, sum with the skip, a residual block."""

    def __init__(self, channels: int):
        super().__init__()
        self.narrow = nn.Conv2d(channels, channels // 2, 1)
        self.block = InvertedResidual(channels // 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.block(F.interpolate(self.narrow(x), scale_factor=2, mode="nearest") + skip)


class Student(nn.Module):
    """Image to image, [N, 3, H, W] in [-1, 1], H and W multiples of 16.

    `width` channels at half the resolution, eight times as many at a sixteenth, where `blocks` residual blocks stand.
    """

    def __init__(self, width: int = 32, blocks: int = 3):
        super().__init__()
        self.stem = nn.Conv2d(12, width, 3, padding=1)  # H/2, after 2 x 2 space-to-depth
        self.downs = nn.ModuleList(Down(width * 2**level) for level in range(3))  # H/4, H/8, H/16
        self.middle = nn.Sequential(*[InvertedResidual(8 * width) for _ in range(blocks)])
        self.ups = nn.ModuleList(Up(width * 2**level) for level in (3, 2, 1))  # H/8, H/4, H/2
        self.head = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [F.leaky_relu(self.stem(F.pixel_unshuffle(x, 2)), 0.2)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        y = self.middle(maps.pop())
        for up in self.ups:
            y = up(y, maps.pop())
        return F.pixel_shuffle(self.head(y), 2).tanh()
