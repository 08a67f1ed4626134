"""Images/s of translating by PyTorch and by ONNX Runtime with the file of `facekit export`: a ratio within one run."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from machine import machine

import facekit
from facekit.ops.cpu_kernels import CpuKernels
from facekit.recipe_api import checkpoint

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights", default="anime")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=30)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = arguments.threads
model = checkpoint.load_model(arguments.weights)
side = checkpoint.direction(model, None)
with tempfile.TemporaryDirectory() as folder:
    path = facekit.export(arguments.weights, Path(folder) / "model.onnx")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
size = model.card.data.size
print(machine())
print(f"{arguments.weights}, {size} px, threads: {arguments.threads}, medians of {arguments.rounds} rounds, by turns")


@torch.inference_mode()
def by_torch(x: np.ndarray) -> np.ndarray:
    """Translate as facekit translate does."""
    with CpuKernels():
        return np.concatenate([model.recipe.translate(model.nets, one, side) for one in torch.from_numpy(x).split(1)])


def by_onnx(x: np.ndarray) -> np.ndarray:
    """Translate with ONNX Runtime."""
    return session.run(["translation"], {"image": x})[0]


def seconds(work, x: np.ndarray) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    work(x)
    return time.perf_counter() - start


for batch in (1, 4):
    x = np.random.default_rng(0).uniform(-1, 1, (batch, 3, size, size)).astype(np.float32)
    assert np.abs(by_torch(x) - by_onnx(x)).max() < 1e-3  # and both are warm
    pairs = [(seconds(by_torch, x), seconds(by_onnx, x)) for _ in range(arguments.rounds)]
    ours, theirs = (batch / statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(first / second for first, second in pairs)
    print(f"batch {batch}: PyTorch {ours:.1f} images/s, ONNX Runtime {theirs:.1f}: {ratio:.2f} times as fast")
