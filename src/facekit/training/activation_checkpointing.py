"""Less memory for training: cheap activations are recomputed in the backward pass instead of being kept.

Between two convolutions stand normalisation, activation, up-sampling and padding. Each of them keeps a tensor for the
backward pass, although all of them follow, in little time, from what the first convolution returned. `recompute` keeps
only that (`torch.utils.checkpoint`, Chen et al. 2016, "Training deep nets with sublinear memory cost").
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

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


def recompute(nets: nn.Module, context: Context = contextlib.nullcontext) -> None:
    """Make every `nn.Sequential` in nets recompute the layers before each convolution in the backward pass.

    Values and gradients stay the same to the bit, second derivatives included. Layers that draw random numbers or
    update statistics are left as they are. `context` returns the context of the forward pass: torch leaves it in the
    backward pass, and layers are recomputed in a new one.
    """
    for module in nets.modules():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            module.forward = partial(_forward, segments(list(module)), context)  # type: ignore[method-assign]


def segments(layers: list[nn.Module]) -> list[tuple[list[nn.Module], bool]]:
    """Split layers into runs, and say of each whether it is recomputed: cheap layers and the convolution after them."""
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
    """Return whether a layer takes little time and gives the same result each time (`cheap = True` marks others)."""
    return getattr(layer, "cheap", False) or (
        isinstance(layer, CHEAP) and not getattr(layer, "track_running_stats", False)
    )


def _forward(parts: list[tuple[list[nn.Module], bool]], context: Context, x: Tensor) -> Tensor:
    for layers, recomputed in parts:
        if recomputed and torch.is_grad_enabled():
            x = checkpoint(
                _apply,
                layers,
                x,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=lambda: (contextlib.nullcontext(), context()),
            )
        else:
            x = _apply(layers, x)
    return x


def _apply(layers: list[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x
