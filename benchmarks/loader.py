"""The loader alone: images a second by the number of threads, without a cache, filling it, and out of it.

In brackets is the processor time of an image. Under `torchrun --nproc-per-node N` the processes share the cache and all
read at once; the images a second are their sum.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine
from PIL import Image

from facekit.data.loader import Batches
from facekit.data.sample_cache import SampleCache
from facekit.runtime import distributed

BATCH = 8

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--images", type=int, default=256)
parser.add_argument("--edge", type=int, default=512, help="px of a source image, JPEG")
parser.add_argument("--workers", default="1,2")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--device", default="cpu", help="cuda: through pinned memory to the GPU")
arguments = parser.parse_args()
device = distributed.start(arguments.device)


def rate(batches: Batches, first: int, steps: int, workers: int) -> str:
    """Return images a second of all processes over some steps, and the processor time of an image."""
    distributed.barrier()
    start, used = time.perf_counter(), time.process_time()
    for _ in batches.stream(first, first + steps, workers):
        pass
    if device.type == "cuda":
        torch.cuda.synchronize()
    spent = torch.tensor([[time.perf_counter() - start, time.process_time() - used]], device=device)
    spent = distributed.gather(spent)
    each = 1000 * float(spent[:, 1].mean()) / steps / BATCH
    return f"{float((BATCH * steps / spent[:, 0]).sum()):.0f} images/s ({each:.2f} ms)"


with tempfile.TemporaryDirectory() as place:
    for index in range(arguments.images):
        coarse = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((arguments.edge,) * 2).save(Path(place, f"{index:06d}.jpg"), quality=95)
    paths = {"a": sorted(Path(place).iterdir())}
    if distributed.rank() == 0:
        print(f"{machine()}; {arguments.images} JPEGs of {arguments.edge} px, {distributed.size()} processes")
    for _ in range(arguments.rounds):
        for workers in map(int, arguments.workers.split(",")):
            batches = Batches.of(paths, 286, seed=0, batch=BATCH, size=256, device=device)
            steps, (domain,) = batches.epoch_steps, batches.domains
            cache: SampleCache | None = domain.cache
            domain.cache = None
            found = {"no cache": rate(batches, 0, steps, workers)}
            domain.cache = cache
            found |= {"filling it": rate(batches, 0, steps, workers), "out of it": rate(batches, steps, steps, workers)}
            if distributed.rank() == 0:
                print(f"{workers} workers:", ", ".join(f"{kind} {one}" for kind, one in found.items()))
