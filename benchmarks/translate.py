"""Images/s and peak memory of `facekit translate` on many files, with the shipped weights."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine, peak_memory
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, default=1000)
parser.add_argument("--size", type=int, default=128)
parser.add_argument("--weights", default="anime")
arguments = parser.parse_args()
random = np.random.default_rng(0)
print(machine())
with tempfile.TemporaryDirectory() as folder:
    source, out = Path(folder) / "in", Path(folder) / "out"
    source.mkdir()
    for number in range(arguments.count):
        noise = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        noise.resize((arguments.size, arguments.size), Image.Resampling.BICUBIC).save(source / f"{number:05d}.jpg")
    command = [sys.executable, "-m", "facekit", "translate", str(source), str(out), "--no-align", "--quiet"]
    start = time.perf_counter()
    subprocess.run([*command, "--weights", arguments.weights], check=True)
    took = time.perf_counter() - start
    made = len(list(out.glob("*.png")))
print(f"{made} images of {arguments.size} px: {made / took:.1f} images/s with start-up, peak {peak_memory():.0f} MiB")
