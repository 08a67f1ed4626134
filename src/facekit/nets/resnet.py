"""CycleGAN's generator (Zhu et al. 2017, after Johnson et al. 2016): down by 4, residual blocks, up again."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import InstanceNorm2d, initialise, normal_002, reflect_residual


class ResnetGenerator(nn.Module):
    """Image to image, [N, in_channels, H, W] in [-1, 1], H and W multiples of 4; `width` is 64 in the paper.

    `blocks` is 9 at 256 px and 6 at 128 px.
    """

    def __init__(self, width: int = 64, blocks: int = 9, in_channels: int = 3, out_channels: int = 3):
        super().__init__()
        w = width
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, w, 7, padding=3, padding_mode="reflect"),
            InstanceNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),  # S/2
            InstanceNorm2d(2 * w),
            nn.ReLU(),
            nn.Conv2d(2 * w, 4 * w, 3, stride=2, padding=1),  # S/4
            InstanceNorm2d(4 * w),
            nn.ReLU(),
            *[reflect_residual(4 * w) for _ in range(blocks)],
            nn.ConvTranspose2d(4 * w, 2 * w, 3, stride=2, padding=1, output_padding=1),  # S/2
            InstanceNorm2d(2 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 3, stride=2, padding=1, output_padding=1),  # S
            InstanceNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, out_channels, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )
        initialise(self, normal_002)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
