"""The PatchGAN discriminator (Isola et al. 2017): each output judges a patch of 70 px."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import InstanceNorm2d, initialise, normal_002


class PatchDiscriminator(nn.Module):
    """[N, in_channels, S, S] -> [N, 1, S/8 - 2, S/8 - 2] with three strided layers; no sigmoid."""

    def __init__(self, width: int = 64, in_channels: int = 3):
        super().__init__()
        w = width
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, w, 4, stride=2, padding=1),  # S/2
            nn.LeakyReLU(0.2),
            nn.Conv2d(w, 2 * w, 4, stride=2, padding=1),  # S/4
            InstanceNorm2d(2 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1),  # S/8
            InstanceNorm2d(4 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * w, 8 * w, 4, padding=1),  # S/8 - 1
            InstanceNorm2d(8 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8 * w, 1, 4, padding=1),  # S/8 - 2
        )
        initialise(self, normal_002)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
