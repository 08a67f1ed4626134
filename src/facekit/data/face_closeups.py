"""Training pictures for the net that looks at a face a second time: one face each, at any roll, or something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ..nets.face_points import FRAMED
from . import backgrounds
from .face_boxes import BOX, CLEAR, COLUMNS, POINTS, WEIGHT, face_row
from .face_scenes import Draw, SceneReader, cover, degrade, move_face, relight
from .reader import Sample

REACH = 1.5  # squares: the edge of a picture at the closest, so that a square at any roll lies in it
NOTHING = 0.2  # the share of pictures without a face in their middle
FALSE = 0.7  # the share of those that show what a detector took for one, where such places are known
SMALLEST = 14.0  # px; smaller faces teach nothing
PLAIN = face_row((10, 10, 90, 100), ((32, 45), (68, 45), (50, 65), (36, 82), (64, 82)), 0)  # where a face would be


@dataclass(frozen=True)
class CloseupReader(SceneReader):
    """Reads pictures with their faces, and shows one face each as large as it is when it is looked at again.

    A closeup is [S, S, 3] with the face [1, COLUMNS] in its px; a weight below 1 is a small one, 0 shows where a face
    would be. `false` are the places of pictures that a detector took for faces.
    """

    false: Mapping[Path, np.ndarray] = field(default_factory=dict)

    def labels(self, path: Path) -> dict[str, np.ndarray]:
        false = self.false.get(path, np.empty((0, COLUMNS), np.float32))
        return {**super().labels(path), f"{self.name}_false": false}

    def present(self, sample: Sample, rng: np.random.Generator, size: int, flip: bool, draw: Draw) -> Sample:
        """Show a face of `sample`, or something else where a face might be."""
        fit = [row for row in sample[f"{self.name}_faces"] if row[WEIGHT] > 0 and _extent(row) >= SMALLEST]
        shows, false = bool(fit) and rng.random() >= NOTHING, sample[f"{self.name}_false"]
        tempting = not shows and len(false) and rng.random() < FALSE
        rows = false if tempting else fit or [PLAIN]
        row = rows[int(rng.integers(len(rows)))]
        matrix = closeup(row, rng, size, flip)
        moved = move_face(row, matrix)
        moved[WEIGHT] = min(1.0, _extent(row) / CLEAR) if shows else 0
        seen = shows or tempting
        picture = warped(sample[self.name], matrix, size) if seen else self.nothing(sample, rng, size)
        if shows and rng.random() < 0.1:
            cover(rng, picture, moved)
        return {self.name: worn(picture, rng), f"{self.name}_faces": moved[None]}

    def nothing(self, sample: Sample, rng: np.random.Generator, size: int) -> np.ndarray:
        """Return a picture that shows no face."""
        kind, rows = rng.random(), sample[f"{self.name}_faces"]
        if not len(rows):
            return backgrounds.crop(rng, sample[self.name], size)
        if kind < 0.5 and self.grounds:
            return backgrounds.crop(rng, self.grounds[int(rng.integers(len(self.grounds)))], size)
        if kind < 0.7:
            return backgrounds.shuffled(rng, sample[self.name], size)
        if kind < 0.85:
            return backgrounds.beside(rng, sample[self.name], rows, size)
        maker = (backgrounds.flat, backgrounds.noise, backgrounds.shapes)[int(rng.integers(3))]
        return maker(rng, size)


def closeup(row: np.ndarray, rng: np.random.Generator, size: int, flip: bool) -> np.ndarray:
    """Return the affine matrix [2, 3] that shows a face in a picture of `size` px: any roll, a little stretched."""
    points = row[POINTS].reshape(5, 2).astype(float)
    middle = points.mean(0)
    square = FRAMED * float(np.sqrt(((points - middle) ** 2).sum(1).mean()))
    scale = size / REACH * float(np.exp(-rng.uniform(0, np.log(2)))) / max(square, 1.0)
    turn = rng.normal(0, 0.25) if rng.random() < 0.4 else rng.uniform(-np.pi, np.pi)
    stretch, shear = np.exp(rng.normal(0, 0.04)), rng.normal(0, 0.03)
    cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[stretch, shear], [0, 1 / stretch]])
    if flip and rng.random() < 0.5:
        linear = linear @ np.diag([-1.0, 1.0])
    return np.column_stack([linear, size / 2 + rng.normal(0, 1, 2) - linear @ middle])


def warped(picture: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Return the picture as `matrix` places it on `size` px, out of the half, quarter, ... of it that fits."""
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    moves = matrix.copy()
    while scale < 0.6 and min(picture.shape[:2]) > 4:
        half = (picture.shape[1] // 2, picture.shape[0] // 2)
        moves[:, :2] *= np.array(picture.shape[1::-1]) / half
        picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)
        scale *= 2
    moves[:, 2] += moves[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from the middle of the first pixel
    return cv2.warpAffine(picture, moves, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def worn(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture in other light, sometimes as a far smaller one would be, blurred, noisy or compressed."""
    size = len(picture)
    if rng.random() < 0.35:
        small = int(size * np.exp(rng.uniform(np.log(0.25), 0)))
        picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
    return degrade(rng, relight(rng, picture) if rng.random() < 0.7 else picture)


def _extent(row: np.ndarray) -> float:
    return float((row[BOX][2:] - row[BOX][:2]).max())
