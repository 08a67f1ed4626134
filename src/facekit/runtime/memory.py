"""Memory of the machine: how much a job may still use, and returning freed memory to the system."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import control_groups

SLACK = 64 * 2**20  # bytes of freed memory that are worth giving back
LIMITS = (  # of a control group, what it uses, and the part of that which is files: version 2, twice, and 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.high", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(device: str = "cpu") -> int | None:
    """Return the bytes that a job may still take on a device, within the limits of its container or batch job.

    None where the system does not say (macOS, Windows).
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    bounds = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        bounds.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    for group, (limit, use, files) in itertools.product(control_groups.folders("memory"), LIMITS):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            left = int((group / limit).read_text()) - int((group / use).read_text())
            with contextlib.suppress(OSError, ValueError, KeyError):  # pages of files go when memory is short
                left += int(dict(line.split() for line in (group / "memory.stat").read_text().splitlines())[files])
            bounds.append(left)
    return max(0, min(bounds)) if bounds else None


@functools.cache
def trim() -> Callable[[int], int] | None:
    """Return the C library's function that gives free memory back to the system, where it has one (glibc)."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def resident() -> int:
    """Return the bytes of memory that this process holds (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def let_go(array: Any) -> None:
    """Take the pages of an array that is memory-mapped from a file out of this process, where the system can.

    They stay in the file. Of any other array, nothing happens.
    """
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    if array is not None and hasattr(mmap, "MADV_DONTNEED"):
        array.madvise(mmap.MADV_DONTNEED)


def is_short(held: int) -> bool:
    """Return whether a process that holds so many bytes may not take as many again, or the system does not say."""
    left = available_memory()
    return left is None or left < held


class Heap:
    """Returns freed memory to the system at places where it would raise the peak of the process.

    The C library keeps freed memory in pieces, which may be too small for the next tensor and then count twice.
    Returned memory costs page faults when it is needed again, so this happens only if the process holds more than it
    ever needed at that place, and memory is short, or `always`.
    """

    def __init__(self, always: bool = False) -> None:
        self.always = always
        self.most: dict[str, int] = {}  # bytes held after giving back, at the most, by place

    def give_back(self, place: str) -> None:
        """Return free memory if the process holds more than it ever needed at this place of the job."""
        give, most = trim(), self.most.get(place, 0)
        if give and (held := resident()) > most + SLACK and (self.always or is_short(held)):
            give(0)
            self.most[place] = max(most, resident())
