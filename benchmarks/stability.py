"""Whether a translation stands still: faces moved by 2 px or turned by 2 degrees, translated, and warped back.

For each face x, with T the translation and W the warp, it prints the mean absolute difference (of 255) over the middle
of the frame, which every warp leaves inside:

    warped: |W^-1(T(W(x))) - T(x)|: what moves although the face only moved
    resampled: |W^-1(W(T(x))) - T(x)|: what interpolating twice costs alone; 0 for whole px
    share: warped less resampled, of the mean difference between translations of two different faces, on the same middle

with the 95 % bootstrap interval of the mean over faces.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine

from facekit.recipe_api import checkpoint
from facekit.scoring import bootstrap
from facekit.storage import images
from facekit.storage.folder import Folder

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("faces", type=Path, help="a folder of faces as `facekit align` cuts them")
parser.add_argument("--weights", nargs="+", default=["anime", "cartoon"], help="run folders, files or shipped names")
parser.add_argument("--limit", type=int, default=100)
parser.add_argument("--size", type=int, default=256, help="px of faces and translations")
parser.add_argument("--shift", type=float, default=2.0, help="px to the right and down")
parser.add_argument("--degrees", type=float, default=2.0)
arguments = parser.parse_args()
MIDDLE = 0.9  # of the edge


def warped(x: torch.Tensor, shift: float, degrees: float) -> torch.Tensor:
    """Move images [N, 3, S, S] by `shift` px right and down after turning them; edges repeat, bicubic."""
    angle, move = np.deg2rad(degrees), 2 * shift / x.shape[3]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rows = np.concatenate([turn, -turn @ np.full((2, 1), move)], 1)
    theta = torch.tensor(rows, dtype=x.dtype)[None].expand(len(x), 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(-1, 1)


def back(x: torch.Tensor, shift: float, degrees: float) -> torch.Tensor:
    """Undo `warped`, which only moves or only turns."""
    return warped(x, -shift, -degrees)


def apart(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Return the mean absolute difference [N] of 255 of images [N, 3, S, S] over their middle."""
    edge = int(x.shape[3] * (1 - MIDDLE) / 2)
    inside = (slice(None), slice(None), slice(edge, -edge), slice(edge, -edge))
    return ((x - y)[inside].abs().mean((1, 2, 3)) * 127.5).double().numpy()


def measure(name: str, translate, faces: torch.Tensor) -> None:
    """Print the stability of one translation."""
    plain = torch.cat([translate(x) for x in faces.split(1)])
    scale = apart(plain, plain.roll(1, 0)).mean()
    warps = {
        f"{arguments.shift:g} px": (arguments.shift, 0.0),
        f"{arguments.degrees:g} degrees": (0.0, arguments.degrees),
    }
    for label, warp in warps.items():
        moved = torch.cat([back(translate(warped(x, *warp)), *warp) for x in faces.split(1)])
        found, floor = apart(moved, plain), apart(back(warped(plain, *warp), *warp), plain)
        low, high = bootstrap.interval(found, 1000, 0)
        print(
            f"{name}, {label}: warped {found.mean():.2f} ({low:.2f} to {high:.2f}), resampled {floor.mean():.2f}, "
            f"share {(found.mean() - floor.mean()) / scale:.3f}",
            flush=True,
        )


sources = Folder(arguments.faces).sources()[: arguments.limit]
read = (images.resize(images.square(images.read(source.path)), arguments.size) for source in sources)
photos = torch.stack([images.to_tensor(face) for face in read])
print(machine())
print(f"{len(photos)} faces of {arguments.faces} at {arguments.size} px")
with torch.inference_mode():
    for weights in arguments.weights:
        model = checkpoint.load_model(weights)
        to = next(iter(model.directions.values()))
        measure(weights, lambda x, model=model, to=to: model.recipe.translate(model.nets, x, to).float(), photos)
