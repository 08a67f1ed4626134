"""The device that a job runs on, and how many processor threads it takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from ..errors import CardError

QUOTAS = (  # processor time of this job's control group, versions 2 and 1: "quota period" in microseconds
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


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


def usable_cores() -> int:
    """Return how many cores this process may use: the machine's, less what affinity and control groups take away."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in QUOTAS:
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            quota, period = (int(word) for word in " ".join(Path(file).read_text() for file in files).split())
            if quota > 0:
                count = min(count, round(quota / period))
    return max(1, count)


def choose_threads(wanted: int | None = None) -> tuple[int, str]:
    """Return the number of threads for this job, and why in a few words.

    `wanted` and `OMP_NUM_THREADS` are taken as they are. Otherwise there is a thread for each usable core that other
    jobs leave free (load average of the last minute): more threads than cores wait for each other at every operation.
    """
    if wanted is not None:
        return wanted, "as asked"
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return int(os.environ["OMP_NUM_THREADS"]), "OMP_NUM_THREADS"
    cores = usable_cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    free = round((os.cpu_count() or 1) - load)
    if free < cores:
        return max(1, free), f"of {cores} cores, the load is {load:.1f}"
    return cores, f"of {cores} cores"


def share_cores(jobs: int) -> int:
    """Return the threads of each of `jobs` that run side by side."""
    return max(1, usable_cores() // jobs)


@contextlib.contextmanager
def share_threads(count: int) -> Iterator[None]:
    """Give each of `count` threads that start within it its share of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
