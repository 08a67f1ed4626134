"""The loader alone: images a second that it decodes, crops and stacks, by the number of threads."""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image

from facekit.data.loader import Batches, Domain
from facekit.data.reader import Reader

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--images", type=int, default=64)
parser.add_argument("--edge", type=int, default=512, help="px of a source image, JPEG")
parser.add_argument("--workers", default="1,2")
parser.add_argument("--rounds", type=int, default=3)
arguments = parser.parse_args()
print(machine())
with tempfile.TemporaryDirectory() as place:
    for index in range(arguments.images):
        coarse = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((arguments.edge,) * 2).save(Path(place, f"{index}.jpg"), quality=95)
    paths = sorted(Path(place).iterdir())
    steps = arguments.images // 8
    for _ in range(arguments.rounds):
        for workers in map(int, arguments.workers.split(",")):
            domain = Domain(Reader("a"), paths, 286)  # without a cache: each image is decoded
            batches = Batches([domain], seed=0, batch=8, size=256)
            start = time.perf_counter()
            for _ in batches.stream(0, steps, workers):
                pass
            print(f"{workers} workers: {8 * steps / (time.perf_counter() - start):.0f} images/s")
