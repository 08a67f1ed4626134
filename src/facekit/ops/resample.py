"""Resampling of feature maps with a short FIR filter, as grouped convolutions (Karras et al. 2020, StyleGAN2)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (1.0, 3.0, 3.0, 1.0)
"""The binomial filter that StyleGAN2 uses for every change of resolution."""


@functools.cache
def _filter(channels: int, axis: int, gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the filter for one axis as weights of a depthwise convolution, [C, 1, 4, 1] or [C, 1, 1, 4]."""
    shape = (1, 1, 4, 1) if axis == 0 else (1, 1, 1, 4)
    with torch.inference_mode(False):  # it is kept, and gradients may pass later
        taps = torch.tensor(TAPS, dtype=dtype, device=device)
        return (taps / taps.sum() * gain).view(shape).expand(channels, 1, *shape[2:]).contiguous()


def blur(x: Tensor, pad: int, gain: float = 1.0, down: int = 1) -> Tensor:
    """Filter x [N, C, H, W] after padding `pad` zeros on every side; keep every `down`-th sample.

    The result has (H + 2 pad - 4) // down + 1 rows, and columns by the same rule. `gain` multiplies the values.
    """
    channels = x.shape[1]
    for axis in (0, 1):
        weight = _filter(channels, axis, gain**0.5, x.dtype, x.device)
        stride, padding = ((down, 1), (pad, 0)) if axis == 0 else ((1, down), (0, pad))
        x = F.conv2d(x, weight, stride=stride, padding=padding, groups=channels)
    return x


def upsample(x: Tensor) -> Tensor:
    """Double the resolution of x [N, C, H, W]: insert zeros, then filter."""
    channels = x.shape[1]
    for axis in (0, 1):
        weight = _filter(channels, axis, 2.0, x.dtype, x.device)
        stride, padding = ((2, 1), (1, 0)) if axis == 0 else ((1, 2), (0, 1))
        x = F.conv_transpose2d(x, weight, stride=stride, padding=padding, groups=channels)
    return x
