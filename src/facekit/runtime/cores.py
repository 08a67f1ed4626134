"""How many processor cores a job may use, and how many threads it should take."""

from __future__ import annotations

import contextlib
import itertools
import os

from . import control_groups

QUOTAS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))  # versions 2 and 1: "quota period", microseconds


def usable_cores() -> int:
    """Return how many cores this process may use: the machine's, less what affinity and control groups take away."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group, files in itertools.product(control_groups.folders("cpu"), QUOTAS):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            quota, period = (int(word) for word in " ".join((group / file).read_text() for file in files).split())
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
