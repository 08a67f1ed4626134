"""Start-up time of `facekit --help` against a bare Python: medians of ten pairs, taken in turn."""

import statistics
import subprocess
import sys
import time

from machine import machine


def seconds(*command: str) -> float:
    """Run a command and return its wall time."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


pairs = [(seconds(sys.executable, "-m", "facekit", "--help"), seconds(sys.executable, "-c", "")) for _ in range(11)][1:]
ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
print(machine())
print(f"facekit --help {ours * 1000:.0f} ms, python alone {bare * 1000:.0f} ms (medians of 10)")
