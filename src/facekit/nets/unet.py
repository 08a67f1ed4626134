"""A small U-Net with residual blocks at 1/4 and 1/8 of the resolution: most of its work is done on small maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import InstanceNorm2d


class GentleResidual(nn.Module):
    """x + [conv, IN, ReLU, conv, IN]; the branch starts at 0.3 of its weight, close to the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = InstanceNorm2d(width, affine=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = InstanceNorm2d(width, affine=True)
        nn.init.constant_(self.norm2.weight, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))


class ResidualUNet(nn.Module):
    """Image to image, [N, 3, S, S] in [-1, 1], S a multiple of 8.

    `width` is that of the maps at S/4; those at S/8 are 1.5 times as wide, those at S/2 and S narrower. `blocks`
    residual blocks stand at S/8, one before and one after at S/4. Skips join equal resolutions by addition.
    """

    def __init__(self, width: int = 128, blocks: int = 4):
        super().__init__()
        deep, half, full = width * 3 // 2, width * 3 // 8, max(width * 3 // 16, 4)
        self.stem = nn.Conv2d(12, half, 3, padding=1)  # S/2, after 2 x 2 space-to-depth
        self.down1 = nn.Conv2d(half, width, 3, stride=2, padding=1)  # S/4
        self.norm1 = InstanceNorm2d(width, affine=True)
        self.before = GentleResidual(width)
        self.down2 = nn.Conv2d(width, deep, 3, stride=2, padding=1)  # S/8
        self.norm2 = InstanceNorm2d(deep, affine=True)
        self.middle = nn.Sequential(*[GentleResidual(deep) for _ in range(blocks)])
        self.up2, self.skip2 = nn.Conv2d(deep, width, 1), nn.Conv2d(width, width, 1)  # S/4
        self.after = GentleResidual(width)
        self.up1, self.skip1 = nn.Conv2d(width, half, 1), nn.Conv2d(half, half, 1)  # S/2
        self.refine = nn.Conv2d(half, half, 3, padding=1)
        self.norm_refine = InstanceNorm2d(half, affine=True)
        self.up0, self.skip0 = nn.Conv2d(half, full, 3, padding=1), nn.Conv2d(3, full, 3, padding=1)  # S
        self.head = nn.Conv2d(full, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        half = F.relu(self.stem(F.pixel_unshuffle(x, 2)))
        quarter = self.before(F.relu(self.norm1(self.down1(half))))
        eighth = self.middle(F.relu(self.norm2(self.down2(quarter))))
        y = self.after(F.relu(double(self.up2(eighth)) + self.skip2(quarter)))
        y = F.relu(double(self.up1(y)) + self.skip1(half))
        y = F.relu(self.norm_refine(self.refine(y)))
        y = F.relu(self.up0(double(y)) + self.skip0(x))
        return self.head(y).tanh()


def double(x: Tensor) -> Tensor:
    """Double the resolution, nearest neighbour."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
