"""Normalisation on the processor with few passes over memory, there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

PIECE = 2**20  # numbers that are worked on at once: they stay in the cache from one step to the next

Affine = Callable[..., tuple[Tensor, Tensor]]
"""What makes scale and shift [N, C, 1, 1] of mean, variance and parameters that can be broadcast to it."""


def normalise(affine: Affine, correction: int, x: Tensor, *parameters: Tensor | None) -> Tensor:
    """Return x scale + shift for x [N, C, H, W], with scale and shift = affine(mean, variance, *parameters).

    Mean and variance [N, C, 1, 1], of 32 bits or more, are those of each channel of each image, the variance divided by
    H W - correction.
    """
    if x.device.type != "cpu" or not x.requires_grad:
        return plain(affine, correction, x, *parameters)
    y, scale, shift = Normalise.apply(affine, correction, x, *parameters)  # type: ignore[no-untyped-call]
    return again(y, x, scale, shift)


def plain(affine: Affine, correction: int, x: Tensor, *parameters: Tensor | None) -> Tensor:
    """Return what `normalise` returns, by functions of torch."""
    variance, mean = torch.var_mean(x.to(wider(x)), (2, 3), correction=correction, keepdim=True)
    scale, shift = affine(mean, variance, *parameters)
    return torch.addcmul(shift, x, scale).to(x.dtype)


def again(y: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return y; to modes of torch's functions this is the function that gives y = x scale + shift."""
    if has_torch_function_unary(y):
        return handle_torch_function(again, (y,), y, x, scale, shift)  # type: ignore[no-any-return]
    return y


class Normalise(torch.autograd.Function):
    """See `normalise`; returns scale and shift, too, as constants."""

    @staticmethod
    def forward(
        ctx: Any, affine: Affine, correction: int, x: Tensor, *parameters: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.affine, ctx.correction = affine, correction
        ctx.save_for_backward(x, *parameters)
        ctx.small = [part.requires_grad_() for part in moments(x, correction)]
        ctx.small += [part if part is None else part.detach().requires_grad_() for part in parameters]
        with torch.enable_grad():
            ctx.made = affine(*ctx.small)
        scale, shift = (part.detach() for part in ctx.made)
        ctx.mark_non_differentiable(scale, shift)
        return moved(x, scale, shift), scale, shift

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            wanted = [part for part, needed in zip((x, *parameters), ctx.needs_input_grad[2:], strict=True) if needed]
            y = plain(ctx.affine, ctx.correction, x, *parameters)
            of_wanted = iter(torch.autograd.grad(y, wanted, slope, create_graph=True))
            return None, None, *(next(of_wanted) if needed else None for needed in ctx.needs_input_grad[2:])
        mean, scale = ctx.small[0].detach(), ctx.made[0].detach()
        of_scale, of_shift = torch.zeros_like(mean), torch.zeros_like(mean)
        for place in pieces(x):
            of_scale[place[0]] += (x[place] * slope[place]).sum((2, 3), True, dtype=mean.dtype)
            of_shift[place[0]] += slope[place].sum((2, 3), True, dtype=mean.dtype)
        inputs = [part for part in ctx.small if part is not None]
        found = iter(torch.autograd.grad(ctx.made, inputs, (of_scale, of_shift), retain_graph=True))
        of_mean, of_variance, *of_parameters = (part if part is None else next(found) for part in ctx.small)
        area = x.shape[2] * x.shape[3]
        twice = of_variance * (2 / (area - ctx.correction))
        constant = of_mean / area - twice * mean
        of_x = torch.empty_like(x)
        for place in pieces(x):
            image = place[0]
            moving = torch.addcmul(constant[image], x[place], twice[image])
            of_x[place] = moving.addcmul_(slope[place], scale[image])
        return None, None, of_x, *of_parameters


def pieces(x: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Yield parts of x [N, C, H, W]: several images, or some rows of one."""
    count, channels, height, width = x.shape
    rows = max(1, PIECE // (channels * width))
    images = max(1, rows // height)
    for image in range(0, count, images):
        for row in range(0, height, rows):
            yield slice(image, image + images), slice(None), slice(row, row + rows)


def wider(x: Tensor) -> torch.dtype:
    """Return the type to sum x in: its own, but not one of 16 bits."""
    return torch.promote_types(x.dtype, torch.float32)


def moments(x: Tensor, correction: int) -> list[Tensor]:
    """Return mean and variance [N, C, 1, 1] of x [N, C, H, W] over its places, in 32 bits or more."""
    area = x.shape[2] * x.shape[3]
    mean = x.new_zeros(*x.shape[:2], 1, 1, dtype=wider(x))
    variance = torch.zeros_like(mean)
    for place in pieces(x):
        mean[place[0]] += x[place].sum((2, 3), True, dtype=mean.dtype)
    mean /= area
    for place in pieces(x):
        variance[place[0]] += (x[place] - mean[place[0]]).square_().sum((2, 3), True)
    return [mean, variance / (area - correction)]


def moved(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return x scale + shift, in the type and the layout of x."""
    y = torch.empty_like(x)
    for place in pieces(x):
        y[place] = torch.addcmul(shift[place[0]], x[place], scale[place[0]])
    return y
