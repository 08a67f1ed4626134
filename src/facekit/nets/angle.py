"""Networks conditioned on how many degrees a face is turned (Eki's unfinished improvement of CycleGAN).

An angle is the roll of `facekit.faces`: degrees that the eye line is turned from level, clockwise positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Residual, initialise, normal_002, reflect_residual
from .resnet import ResnetGenerator


def ramp(roll: Tensor, height: int, width: int) -> Tensor:
    """Return cos(roll) u + sin(roll) v [N, 1, H, W], which rises along the eye line; u, v are -1 to 1.

    It turns as the image turns, and it varies from place to place, so that instance normalisation keeps it.
    """
    across, down = _places(width, height, roll), _places(height, width, roll)
    angle = (roll * (math.pi / 180))[:, None, None]
    return (torch.cos(angle) * across + torch.sin(angle) * down[:, None])[:, None]


def _places(count: int, other: int, like: Tensor) -> Tensor:
    """Return the pixels' places along an edge; -1 to 1 along the shorter one, in the same unit along the other."""
    return torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype) * (count / min(count, other))


def plane(roll: Tensor, height: int, width: int) -> Tensor:
    """Return roll / 180 at every place, [N, 1, H, W]: the paper's "fourth layer", scaled to the range of the image."""
    return (roll / 180)[:, None, None, None].expand(-1, 1, height, width)


def turned(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn square images [N, C, S, S] clockwise about their middle by degrees [N]; beyond them is their mirror image.

    Black corners would give the angle away; mirrored ones do not.
    """
    angle = torch.deg2rad(degrees).to(x.dtype)
    cos, sin, none = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    back = torch.stack(
        [torch.stack([cos, sin, none], 1), torch.stack([-sin, cos, none], 1)], 1
    )  # where each px is from
    grid = F.affine_grid(back, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


class Unangled(nn.Module):
    """CycleGAN's generator without the angle: the control of every comparison."""

    def __init__(self, width: int, blocks: int):
        super().__init__()
        self.net = ResnetGenerator(width, blocks)

    def forward(self, x: Tensor, roll: Tensor) -> Tensor:
        return self.net(x)


class Channelled(nn.Module):
    """CycleGAN's generator with the angle as fourth channel, [N, 3, H, W] and degrees [N] to [N, 3, H, W].

    With reflecting padding a plane becomes one number per channel, which instance normalisation takes away: the net is
    blind to it. With `zero_pad` its first layer sees the plane end at the border, and there alone.
    """

    def __init__(self, width: int, blocks: int, code: Callable[[Tensor, int, int], Tensor], zero_pad: bool = False):
        super().__init__()
        self.code = code
        self.net = ResnetGenerator(width, blocks, in_channels=4)
        if zero_pad:
            self.net.layers[0] = initialise(nn.Conv2d(4, width, 7, padding=3), normal_002)

    def forward(self, x: Tensor, roll: Tensor) -> Tensor:
        return self.net(torch.cat([x, self.code(roll, *x.shape[2:]).to(x)], 1))


class StyledResidual(Residual):
    """A residual block whose two normalisations take scale and shift from a code [N, 2]: AdaIN (Huang et al. 2017)."""

    def __init__(self, channels: int):
        super().__init__(*reflect_residual(channels).body)
        self.style = nn.Linear(2, 4 * channels)
        nn.init.zeros_(self.style.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:  # type: ignore[override]
        scale1, shift1, scale2, shift2 = self.style(code)[:, :, None, None].chunk(4, 1)
        conv1, norm1, relu, conv2, norm2 = self.body
        y = relu(norm1(conv1(x)) * (1 + scale1) + shift1)
        return x + norm2(conv2(y)) * (1 + scale2) + shift2


class Styled(nn.Module):
    """CycleGAN's generator with (sin, cos) of the angle as the style of its residual blocks."""

    def __init__(self, width: int, blocks: int):
        super().__init__()
        layers = ResnetGenerator(width, blocks).layers
        self.layers = nn.ModuleList(StyledResidual(4 * width) if isinstance(k, Residual) else k for k in layers)
        initialise(self, normal_002)

    def forward(self, x: Tensor, roll: Tensor) -> Tensor:
        angle = roll * (math.pi / 180)
        code = torch.stack([torch.sin(angle), torch.cos(angle)], 1).to(x.dtype)
        for layer in self.layers:
            x = layer(x, code) if isinstance(layer, StyledResidual) else layer(x)
        return x
