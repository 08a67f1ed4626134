"""Activation checkpointing: cheap layers are recomputed in the backward pass, so that training needs less memory.

Normalisation, activation, up-sampling and padding between two convolutions each store a tensor for the backward pass,
although all of these can be computed quickly from the output of the first convolution. `recompute` stores only that
output (`torch.utils.checkpoint`; Chen et al. 2016, "Training deep nets with sublinear memory cost").
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Context = Callable[[], contextlib.AbstractContextManager[object]]

CHEAP = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Upsample,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.ZeroPad2d,
    nn.Identity,
    nn.GroupNorm,
    nn.InstanceNorm2d,
)


def recompute(
    nets: nn.Module,
    context: Context = contextlib.nullcontext,
    last: Context = contextlib.nullcontext,
    between: Callable[[], object] = lambda: None,
) -> None:
    """Make every `nn.Sequential` in `nets` recompute the cheap layers before each convolution in the backward pass.

    Values, gradients and second derivatives stay bit-identical. Layers that draw random numbers or update statistics
    are not recomputed. `context` returns a new context manager like that of the forward pass; layers are recomputed in
    it, because the backward pass runs outside the original one; the convolution, of which only the input is needed
    then, also in that of `last`. `between` is called before each group of layers, in both passes: a place to give
    freed memory back.
    """
    how = Recomputation(context, last, between)
    for module in nets.modules():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            module.forward = partial(_forward, segments(list(module)), how)  # type: ignore[method-assign]


class Recomputation(NamedTuple):
    """How layers are recomputed; see `recompute`."""

    context: Context
    last: Context
    between: Callable[[], object]


def segments(layers: list[nn.Module]) -> list[tuple[list[nn.Module], bool]]:
    """Split layers into groups, each with whether it is recomputed: cheap layers and the convolution after them are."""
    out: list[tuple[list[nn.Module], bool]] = []
    run: list[nn.Module] = []
    for layer in layers:
        if is_cheap(layer):
            run.append(layer)
        elif type(layer) in (nn.Conv2d, nn.ConvTranspose2d):
            out.append(([*run, layer], bool(run) or layer.padding_mode != "zeros"))
            run = []
        else:
            out += [(run, False), ([layer], False)]
            run = []
    return [*out, (run, False)]


def is_cheap(layer: nn.Module) -> bool:
    """Whether a layer is fast and deterministic; own layers are marked with `cheap = True`."""
    return getattr(layer, "cheap", False) or (
        isinstance(layer, CHEAP) and not getattr(layer, "track_running_stats", False)
    )


class _Again:
    """What a group of layers is recomputed in; `running` says whether it is."""

    def __init__(self, how: Recomputation):
        self.how, self.running = how, False
        self.context = how.context()

    def __enter__(self) -> None:
        self.how.between()
        self.context.__enter__()
        self.running = True

    def __exit__(self, *error: Any) -> bool | None:
        self.running = False
        return self.context.__exit__(*error)


def _forward(parts: list[tuple[list[nn.Module], bool]], how: Recomputation, x: Tensor) -> Tensor:
    for layers, recomputed in parts:
        how.between()
        if recomputed and torch.is_grad_enabled():
            again = _Again(how)
            x = checkpoint(
                partial(_apply, layers, again),
                x,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=lambda again=again: (contextlib.nullcontext(), again),  # type: ignore[misc]
            )
        else:
            x = _apply(layers, None, x)
    return x


def _apply(layers: list[nn.Module], again: _Again | None, x: Tensor) -> Tensor:
    for index, layer in enumerate(layers, 1):
        only_input = again is not None and again.running and index == len(layers)
        with again.how.last() if only_input and again else contextlib.nullcontext():
            x = layer(x)
    return x
