"""Convolution by Winograd's minimal filtering, forward and backward, with a quarter of the products, on the processor.

A tile of t x t places gives m x m results of an r x r kernel, t = m + r - 1. Tiles and kernel are transformed to t^2
numbers each, where the convolution is t^2 matrix products over the channels; a third transform gives the results
(Lavin and Gray 2016, "Fast algorithms for convolutional neural networks"). The backward pass uses the transposes.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

POINTS = (0.0, 0.7, -0.7, 1.4, -1.4)  # and infinity; chosen by trial for the least rounding error
TILE = len(POINTS) + 1
TILES = 64  # below this the transforms cost more than they save
CHANNELS = 64, 64 * 128  # of image and results, the fewer and their product: below this likewise
WIDE_CHANNELS = 256, 256 * 256  # the same where torch has AVX-512, which gains it more than matrix products
DTYPE = torch.float32  # the only type for which this is faster
PIECE = 256  # tiles that are computed at once: their numbers stay in the cache


@functools.cache
def transforms(kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the transforms of tiles [t^2, t^2], of kernels [t^2, r^2], and of results [m^2, t^2], for r = `kernel`.

    They are those of Toom and Cook: polynomials are multiplied by their values at `POINTS`.
    """
    results = TILE - kernel + 1
    polynomial = np.polynomial.polynomial
    tile, weight, result = np.zeros((TILE, TILE)), np.zeros((TILE, kernel)), np.zeros((results, TILE))
    for row, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        tile[row, :-1] = polynomial.polyfromroots(others)
        weight[row] = np.power(point, range(kernel)) / np.prod([point - other for other in others])
        result[:, row] = np.power(point, range(results))
    tile[-1] = polynomial.polyfromroots(POINTS)
    weight[-1, -1] = result[-1, -1] = 1
    both = (torch.from_numpy(np.kron(side, side)) for side in (tile, weight, result))
    return tuple(both)  # type: ignore[return-value]


class Scratch(threading.local):
    """Each thread's memory for intermediate results: allocating it anew costs more than the products."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, torch.dtype], Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Return an uninitialised tensor; the next one of the same name takes the same memory."""
        need = math.prod(shape)
        flat = self.kept.get((name, like.dtype))
        if flat is None or flat.numel() < need:
            with torch.inference_mode(False):  # else only inference could write to it later
                flat = self.kept[name, like.dtype] = torch.empty(need, dtype=like.dtype)
        return flat[:need].view(shape)


scratch = Scratch()


