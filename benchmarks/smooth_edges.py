"""Images/s of `facekit smooth-edges` on a folder of drawings, and of the published per-pixel loop on some of them."""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from machine import machine
from PIL import Image

from facekit.data import edge_smoothing
from facekit.storage import images

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("drawings", type=Path)
parser.add_argument("--size", type=int, default=256)
parser.add_argument("--sample", type=int, default=10, help="drawings for the per-pixel loop")
parser.add_argument("--workers", type=int, default=2)
arguments = parser.parse_args()
KERNEL = cv2.getGaussianKernel(5, 0) @ cv2.getGaussianKernel(5, 0).T


def per_pixel(path: Path, out: Path) -> np.ndarray:
    """Smooth a drawing as the published scripts do: decode, loop over the edge pixels in Python, encode."""
    pixels = np.asarray(images.resize(images.square(images.read(path)), arguments.size))
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    found = cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 100, 200)
    done = pixels.copy()
    for y, x in zip(*np.where(cv2.dilate(found, np.ones((5, 5), np.uint8)) != 0), strict=True):
        for channel in range(3):
            done[y, x, channel] = np.sum(np.multiply(padded[y : y + 5, x : x + 5, channel], KERNEL))
    images.save(Image.fromarray(done), out)
    return done


def processor_time(who: int) -> float:
    """Return the processor time used so far, s."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


print(machine())
with tempfile.TemporaryDirectory() as folder:
    paths = sorted(path for path in arguments.drawings.iterdir() if path.is_file())
    sample = paths[:: max(1, len(paths) // arguments.sample)][: arguments.sample]
    start, used = time.perf_counter(), processor_time(resource.RUSAGE_SELF)
    loops = [per_pixel(path, Path(folder) / f"{path.stem}.png") for path in sample]
    took, used = time.perf_counter() - start, processor_time(resource.RUSAGE_SELF) - used
    slow = len(sample) / used
    print(f"per-pixel loop: {len(sample) / took:.2f} images/s, {slow:.2f} per processor second, {len(sample)} images")
    for backend in ("opencv", "skimage"):
        out = Path(folder) / backend
        command = [sys.executable, "-m", "facekit", "smooth-edges", str(arguments.drawings), str(out), "--quiet"]
        command += ["--backend", backend, "--size", str(arguments.size), "--workers", str(arguments.workers)]
        start, used = time.perf_counter(), processor_time(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True)
        took, used = time.perf_counter() - start, processor_time(resource.RUSAGE_CHILDREN) - used
        count, fast = len(list(out.glob("*.png"))), len(paths) / used
        print(
            f"facekit, {backend}: {count / took:.1f} images/s with start-up and {arguments.workers} workers, "
            f"{fast:.1f} per processor second: {fast / slow:.0f} times the loop"
        )
    made = [np.asarray(Image.open(Path(folder) / "opencv" / f"{path.stem}.png")) for path in sample]
    equal = sum(np.array_equal(one, other) for one, other in zip(loops, made, strict=True))
    print(f"equal to the loop to the bit: {equal} of {len(sample)} images")
    share = np.mean(
        [edge_smoothing.smooth(one, "opencv")[1] for one in (np.asarray(images.read(path)) for path in sample)]
    )
    print(f"edge pixels: {share:.0%}")
