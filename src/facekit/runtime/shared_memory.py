"""Memory that the processes of a run on one machine share; it has no name in a file system and ends with them."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from dataclasses import dataclass

from . import distributed


@dataclass(frozen=True)
class Shared:
    """Memory, zero at first, and which of `parts` equal shares of it this process is to fill."""

    memory: mmap.mmap
    part: int = 0
    parts: int = 1


def allocate(size: int) -> Shared:
    """Return memory that the processes of this machine share; every process of the run calls this.

    The first process of the machine decides its `size` in bytes. Pages count as used, for the machine and for the
    control group of the process, once they are written to. Where the system cannot share (macOS, Windows), each
    process has memory of its own, and is to fill as much of it. Raises OSError where the system has no room for it.
    """
    processes, number = distributed.local_size(), distributed.local_rank()
    descriptor, name = -1, ""
    if number == 0 and hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            name = f"facekit-{secrets.token_hex(8)}"
            descriptor = os.memfd_create(name)
            os.ftruncate(descriptor, size)
            name = f"/proc/{os.getpid()}/fd/{descriptor} {name}"
    try:
        address, _, name = distributed.from_first_here(name).partition(" ")
        if number > 0 and name:
            with contextlib.suppress(OSError):
                if name in os.readlink(address):  # not a file of another container's process of that number
                    descriptor = os.open(address, os.O_RDWR)
        distributed.barrier()  # the first keeps it open until all have opened it
        if descriptor < 0 or not name:
            return Shared(mmap.mmap(-1, size), 0, processes)
        return Shared(mmap.mmap(descriptor, 0), number, processes)  # all of it, as long as the first made it
    finally:
        if descriptor >= 0:
            os.close(descriptor)
