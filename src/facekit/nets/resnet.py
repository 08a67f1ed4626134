"""CycleGAN's generator (Zhu et al. 2017, after Johnson et al. 2016): down by 4, residual blocks, up again."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import InstanceNorm2d, initialise, normal_002, reflect_residual


class BlurDown(nn.Module):
    """Halve the edges of [N, C, H, W] by a blur of weights (1 2 1) in both directions, reflected at the border."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = outer(x, (1, 2, 1)).expand(x.shape[1], 1, -1, -1)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=x.shape[1])


class BlurUp(nn.Module):
    """Double the edges of [N, C, H, W] by a blur of weights (1 3 3 1) in both directions, edges repeated."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = 4 * outer(x, (1, 3, 3, 1)).expand(x.shape[1], 1, -1, -1)
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, kernel, stride=2, padding=2, groups=x.shape[1])[:, :, 1:-1, 1:-1]


def outer(like: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the kernel [n, n] of sum 1 whose rows and columns have these weights."""
    row = like.new_tensor(weights) / sum(weights)
    return row[:, None] * row


class ResnetGenerator(nn.Module):
    """Image to image, [N, in_channels, H, W] in [-1, 1], H and W multiples of 4; `width` is 64 in the paper.

    `blocks` is 9 at 256 px and 6 at 128 px. With `antialias` a blur goes with every change of size (Zhang 2019), as in
    the generator of CUT (Park et al. 2020).
    """

    def __init__(
        self, width: int = 64, blocks: int = 9, in_channels: int = 3, out_channels: int = 3, antialias: bool = False
    ):
        super().__init__()
        w = width

        def down(inside: int, out: int) -> list[nn.Module]:
            conv = nn.Conv2d(inside, out, 3, stride=1 if antialias else 2, padding=1)
            return [conv, InstanceNorm2d(out), nn.ReLU(), *([BlurDown()] if antialias else [])]

        def up(inside: int, out: int) -> list[nn.Module]:
            if antialias:
                return [BlurUp(), nn.Conv2d(inside, out, 3, padding=1), InstanceNorm2d(out), nn.ReLU()]
            conv = nn.ConvTranspose2d(inside, out, 3, stride=2, padding=1, output_padding=1)
            return [conv, InstanceNorm2d(out), nn.ReLU()]

        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, w, 7, padding=3, padding_mode="reflect"),
            InstanceNorm2d(w),
            nn.ReLU(),
            *down(w, 2 * w),  # S/2
            *down(2 * w, 4 * w),  # S/4
            *[reflect_residual(4 * w) for _ in range(blocks)],
            *up(4 * w, 2 * w),  # S/2
            *up(2 * w, w),  # S
            nn.Conv2d(w, out_channels, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )
        initialise(self, normal_002)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
