"""What the upscaler gives: held-out drawings back from half their size, and translations of photos at twice their size.

Each by the net and by interpolation (Lanczos), and the time that the net takes on one thread.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import machine
from PIL import Image

import facekit
from facekit.inference.enlarger import NONE, SHIPPED, Enlarger
from facekit.runtime import console
from facekit.storage import images
from facekit.storage.folder import open_source

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("drawings", type=Path, help="a folder of held-out drawings, sharp at their size")
parser.add_argument("photos", type=Path, help="a folder of held-out aligned photos")
parser.add_argument("--weights", default="anime", help="what translates the photos")
parser.add_argument("--upscaler", default=SHIPPED, help="a run folder, a file or shipped weights")
parser.add_argument("--features", required=True, help="an ONNX file, for FID and KID")
parser.add_argument("--vgg", required=True, help="a file with VGG's first layers, for the distance of features")
parser.add_argument("--rounds", type=int, default=15, help="pictures that are timed")
arguments = parser.parse_args()


def figures(found: dict[str, float], names: tuple[str, ...]) -> str:
    """Return the scores whose names begin with `names` as text."""
    chosen = {name: next(value for key, value in found.items() if key.startswith(name)) for name in names}
    digits = {"KID": 5}
    return ", ".join(f"{name} {value:.{digits.get(name, 3)}f}" for name, value in chosen.items())


print(machine())
with tempfile.TemporaryDirectory() as folder:
    place = Path(folder)
    for name in (NONE, arguments.upscaler):
        enlarger, back, made = Enlarger(name), place / f"{name}-drawings".replace("/", "_"), place / "translated"
        back.mkdir()
        for source in open_source(arguments.drawings, back):
            drawing = images.read(source.path)
            half = drawing.resize((drawing.width // 2, drawing.height // 2), Image.Resampling.BICUBIC)
            enlarger(images.to_tensor(half), min(drawing.size)).save(back / f"{Path(source.name).stem}.png")
        with console.silenced():
            found = facekit.score_fid(
                back, arguments.drawings, truth=arguments.drawings, features=arguments.features, vgg=arguments.vgg
            )
            shown = figures(found, ("PSNR", "SSIM", "VGG-distance", "KID", "FID"))
            print(f"{name}: drawings from half their size: {shown}")
            size = 2 * facekit.load(arguments.weights).size
            facekit.translate(
                arguments.photos, made, weights=arguments.weights, size=size, align=False, upscaler=name, force=True
            )
            found = facekit.score_fid(made, arguments.drawings, features=arguments.features)
            print(f"{name}: {arguments.weights} at {size} px: {figures(found, ('KID', 'FID'))}")

torch.set_num_threads(1)
enlarger = Enlarger(arguments.upscaler)
for edge in (128, 256):
    x, times = torch.rand(3, edge, edge) * 2 - 1, []
    for _ in range(arguments.rounds + 1):
        begun = time.perf_counter()
        enlarger(x, 2 * edge)
        times.append(time.perf_counter() - begun)
    print(f"{edge} to {2 * edge} px: {1000 * statistics.median(times[1:]):.0f} ms on one thread")
