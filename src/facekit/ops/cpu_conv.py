"""Convolution on the processor with fewer products, or with fewer readings of its weights."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from . import winograd
from .winograd import Asked, pair

HEAVY = 2**21  # weights; their reading is then most of the work
NARROW = 16  # channels; with fewer the transforms cost more than they save


class QuickConvolution(TorchFunctionMode):
    """While it is entered, large convolutions take less time (`benchmarks/convolution.py`).

    Without gradients, one contiguous image goes to NNPACK (Lavin and Gray 2016: 3 x 3 by Winograd; 7 x 7 by FFT), where
    torch has it: results differ from torch's by about 1e-5 of their size. Other convolutions of stride 1 go to
    `winograd`, which learns: results and gradients differ by about 1e-6. Many weights for few places become one matrix
    product, and the gradients of such weights are added up in place. What would not gain stays as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        ready = torch.backends.nnpack.is_available()  # type: ignore[no-untyped-call]  # asking makes it so
        self.here = ready and hasattr(torch, "_nnpack_spatial_convolution")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs and HeavyLinear.takes(*args):
            return HeavyLinear.apply(*args[:2])  # type: ignore[no-untyped-call]
        if func is not torch.conv2d or kwargs:
            return func(*args, **(kwargs or {}))
        asked = Asked(*args)
        if self.here and takes(asked):
            try:
                return torch._nnpack_spatial_convolution(asked.image, asked.weight, asked.bias, asked.padding)
            except RuntimeError:  # no room for what it works in
                return func(*args)
        if heavy(asked):
            return unrolled(asked)
        return winograd.conv2d(asked) if winograd.pays(asked) else func(*args)


def takes(asked: Asked) -> bool:
    """Whether NNPACK makes a convolution quicker."""
    image, weight, _, stride, padding, dilation, groups = asked
    channels, kernel = tuple(weight.shape[:2]), tuple(weight.shape[2:])
    return (
        groups == 1
        and kernel in ((3, 3), (7, 7))
        and (max if kernel == (7, 7) else min)(channels) >= NARROW
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


def heavy(asked: Asked) -> bool:
    """Whether a convolution has many weights for few places."""
    image, weight, _, stride, padding, dilation, groups = asked
    if image.device.type != "cpu" or image.dim() != 4 or groups != 1 or not isinstance(padding, (int, tuple)):
        return False
    if pair(dilation) != (1, 1) or weight.numel() < HEAVY:
        return False
    axes = zip(image.shape[2:], weight.shape[2:], pair(stride), pair(padding), strict=True)
    return len(image) * math.prod((size + 2 * pad - edge) // step + 1 for size, edge, step, pad in axes) <= 256


class HeavyLinear(torch.autograd.Function):
    """x [..., C] by a weight [K, C] of many numbers, transposed, without a bias.

    The weight's gradient is a tensor of its own, not the view that torch's is: to that autograd can add the next one in
    place, where it otherwise holds both and their sum.
    """

    @staticmethod
    def takes(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
        """Whether it does the work of `F.linear`."""
        return (
            x.device.type == "cpu"
            and bias is None
            and weight.numel() >= HEAVY
            and x.dtype == weight.dtype
            and not torch.is_autocast_enabled("cpu")
        )

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x = slope @ weight if ctx.needs_input_grad[0] else None
        of_weight = slope.reshape(-1, len(weight)).T @ x.reshape(-1, x.shape[-1]) if ctx.needs_input_grad[1] else None
        return of_x, of_weight


def unrolled(asked: Asked) -> Tensor:
    """Convolve by one matrix product: the weights, which are most of it, stay as they lie."""
    image, weight, bias, stride, padding, *_ = asked
    (down, right), (top, left) = pair(stride), pair(padding)
    last = not weight.is_contiguous()
    windows = F.pad(image, (left, left, top, top)).unfold(2, weight.shape[2], down).unfold(3, weight.shape[3], right)
    windows = windows.permute(0, 2, 3, 4, 5, 1) if last else windows.permute(0, 2, 3, 1, 4, 5)  # [N, h, w, ...]
    flat = (weight.permute(0, 2, 3, 1) if last else weight).flatten(1)
    y = F.linear(windows.flatten(3), flat, bias).permute(0, 3, 1, 2)
    return y if last else y.contiguous()
