"""The C library's heap: freed memory goes back to the system where it would raise the peak (Linux with glibc)."""

from __future__ import annotations

import ctypes
import functools
import resource
import sys
from collections.abc import Callable
from pathlib import Path

SLACK = 128 * 2**20  # bytes of freed memory that are worth giving back


@functools.cache
def trim() -> Callable[[int], int] | None:
    """Return the C library's function that gives back what is free, where it has one."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Heap:
    """Lets a job that allocates and frees much hold little more than it ever needed at once.

    Freed memory that was kept in pieces too small for the next tensor counts twice. To give it back costs page faults
    when it is wanted again, so it is done only where more is held than was needed before.
    """

    def __init__(self) -> None:
        self.most: dict[str, int] = {}  # bytes held after giving back, at the most, by place

    def give_back(self, place: str) -> None:
        """Give back what is free if more is held than was ever needed at this place of the job."""
        give, most = trim(), self.most.get(place, 0)
        if give and resident() > most + SLACK:
            give(0)
            self.most[place] = max(most, resident())
