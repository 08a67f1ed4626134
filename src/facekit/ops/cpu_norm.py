"""Normalisation on the processor with few passes over memory, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

PIECE = 2**17  # numbers that are computed at once: they stay in the cache from one operation to the next
FEW = 2**16  # numbers up to which plain torch is as fast as `in_pieces`
PLACES = 1024  # of an image from which torch's group normalisation has a faster way for channels-last memory

Affine = Callable[..., tuple[Tensor, Tensor]]
"""A function of mean, variance and parameters that returns scale and shift; all broadcast to [N, C, 1, 1]."""


def normalise(affine: Affine, correction: int, x: Tensor, *parameters: Tensor | None) -> Tensor:
    """Return x scale + shift for x [N, C, H, W], with scale and shift = affine(mean, variance, *parameters).

    Mean and variance [N, C, 1, 1], in 32 bits or more, are those of each channel of each image; the variance is divided
    by H W - correction. Plain torch, except within `cpu_kernels.CpuKernels`, which calls `in_pieces`.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(normalise, (x,), affine, correction, x, *parameters)  # type: ignore[no-any-return]
    variance, mean = torch.var_mean(x.to(sum_dtype(x)), (2, 3), correction=correction, keepdim=True)
    scale, shift = affine(mean, variance, *parameters)
    return torch.addcmul(shift, x, scale).to(x.dtype)


def in_pieces(affine: Affine, correction: int, x: Tensor, *parameters: Tensor | None) -> Tensor:
    """Return what `normalise` returns, in pieces that stay in the cache; x must be on the processor."""
    return Normalise.apply(affine, correction, x, *parameters)  # type: ignore[no-any-return, no-untyped-call]


def instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return the instance normalisation of x [N, C, H, W], in channels-last memory; weight and bias [C] or None.

    torch 2.14 is slow at it, and slowest where an image has under 1,024 places: such maps, and few numbers, cost less
    to copy to the usual layout and back.
    """
    if x.numel() <= PIECE or x.shape[2] * x.shape[3] < PLACES:
        return F.group_norm(x.contiguous(), x.shape[1], weight, bias, eps).contiguous(memory_format=torch.channels_last)
    return InstanceNorm.apply(x, weight, bias, eps)  # type: ignore[no-any-return, no-untyped-call]


class InstanceNorm(torch.autograd.Function):
    """Group normalisation of torch with one channel per group, and a backward pass of its own.

    In channels-last memory that of torch 2.14 goes over bfloat16 number by number, over 32 bits too often.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        count, channels, height, width = x.shape
        scale = x.new_ones(channels, dtype=sum_dtype(x)) if weight is None else weight.to(sum_dtype(x))
        shift = torch.zeros_like(scale) if bias is None else bias.to(sum_dtype(x))  # of this type the moments are too
        y, mean, inverse = torch.native_group_norm(x, scale, shift, count, channels, height * width, channels, eps)
        ctx.eps, ctx.moments = eps, [part[:, :, None, None] for part in (mean, inverse)]
        ctx.save_for_backward(x, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            needed = ctx.needs_input_grad[:3]
            wanted = [part for part, wants in zip((x, weight, bias), needed, strict=True) if wants]
            y = F.group_norm(x, x.shape[1], weight, bias, ctx.eps)
            gradients = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
            return *(next(gradients) if wants else None for wants in needed), None
        mean, inverse = ctx.moments
        total, product = products(x, gradient)
        product = (product - mean * total) * inverse  # with the normalised x, as its gradient is
        scale = inverse if weight is None else inverse * weight[:, None, None].to(inverse.dtype)
        area = x.shape[2] * x.shape[3]
        slope = -scale * inverse * product / area
        constant = -scale * total / area - slope * mean
        return (
            affine_of_both(x, gradient, slope, scale, constant),
            None if weight is None else product.sum((0, 2, 3)).to(weight.dtype),
            None if bias is None else total.sum((0, 2, 3)).to(bias.dtype),
            None,
        )


class Normalise(torch.autograd.Function):
    """See `normalise`. Keeps x, not the normalised x, for the backward pass."""

    @staticmethod
    def forward(ctx: Any, affine: Affine, correction: int, x: Tensor, *parameters: Tensor | None) -> Tensor:
        ctx.affine, ctx.correction = affine, correction
        ctx.save_for_backward(x, *parameters)
        ctx.small = [part.requires_grad_() for part in moments(x, correction)]
        ctx.small += [part if part is None else part.detach().requires_grad_() for part in parameters]
        with torch.enable_grad():
            ctx.affine_result = affine(*ctx.small)
        scale, shift = (part.detach() for part in ctx.affine_result)
        return scale_and_shift(x, scale, shift)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            wanted = [part for part, needed in zip((x, *parameters), ctx.needs_input_grad[2:], strict=True) if needed]
            y = normalise(ctx.affine, ctx.correction, x, *parameters)
            gradients = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
            return None, None, *(next(gradients) if needed else None for needed in ctx.needs_input_grad[2:])
        mean, scale = ctx.small[0].detach(), ctx.affine_result[0].detach()
        shift_gradient, scale_gradient = products(x, gradient)
        inputs = [part for part in ctx.small if part is not None]
        gradients = iter(
            torch.autograd.grad(ctx.affine_result, inputs, (scale_gradient, shift_gradient), retain_graph=True)
        )
        mean_gradient, variance_gradient, *parameter_gradients = (
            part if part is None else next(gradients) for part in ctx.small
        )
        area = x.shape[2] * x.shape[3]
        twice = variance_gradient * (2 / (area - ctx.correction))
        constant = mean_gradient / area - twice * mean
        x_gradient = affine_of_both(x, gradient, twice, scale, constant)
        return None, None, x_gradient, *parameter_gradients


def pieces(x: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Yield indices of parts of x [N, C, H, W]: several images, or some rows of one."""
    count, channels, height, width = x.shape
    rows = max(1, PIECE // (channels * width))
    images = max(1, rows // height)
    for image in range(0, count, images):
        for row in range(0, height, rows):
            yield slice(image, image + images), slice(None), slice(row, row + rows)


def sum_dtype(x: Tensor) -> torch.dtype:
    """Return the type to sum x in: its own, or 32 bits for one of 16."""
    return torch.promote_types(x.dtype, torch.float32)


def moments(x: Tensor, correction: int) -> list[Tensor]:
    """Return mean and variance [N, C, 1, 1] of x [N, C, H, W] over height and width, in 32 bits or more."""
    area = x.shape[2] * x.shape[3]
    mean = x.new_zeros(*x.shape[:2], 1, 1, dtype=sum_dtype(x))
    variance = torch.zeros_like(mean)
    for place in pieces(x):
        mean[place[0]] += x[place].sum((2, 3), True, dtype=mean.dtype)
    mean /= area
    for place in pieces(x):
        variance[place[0]] += (x[place] - mean[place[0]]).square_().sum((2, 3), True)
    return [mean, variance / (area - correction)]


def products(x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of a gradient and of x times it over height and width, [N, C, 1, 1], in 32 bits or more."""
    total = x.new_zeros(*x.shape[:2], 1, 1, dtype=sum_dtype(x))
    product = torch.zeros_like(total)
    for place in pieces(x):
        wide = gradient[place].to(total.dtype)
        total[place[0]] += wide.sum((2, 3), True)
        product[place[0]] += (x[place] * wide).sum((2, 3), True)
    return total, product


def affine_of_both(x: Tensor, gradient: Tensor, slope: Tensor, scale: Tensor, constant: Tensor) -> Tensor:
    """Return x slope + gradient scale + constant, in the type and memory layout of x."""
    y = torch.empty_like(x)
    for place in pieces(x):
        image = place[0]
        wide, wide_gradient = (part[place].to(slope.dtype) for part in (x, gradient))
        y[place] = torch.addcmul(constant[image], wide, slope[image]).addcmul_(wide_gradient, scale[image])
    return y


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return x scale + shift, in the type and memory layout of x."""
    y = torch.empty_like(x)
    for place in pieces(x):
        y[place] = torch.addcmul(shift[place[0]], x[place], scale[place[0]])
    return y
