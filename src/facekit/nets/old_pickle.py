"""Weights out of pickles that hold more than weights, without running any code that they name.

A child process reads the file. Its unpickler knows the functions that build tensors; whatever else a file names becomes
an object that does nothing, so that even a whole pickled module gives up its weights.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ..errors import MissingError
from ..ops.private_torch import TENSOR_BUILDERS
from ..runtime import console
from .pretrained import read_weights

OBJECTS = ("weights_only", "Weights only", "Unsupported global")  # in what torch says of files that hold more
SECONDS = 900  # that reading may take
CHILD = "import sys; sys.path[:] = sys.argv[2:]; from facekit.nets.old_pickle import serve; serve(sys.argv[1])"
State = dict[str, Any]  # of tensors, or of further states


def read_without_code(path: Path) -> Mapping[str, Any]:
    """Return the weights of a safetensors or torch file; whatever else a torch file holds is passed over, and not run.

    Raises MissingError where the file is missing, broken or holds no weights by name.
    """
    try:
        return read_weights(path)
    except MissingError as error:
        if not any(mark in error.message for mark in OBJECTS):
            raise
    console.note(f"{path} holds Python objects besides weights; they are passed over, none is run")
    return read_old_pickle(path)


def read_old_pickle(path: Path) -> State:
    """Return the tensors of a pickled file by name, nested as they are in it; a module gives its state dict.

    Raises MissingError where the file is broken, takes too long, or holds no tensor.
    """
    child = [sys.executable, "-c", CHILD, str(path.resolve()), *filter(None, sys.path)]
    try:
        done = subprocess.run(child, capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"{path} takes longer than {SECONDS} s to read", "save its state_dict()") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().split("\n")
        raise MissingError(f"{path} cannot be read: {lines[-1]}", "save its state_dict() with a current PyTorch")
    return _unpacked(done.stdout)


def serve(path: str) -> None:
    """Write the tensors of a file to the standard output, as safetensors; runs in the child."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    _give_up_writing()
    try:
        tensors = collect(path)
    except Exception as error:  # whatever a broken or hostile file raises
        sys.exit(f"{type(error).__name__}: {error}"[:500])
    plain = {str(i): x.detach().clone(memory_format=torch.contiguous_format) for i, (_, x) in enumerate(tensors)}
    out.write(save_tensors(plain, {"names": json.dumps([names for names, _ in tensors])}))


def collect(path: str | Path) -> list[tuple[tuple[str, ...], Tensor]]:
    """Return the tensors of a file, each with the names on the way to it; raises what a broken file raises."""
    reader = SimpleNamespace(__name__="facekit", Unpickler=Unpickler, load=load)
    before, torch.jit.load = torch.jit.load, _refuse  # what torch.load does with TorchScript
    try:
        found = torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader, encoding="latin1")
    finally:
        torch.jit.load = before
    tensors = list(_tensors(found))
    if not tensors:
        raise ValueError("it holds no weights by name")
    return tensors


def _give_up_writing() -> None:
    """Make this process unable to write to files, where the system can; pipes stay."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _refuse(*given: Any, **named: Any) -> None:
    raise ValueError("it is a TorchScript program, and its code is not run")


def _unpacked(data: bytes) -> State:
    """Return what `serve` wrote, nested again and in its order."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors, state = load_tensors(data), State()
    for i, names in enumerate(json.loads(header["__metadata__"]["names"])):
        here = state
        for name in names[:-1]:
            here = here.setdefault(name, {})
        here[names[-1]] = tensors[str(i)]
    return state


def _tensors(value: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Yield the tensors below a value with the names on the way to them, in order."""
    fields = vars(value) if isinstance(value, Inert) else value if isinstance(value, Mapping) else {}
    if isinstance(value, Tensor) and names:
        yield names, value
    elif "_parameters" in fields:
        for name, tensor in _state_dict(value):
            yield (*names, name), tensor
    else:
        for key, below in fields.items():
            yield from _tensors(below, (*names, str(key)))


def _state_dict(module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a module that was read as an inert object, named as torch names them."""
    fields = vars(module) if isinstance(module, Inert) else {}
    for kind in ("_parameters", "_buffers"):
        for name, value in dict(fields.get(kind) or {}).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, below in dict(fields.get("_modules") or {}).items():
        yield from _state_dict(below, f"{prefix}{name}.")


class _Closed(type):
    """A class whose attributes a pickle cannot set."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise TypeError("it changes a class")


class Inert(metaclass=_Closed):
    """Stands for an object of any class that a file names: it keeps its fields, and does nothing."""

    dump_patches = False  # torch asks classes of old files for it

    def __new__(cls, *given: Any, **named: Any) -> Inert:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *given: Any, **named: Any):
        pass

    def __call__(self, *given: Any, **named: Any) -> Inert:
        """Do nothing, where a file calls what it has looked up."""
        return Inert()

    def __setstate__(self, state: Any) -> None:
        """Keep the fields."""
        for fields in state if isinstance(state, tuple) else [state]:
            if isinstance(fields, Mapping):
                vars(self).update({str(key): value for key, value in fields.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep an item, as that of a defaultdict."""
        vars(self)[str(key)] = value

    def append(self, value: Any) -> None:
        """Drop an item of a list."""

    def extend(self, values: Any) -> None:
        """Drop the items of a list."""


KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    **TENSOR_BUILDERS,
    ("torch.nn.parameter", "Parameter"): nn.Parameter,
    ("torch", "Size"): tuple,
}


class Unpickler(pickle.Unpickler):
    """Builds tensors and plain values; of anything else it makes an `Inert`."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a file names; nothing is imported."""
        return KNOWN.get((module, name), Inert)


def load(file: Any, **options: Any) -> Any:
    """Read one pickle, as `pickle.load` does; torch asks its pickle module for it."""
    return Unpickler(file, **options).load()
