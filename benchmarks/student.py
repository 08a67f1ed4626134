"""Runs that learnt from pairs, or without, against the right answers: scores on DATA/valA -> valB, size and speed.

Train them on DATA for as long as each other first, for example:

    facekit train student --data photo2cartoon-256 --size 128 --batch 4 --steps 2000 --threads 1 --out runs/student
    facekit train cyclegan --data photo2cartoon-256 --size 128 --batch 4 --steps 850 --threads 1 --out runs/cyclegan
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
from machine import machine

import facekit
from facekit.ops.cpu_kernels import CpuKernels
from facekit.recipe_api import checkpoint
from facekit.runtime import console
from facekit.storage import card

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", type=Path, help="a folder with valA and valB, equal names belonging together")
parser.add_argument("runs", nargs="+", help="run folders, or names of shipped weights")
parser.add_argument("--features", required=True, help="an ONNX file, for FID and KID")
parser.add_argument("--vgg", required=True, help="a file with VGG's first layers, for the distance of features")
parser.add_argument("--size", type=int, default=128, help="px at which all are compared")
parser.add_argument("--rounds", type=int, default=15, help="images that are timed")
parser.add_argument("--no-speed", action="store_true")
arguments = parser.parse_args()
photos, drawings = arguments.data / "valA", arguments.data / "valB"
SHOWN = ("PSNR", "SSIM", "VGG-distance", "landmark-distance", "colour-skin", "colour-hair", "KID", "FID")


def scores_of(folder: Path) -> str:
    """Return the figures of a folder of translations against the right answers."""
    given = {"features": arguments.features, "vgg": arguments.vgg, "resize": arguments.size}
    with console.silenced():
        found = facekit.score_fid(folder, drawings, truth=drawings, source=drawings, **given)
    values = {name: next((value for key, value in found.items() if key.startswith(name)), None) for name in SHOWN}
    figures = {name: value for name, value in values.items() if value is not None}  # no pair may show a nose
    return ", ".join(
        f"{name} {value:.5f}" if name == "KID" else f"{name} {value:.3f}" for name, value in figures.items()
    )


def speed_of(run: str, place: Path) -> str:
    """Return ms an image by torch and by ONNX Runtime, on one thread and on two."""
    model = checkpoint.load_model(run)
    side, size = checkpoint.direction(model, None), model.card.data.size
    path = facekit.export(run, place / "model.onnx", force=True)
    x = torch.rand(1, 3, size, size) * 2 - 1
    parts = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options)

        def by_torch() -> None:
            with torch.inference_mode(), CpuKernels():
                model.recipe.translate(model.nets, x, side)

        def by_onnx(opened: onnxruntime.InferenceSession = session) -> None:
            opened.run(None, {"image": x.numpy()})

        for name, work in (("torch", by_torch), ("onnx", by_onnx)):
            work()
            times = []
            for _ in range(arguments.rounds):
                begun = time.perf_counter()
                work()
                times.append(time.perf_counter() - begun)
            parts.append(f"{name} x{threads} {1000 * statistics.median(times):.0f} ms")
    return f"at {size} px: {', '.join(parts)}"


print(machine())
print(f"photos as they are: {scores_of(photos)}")
for run in arguments.runs:
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "made"
        facekit.translate(photos, made, weights=run, align=False)
        file = checkpoint.find_weights(run)
        values = card.load(Path(run) / card.NAME) if (Path(run) / card.NAME).exists() else {}
        steps, batch = values.get("run", {}).get("steps"), values.get("data", {}).get("batch")
        print(f"{run}: {scores_of(made)}; {file.stat().st_size / 1e6:.1f} MB, {steps} steps of {batch}")
        if not arguments.no_speed:
            print(f"  {speed_of(run, Path(place))}")
