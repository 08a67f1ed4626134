"""Images/s of `facekit align` by detector, with one worker process and with two, and how many photos have a face."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photos", type=Path)
parser.add_argument("--model-root", type=Path, help="insightface's model root; leaves insightface out if absent")
parser.add_argument("--limit", type=int, default=100)
arguments = parser.parse_args()
print(machine())
detectors = ["facekit", "cascade"] + (["insightface"] if arguments.model_root else [])
for detector, workers in [(detector, workers) for detector in detectors for workers in ("1", "2")]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "facekit", "align", str(arguments.photos), folder, "--detector", detector]
        command += ["--limit", str(arguments.limit), "--workers", workers, "--quiet"]
        if detector == "insightface":
            command += ["--model-root", str(arguments.model_root)]
        start = time.perf_counter()
        subprocess.run(command, stderr=subprocess.DEVNULL)
        took = time.perf_counter() - start
        found = len(list(Path(folder).rglob("*.png")))
    rate = arguments.limit / took
    print(f"{detector}, {workers} workers: {rate:.1f} photos/s with start-up, faces in {found} of {arguments.limit}")
