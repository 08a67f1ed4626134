"""What every benchmark prints beside its figures."""

import datetime
import os
import platform
import resource


def machine() -> str:
    """Return processor, cores, Python and date in one line."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, {datetime.date.today()}"


def peak_memory() -> float:
    """Return the most memory that any child process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