class Winograd(torch.autograd.Function):
    """Convolution of x [N, C, H, W] with weight [K, C, r, r], r 3 or 4, stride 1, zero padding.

    Results, in channels-last memory, differ from torch's by about 1e-6 of their size. Second derivatives are torch's.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], computed: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.bias = padding, bias is not None
        grid = Grid(x, weight.shape[2], padding)
        if not computed:
            return x.new_empty(grid.count, len(weight), grid.height, grid.width)
        kernels = grid.weights(weight)
        tiles = grid.tiles(x)
        y = x.new_empty(grid.count, grid.high * grid.step, grid.wide * grid.step, len(weight))
        for images, rows in grid.pieces():
            transformed = grid.transform(tiles, images, rows)
            products = multiply("gathered", transformed, kernels)
            results = grid.blocks(product("results", grid.result, products), images, rows)
            target = grid.split(y, images, rows)
            torch.add(results, bias, out=target) if bias is not None else target.copy_(results)
        return y[:, : grid.height, : grid.width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        wanted = (*ctx.needs_input_grad[:2], ctx.bias and ctx.needs_input_grad[2])
        if torch.is_grad_enabled():
            sizes = [len(weight)] if ctx.bias else None
            rest = ([1, 1], [*ctx.padding], [1, 1], False, [0, 0], 1, list(wanted))
            return *torch.ops.aten.convolution_backward(gradient, x, weight, sizes, *rest), None, None
        grid = Grid(x, weight.shape[2], ctx.padding)
        gradient = gradient.permute(0, 2, 3, 1)
        x_gradient, weight_gradient = (
            _gradients(grid, x, weight, gradient, wanted[:2]) if any(wanted[:2]) else (None, None)
        )
        return x_gradient, weight_gradient, gradient.sum((0, 1, 2)) if wanted[2] else None, None, None


class Conv2dCall(NamedTuple):
    """The arguments of a call of `torch.conv2d`."""

    image: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1


def conv2d(call: Conv2dCall, computed: bool = True) -> Tensor:
    """Convolve; the call must be one for which `is_faster` returns true.

    If it is not to be `computed`, the result is arbitrary numbers, and only what the backward pass needs is right.
    """
    image, weight, bias, _, padding, *_ = call
    return Winograd.apply(image, weight, bias, pair(padding), computed)  # type: ignore[no-any-return, no-untyped-call]


def is_faster(call: Conv2dCall) -> bool:
    """Return whether a convolution is supported and large enough to gain."""
    image, weight, _, stride, padding, dilation, groups = call
    kernel = weight.shape[2]
    least, product = WIDE_CHANNELS if wide() else CHANNELS
    if not (
        image.device.type == "cpu"
        and image.dtype == weight.dtype == DTYPE
        and not torch.is_autocast_enabled("cpu")
        and image.dim() == 4
        and groups == 1
        and kernel in ((3,) if wide() else (3, 4))
        and weight.shape[3] == kernel
        and pair(stride) == pair(dilation) == (1, 1)
        and isinstance(padding, (int, tuple))
        and min(weight.shape[:2]) >= least
        and math.prod(weight.shape[:2]) >= product
    ):
        return False
    step = TILE - kernel + 1
    sizes = (size + 2 * pad - kernel + 1 for size, pad in zip(image.shape[2:], pair(padding), strict=True))
    return len(image) * math.prod(max(0, size) // step for size in sizes) >= TILES


@functools.cache
def wide() -> bool:
    """Return whether torch computes with vectors of 512 bits."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Return an option for both axes that is given as one number or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _gradients(
    grid: Grid, x: Tensor, weight: Tensor, gradient: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of x and weight, those `wanted`, from that of the result [N, h, w, K]."""
    (results, channels, side, _), (height, width) = weight.shape, x.shape[2:]
    gradient = F.pad(gradient, (0, 0, 0, grid.wide * grid.step - grid.width, 0, grid.high * grid.step - grid.height))
    tiles_gradient = kernels_gradient = None
    if wanted[0]:
        kernels = grid.weights(weight).transpose(1, 2)
        tiles_gradient = x.new_zeros(grid.count, (grid.high + 1) * grid.step, (grid.wide + 1) * grid.step, channels)
    if wanted[1]:
        tiles = grid.tiles(x)
        kernels_gradient = scratch("of weights", x, TILE**2, channels, results).zero_()
    for images, rows in grid.pieces():
        blocks = grid.split(gradient, images, rows).permute(2, 4, 0, 1, 3, 5)
        products_gradient = product("products", grid.result.T, gather("results", blocks)).unflatten(1, (-1, results))
        if kernels_gradient is not None:
            kernels_gradient.baddbmm_(grid.transform(tiles, images, rows).transpose(1, 2), products_gradient)
        if tiles_gradient is not None:
            transformed_tiles_gradient = multiply("tiles", products_gradient, kernels)
            grid.spread(product("gathered", grid.tile.T, transformed_tiles_gradient), tiles_gradient, images, rows)
    x_gradient = weight_gradient = None
    if tiles_gradient is not None:
        top, left = grid.padding
        x_gradient = tiles_gradient[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
    if kernels_gradient is not None:
        weight_gradient = (
            (grid.weight.T @ kernels_gradient.flatten(1)).view(side, side, channels, results).permute(3, 2, 0, 1)
        )
    return x_gradient, weight_gradient


def gather(name: str, x: Tensor) -> Tensor:
    """Copy x [p, q, ...] to a matrix [p q, rest] in scratch memory."""
    return scratch(name, x, *x.shape).copy_(x).view(x.shape[0] * x.shape[1], -1)


def product(name: str, matrix: Tensor, flat: Tensor) -> Tensor:
    """Return a transform of numbers [n, places x channels], in scratch memory."""
    return torch.mm(matrix, flat, out=scratch(name, flat, len(matrix), flat.shape[1]))


def multiply(name: str, x: Tensor, y: Tensor) -> Tensor:
    """Return the matrix products of x [t^2, p, q] and y [t^2, q, r] as [t^2, p r], in scratch memory."""
    return torch.bmm(x, y, out=scratch(name, x, *x.shape[:2], y.shape[2])).flatten(1)


class Grid:
    """The positions of a convolution's tiles, and its transforms."""

    def __init__(self, x: Tensor, kernel: int, padding: tuple[int, int]):
        self.tile, self.weight, self.result = (matrix.to(x) for matrix in transforms(kernel))
        self.step, self.padding = TILE - kernel + 1, padding
        self.count = len(x)
        self.height, self.width = (
            size + 2 * pad - kernel + 1 for size, pad in zip(x.shape[2:], padding, strict=True)
        )  # of the results
        self.high, self.wide = (-(-size // self.step) for size in (self.height, self.width))  # tiles

    def pieces(self) -> Iterator[tuple[slice, slice]]:
        """Yield the images and rows of tiles of each piece that is computed at once."""
        rows = min(self.high, max(1, PIECE // self.wide))
        images = max(1, PIECE // (self.high * self.wide))
        for image in range(0, self.count, images):
            for row in range(0, self.high, rows):
                yield slice(image, min(image + images, self.count)), slice(row, min(row + rows, self.high))

    def weights(self, weight: Tensor) -> Tensor:
        """Transform kernels [K, C, r, r] to [t^2, C, K]."""
        flat = gather("gathered", weight.permute(2, 3, 1, 0))
        return product("weights", self.weight, flat).unflatten(1, (weight.shape[1], -1))

    def tiles(self, x: Tensor) -> Tensor:
        """Pad x [N, C, H, W] to whole tiles and return a view of them [N, high, wide, C, t, t]."""
        (top, left), (height, width) = self.padding, x.shape[2:]
        below = self.high * self.step + TILE - self.step - height - top
        right = self.wide * self.step + TILE - self.step - width - left
        channels_last = x.permute(0, 2, 3, 1)
        margins = (0, 0, left, right, top, below)
        padded = F.pad(channels_last, margins) if any(margins) else channels_last.contiguous()
        return padded.unfold(1, TILE, self.step).unfold(2, TILE, self.step)

    def transform(self, tiles: Tensor, images: slice, rows: slice) -> Tensor:
        """Transform a piece of the tiles to [t^2, tiles, C]."""
        piece = tiles[images, rows].permute(4, 5, 0, 1, 2, 3)
        return product("tiles", self.tile, gather("gathered", piece)).unflatten(1, (-1, tiles.shape[3]))

    def split(self, y: Tensor, images: slice, rows: slice) -> Tensor:
        """View a piece of results [N, high m, wide m, K] as [n, rows, m, wide, m, K]."""
        return y.unflatten(2, (-1, self.step)).unflatten(1, (-1, self.step))[images, rows]

    def blocks(self, results: Tensor, images: slice, rows: slice) -> Tensor:
        """View the results of a piece [m^2, tiles K] as [n, rows, m, wide, m, K]."""
        shape = (self.step, self.step, images.stop - images.start, rows.stop - rows.start, self.wide, -1)
        return results.view(shape).permute(2, 3, 0, 4, 1, 5)

    def spread(self, tiles: Tensor, target: Tensor, images: slice, rows: slice) -> None:
        """Add the tiles of a piece [t^2, tiles C], which overlap, to [N, (high + 1) m, (wide + 1) m, C]."""
        shape = (TILE, TILE, images.stop - images.start, rows.stop - rows.start, self.wide, -1)
        tiles = tiles.view(shape).permute(2, 3, 0, 4, 1, 5)
        cells = target.unflatten(2, (-1, self.step)).unflatten(1, (-1, self.step))
        over = TILE - self.step
        for down, ys, y in ((0, self.step, slice(0, self.step)), (1, over, slice(self.step, TILE))):
            for right, xs, x in ((0, self.step, slice(0, self.step)), (1, over, slice(self.step, TILE))):
                part = cells[images, rows.start + down : rows.stop + down, :ys, right : self.wide + right, :xs]
                part += tiles[:, :, y, :, x]
