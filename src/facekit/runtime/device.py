"""The device that a job runs on, and how its threads are shared out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ..errors import CardError


def find_device(name: str) -> str:
    """Return a torch device name; `auto` is the GPU if there is one. Raises CardError for a device that is missing."""
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros((), device=name)
    except (RuntimeError, AssertionError) as error:
        raise CardError(f"no device {name!r} here: {str(error).splitlines()[0]}", "--device auto") from error
    return name


@contextlib.contextmanager
def share_threads(count: int) -> Iterator[None]:
    """Give each of `count` threads that start within it its share of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
