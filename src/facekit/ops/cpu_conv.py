"""Convolution on the processor with NNPACK, Winograd's filtering or one matrix product, where that is faster."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import private_torch, winograd
from .winograd import Conv2dCall, pair

MANY_WEIGHTS = 2**21  # from here on, reading the weights is most of the work
FEW_CHANNELS = 16  # below this the transforms cost more than they save


def conv2d(call: Conv2dCall) -> Tensor:
    """Convolve in the fastest of these ways:

    - NNPACK (Lavin and Gray 2016, "Fast algorithms for convolutional neural networks": 3 x 3 by Winograd's filtering,
      7 x 7 by FFT) for one contiguous image without gradients; differs from torch by about 1e-5 of the result's size.
    - One matrix product for many weights and few places.
    - `winograd` for many channels, stride 1, kernels of 3 and 4; results and gradients differ by about 1e-6.
    - torch for all others.
    """
    return fastest(call)(call)


def fastest(call: Conv2dCall) -> Callable[[Conv2dCall], Tensor]:
    """Return the function that computes a call."""
    if suits_nnpack(call):
        return by_nnpack
    if has_many_weights(call):
        return by_matrix_product
    return winograd.conv2d if winograd.is_faster(call) else by_torch


def by_torch(call: Conv2dCall) -> Tensor:
    """Convolve as torch does."""
    return torch.conv2d(*call)


def by_nnpack(call: Conv2dCall) -> Tensor:
    """Convolve with NNPACK."""
    return private_torch.nnpack_conv2d(call.image, call.weight, call.bias, call.padding)


def suits_nnpack(call: Conv2dCall) -> bool:
    """Return whether NNPACK is faster than torch: one contiguous image, no gradient, 3 x 3 or 7 x 7."""
    image, weight, _, stride, padding, dilation, groups = call
    channels, kernel = tuple(weight.shape[:2]), tuple(weight.shape[2:])
    return (
        groups == 1
        and kernel in ((3, 3), (7, 7))
        and (max if kernel == (7, 7) else min)(channels) >= FEW_CHANNELS
        and stride in (1, (1, 1))
        and dilation in (1, (1, 1))
        and isinstance(padding, (int, tuple))
        and image.dim() == 4
        and len(image) == 1
        and image.is_contiguous()
        and image.device.type == "cpu"
        and image.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and (image.requires_grad or weight.requires_grad))
    )


def has_many_weights(call: Conv2dCall) -> bool:
    """Return whether a convolution has many weights and few places: reading the weights is most of its work."""
    image, weight, _, stride, padding, dilation, groups = call
    if image.device.type != "cpu" or image.dim() != 4 or groups != 1 or not isinstance(padding, (int, tuple)):
        return False
    if pair(dilation) != (1, 1) or weight.numel() < MANY_WEIGHTS:
        return False
    axes = zip(image.shape[2:], weight.shape[2:], pair(stride), pair(padding), strict=True)
    return len(image) * math.prod((size + 2 * pad - edge) // step + 1 for size, edge, step, pad in axes) <= 256


class HeavyLinear(torch.autograd.Function):
    """`F.linear` of x [..., C] with a large weight [K, C], without a bias.

    The weight's gradient is a new tensor, where torch returns a view: autograd adds the next gradient to it in place,
    and does not hold both and their sum.
    """

    @staticmethod
    def suits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
        """Return whether a call of `F.linear` is one of those that it replaces."""
        return (
            x.device.type == "cpu"
            and bias is None
            and weight.numel() >= MANY_WEIGHTS
            and x.dtype == weight.dtype
            and not torch.is_autocast_enabled("cpu")
        )

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        x_gradient = gradient @ weight if ctx.needs_input_grad[0] else None
        weight_gradient = (
            gradient.reshape(-1, len(weight)).T @ x.reshape(-1, x.shape[-1]) if ctx.needs_input_grad[1] else None
        )
        return x_gradient, weight_gradient


def by_matrix_product(call: Conv2dCall) -> Tensor:
    """Convolve by one matrix product, which reads the weights once and does not copy them."""
    image, weight, bias, stride, padding, *_ = call
    (down, right), (top, left) = pair(stride), pair(padding)
    channels_last = not weight.is_contiguous()
    windows = F.pad(image, (left, left, top, top)).unfold(2, weight.shape[2], down).unfold(3, weight.shape[3], right)
    windows = (
        windows.permute(0, 2, 3, 4, 5, 1) if channels_last else windows.permute(0, 2, 3, 1, 4, 5)
    )  # [N, h, w, ...]
    flat = (weight.permute(0, 2, 3, 1) if channels_last else weight).flatten(1)
    y = F.linear(windows.flatten(3), flat, bias).permute(0, 3, 1, 2)
    return y if channels_last else y.contiguous()
