"""Less memory for training: what is cheap to work out again is not kept for the way back."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from ..ops.cpu_norm import again, moved

RELU = (torch.relu, Tensor.relu, F.relu)
CHEAP = (F.threshold, F.leaky_relu, F.pad, F.instance_norm, F.interpolate, torch.addcmul, moved)
PAIRED = (Tensor.add, Tensor.to, Tensor.float)  # cheap, but what they take may be kept for them alone
SUMS = 2  # that are made again for one another: with more the time grows faster than the memory falls


@dataclass
class Made:
    """How a tensor was made: a function, what it took, and the versions of what it took (changes in place count up).

    `cast` is autocast's state then: device, type, whether it was on; `sums` is how many sums lead to it.
    """

    out: weakref.ref[Tensor]
    version: int
    cast: tuple[str, torch.dtype, bool]
    func: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    versions: tuple[int, ...]
    sums: int

    def fits(self, x: Tensor) -> bool:
        """Whether x is this tensor, and neither it nor what it was made of has changed since."""
        out = self.out()
        return bool(
            out is not None
            and (out.shape, out.stride(), out.dtype) == (x.shape, x.stride(), x.dtype)
            and out.storage_offset() == x.storage_offset()
            and x._version == self.version
            and versions(self.args) == self.versions
        )


@dataclass
class Again:
    """A tensor to be made again: as `Made`, with tensors that are kept or are to be made again themselves."""

    cast: tuple[str, torch.dtype, bool]
    func: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    versions: tuple[int, ...]

    @torch.no_grad()
    def __call__(self) -> Tensor:
        if versions(self.args) != self.versions:
            raise RuntimeError("a tensor that a gradient needs was changed in place")
        device, dtype, enabled = self.cast
        with torch.autocast(device, dtype, enabled=enabled):
            return self.func(*(x() if isinstance(x, Again) else x for x in self.args), **self.kwargs)


def versions(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Return how often each of the tensors was changed in place."""
    return tuple(x._version for x in args if isinstance(x, Tensor))


def storage(x: Tensor) -> int:
    """Return the address of a tensor's storage, which meta tensors have, too."""
    return x.untyped_storage()._cdata


def tensors(kept: Tensor | Again) -> Iterator[Tensor]:
    """Yield the tensors that are kept."""
    if isinstance(kept, Tensor):
        yield kept
    else:
        for part in kept.args:
            if isinstance(part, (Tensor, Again)):
                yield from tensors(part)


class Recompute(TorchFunctionMode):
    """While it is entered, the results of `CHEAP` functions are made again on the way back, from what went in.

    Of convolution, norm, activation and padding one tensor is kept, not three; of residual blocks' sums every third;
    and of what autocast casts one of the two. Values and gradients stay the same to the bit, also second ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Made] = {}
        self.kept: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in RELU and not kwargs.get("inplace") and len(args) == 1:
            func, args, kwargs = F.threshold, (*args, 0, 0), {}  # the same, but ReLU keeps its result
        out = func(*args, **kwargs)
        if func is again:  # what a function of ours has made
            func, args = moved, args[1:]
        new = isinstance(out, Tensor) and out.requires_grad and not any(out is x for x in args)
        if new and (func in CHEAP or (func in PAIRED and self.adds_nothing(out, args))):
            self.note(out, func, args, kwargs)
        return out

    def adds_nothing(self, out: Tensor, args: tuple[Any, ...]) -> bool:
        """Whether to keep what `out` was made of takes no more memory than is taken anyway, or than `out` does."""
        taken = [x for x in args if isinstance(x, Tensor)]
        known = [x for x in taken if storage(x) in self.kept or storage(x) in self.made]
        here = all(x.device == out.device for x in taken)
        return here and (len(known) == len(taken) or (len(taken) == 1 and taken[0].element_size() < out.element_size()))

    def note(self, out: Tensor, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note how a tensor was made, for as long as it is there."""
        if kwargs.get("inplace") or any(isinstance(x, Tensor) for x in kwargs.values()):
            return
        if func is F.instance_norm and len(args) > 1 and args[1] is not None:  # it counts what passes
            return
        place, made = storage(out), self.made
        out_ref = weakref.ref(out, lambda ref: made.pop(place) if place in made and made[place].out is ref else None)
        device = "cpu" if out.is_meta else out.device.type
        cast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        before = [made[storage(x)].sums for x in args if isinstance(x, Tensor) and storage(x) in made]
        sums = max(before, default=0) + (func is Tensor.add)
        if sums <= SUMS:
            made[place] = Made(out_ref, out._version, cast, func, args, kwargs, versions(args), sums)

    def pack(self, x: Tensor) -> Tensor | Again:
        """Return what to keep in place of x."""
        made = self.made.get(storage(x))
        if made is None or not made.fits(x):
            self.kept.add(storage(x))
            return x
        kept = tuple(self.pack(y.detach()) if isinstance(y, Tensor) else y for y in made.args)
        return Again(made.cast, made.func, kept, made.kwargs, versions(kept))

    @staticmethod
    def unpack(kept: Tensor | Again) -> Tensor:
        """Return the tensor that `pack` was given."""
        return kept() if isinstance(kept, Again) else kept


@contextlib.contextmanager
def recompute() -> Iterator[None]:
    """Keep less for the way back of what is computed inside."""
    mode = Recompute()
    with mode, saved_tensors_hooks(mode.pack, mode.unpack):
        yield
