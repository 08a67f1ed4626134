"""Images/s of `facekit align` by detector, with one worker and with two, and how many photos have a face.

The start-up, that of a run of two photos, is counted in the first figure and taken off for the second.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("photos", type=Path)
parser.add_argument("--model-root", type=Path, help="insightface's model root; leaves insightface out if absent")
parser.add_argument("--limit", type=int, default=100)
parser.add_argument("--detector", action="append", help="only this one; may be repeated")
arguments = parser.parse_args()
print(machine())
detectors = arguments.detector or ["facekit", "cascade"] + (["insightface"] if arguments.model_root else [])


def aligned(detector: str, workers: str, limit: int) -> tuple[float, int]:
    """Align so many photos; returns the seconds and the number of faces."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "facekit", "align", str(arguments.photos), folder, "--detector", detector]
        command += ["--limit", str(limit), "--workers", workers, "--quiet"]
        if detector == "insightface":
            command += ["--model-root", str(arguments.model_root)]
        start = time.perf_counter()
        subprocess.run(command, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start, len(list(Path(folder).rglob("*.png")))


for detector, workers in [(detector, workers) for detector in detectors for workers in ("1", "2")]:
    start_up = aligned(detector, workers, 2)[0]
    took, found = aligned(detector, workers, arguments.limit)
    rate, after = arguments.limit / took, (arguments.limit - 2) / (took - start_up)
    print(
        f"{detector}, {workers} workers: {rate:.1f} photos/s with start-up, {after:.1f} after it,"
        f" faces in {found} of {arguments.limit}"
    )
