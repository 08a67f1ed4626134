"""Peak memory of translating films of few and of many frames: it must not grow with the film."""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np
from machine import machine
from skimage.data import astronaut

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--frames", type=int, nargs="+", default=[120, 7200], help="7200 are an hour at 2 frames a second")
parser.add_argument("--weights", default="anime")
arguments = parser.parse_args()
RATE, SIZE = 2, (240, 180)


def make_film(path: Path, frames: int) -> None:
    """Encode a photo that moves about."""
    photo = np.ascontiguousarray(astronaut()[0:360, 0:480])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "28", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(frames):
            moved = np.float32([[0.5, 0, 6 * np.sin(number / 9)], [0, 0.5, 4 * np.cos(number / 7)]])
            frame = cv2.warpAffine(photo, moved, SIZE, borderMode=cv2.BORDER_REFLECT)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


print(machine())
for count in arguments.frames:
    with tempfile.TemporaryDirectory() as place:
        make_film(Path(place) / "film.mp4", count)
        command = ["translate", "film.mp4", "out.mp4", "--weights", arguments.weights, "--device", "cpu", "-q"]
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "facekit", *command], cwd=place, check=True)
        took = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of all so far: few frames come first
    print(f"{count} frames: {took:.0f} s, peak {peak:.0f} MiB", flush=True)
