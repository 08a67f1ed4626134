"""What cyclegan-angle gains from conditioning on the angle: cycle error and KID of tilted faces, over the angle.

Held-out faces that lie upright are turned by known angles and translated by each of the WEIGHTS three ways: conditioned
on the angle, on 0 (all that other recipes can do), and by the simple baseline: turned upright, translated, turned
back. Train the control with `--set params.mode=none`, otherwise alike. Everything is measured within the circle that
every turn keeps inside the image. For KID the translations are turned back upright, so that one set of drawings, cut
to the same circle and once turned forth and back as they are, serves for all angles.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import machine

from facekit.nets.angle import turned
from facekit.recipe_api import checkpoint
from facekit.recipes.cyclegan_angle import CycleGANAngle
from facekit.runtime.device import find_device
from facekit.scoring import extractors, features, fid_kid
from facekit.storage import images
from facekit.storage.folder import Folder

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("weights", nargs="+", help="run folders or weights files of any recipe that goes both ways")
parser.add_argument("--photos", type=Path, required=True, help="held-out upright faces of domain a: valA")
parser.add_argument("--drawings", type=Path, required=True, help="faces of domain b to compare with: valB")
parser.add_argument("--angles", type=float, nargs="+", default=[0, 10, 20, 30, 45], help="degrees, each either way")
parser.add_argument("--features", default=extractors.CLEAN, help="what KID is taken on: an ONNX or TorchScript file")
parser.add_argument("--limit", type=int, default=400, help="faces of each domain")
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--device", default="auto")
arguments = parser.parse_args()


def read(folder: Path, size: int) -> torch.Tensor:
    """Return faces [N, 3, S, S] in [-1, 1]."""
    sources = Folder(folder).sources()[: arguments.limit]
    return torch.stack(
        [images.to_tensor(images.resize(images.square(images.read(source.path)), size)) for source in sources]
    )


def circle(size: int) -> torch.Tensor:
    """Return which places [S, S] lie inside the image at every angle, two px off its edge."""
    at = torch.arange(size) + 0.5 - size / 2
    return at[:, None] ** 2 + at[None] ** 2 < (size / 2 - 2) ** 2


def described(x: torch.Tensor) -> np.ndarray:
    """Return features of images [N, 3, S, S], grey outside the circle."""
    rows = []
    for group in (x * circle(x.shape[-1])).split(extractor.batch):
        pixels = np.stack([features.pixels(images.to_image(y), extractor.edge) for y in group])
        rows.append(extractor.run(pixels.astype(np.float32)))
    return np.concatenate(rows)


def ways(model: checkpoint.Model) -> dict[str, Callable[[torch.Tensor, str, torch.Tensor], torch.Tensor]]:
    """Return how tilted faces can be translated: name -> function of images, direction and angles."""
    recipe, nets = model.recipe, model.nets
    found = {
        "told 0": lambda x, to, roll: recipe.translate(nets, x, to),
        "upright and back": lambda x, to, roll: turned(recipe.translate(nets, turned(x, -roll), to), roll),
    }
    if isinstance(recipe, CycleGANAngle) and recipe.params.mode != "none":
        return {"told the angle": lambda x, to, roll: recipe.translate(nets, x, to, roll), **found}
    return found


@torch.inference_mode()
def measure(model: checkpoint.Model, way: Callable, angle: float) -> tuple[float, float]:
    """Return the cycle error (mean absolute, of a range of 2) and KID of the photos at an angle."""
    size = model.card.data.size
    errors, made = [], []
    for number, faces in enumerate(read(arguments.photos, size).split(arguments.batch)):
        side = torch.ones(len(faces))
        side[number % 2 :: 2] = -1  # half of them either way
        roll = (side * angle).to(device)
        x = turned(faces.to(device), roll)
        y = way(x, "b", roll)
        apart = (way(y, "a", roll) - x).abs()[:, :, circle(size)]
        errors.append(apart.mean((1, 2)).cpu())
        made.append(turned(y, -roll).cpu())
    drawings = read(arguments.drawings, size)
    level = torch.full((len(drawings),), float(angle))
    drawings = turned(turned(drawings, level), -level)  # as blurred as the translations
    kid = fid_kid.compare(described(torch.cat(made)), described(drawings), extractor.unit)[f"KID-{extractor.unit}"]
    return torch.cat(errors).mean().item(), kid


device = torch.device(find_device(arguments.device))
extractor = extractors.load(arguments.features, device=arguments.device)
print(machine())
print(f"KID on {extractor.name}; cycle error a -> b -> a, mean absolute of a range of 2")
print("| weights | way | " + " | ".join(f"{angle:g}°" for angle in arguments.angles) + " |")
print("|---" * (2 + len(arguments.angles)) + "|")
for name in arguments.weights:
    model = checkpoint.load_model(name, device)
    for title, way in ways(model).items():
        cells = [measure(model, way, angle) for angle in arguments.angles]
        shown = " | ".join(f"{cycle:.4f}, {kid:.5f}" for cycle, kid in cells)
        print(f"| {name} | {title} | {shown} |", flush=True)
