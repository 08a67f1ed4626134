"""Training squares for the net that looks at a face a second time: one face each, about upright, or something else."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from . import backgrounds
from .face_boxes import POINTS, WEIGHT
from .face_scenes import MIRRORED, Draw, SceneReader, cover, degrade, relight
from .reader import Sample

COUNTS, FACE = 10, 11  # where a label says how much its points, the ten numbers before, count, and if it is a face
LABELS = 12
NOTHING = 0.2  # the share of squares without a face in their middle
SMALLEST = 14.0  # px; smaller faces teach nothing
CLEAR = 32.0  # px; the landmarks of smaller faces count less, by their size


@dataclass(frozen=True)
class SquareReader(SceneReader):
    """Reads pictures with their faces, and cuts a square around one as the first look would frame it.

    A square is [S, S, 3] with a label [LABELS]: the points in sides of the square from its middle.
    """

    room: float = 4.4  # the square's side, as `nets.face_points.FRAMED`

    def present(self, sample: Sample, rng: np.random.Generator, size: int, flip: bool, draw: Draw) -> Sample:
        """Cut a square out of `sample`, a little off in place, size and roll; other pictures are what `draw` gives."""
        rows = sample[f"{self.name}_faces"]
        fit = [row for row in rows if row[WEIGHT] > 0 and _extent(row) >= SMALLEST]
        label = np.zeros(LABELS, np.float32)
        if not fit or rng.random() < NOTHING:
            square = self.nothing(sample, rng, size, draw)
        else:
            row = fit[int(rng.integers(len(fit)))]
            picture = sample[self.name]
            if rng.random() < 0.1:
                picture = picture.copy()
                cover(rng, picture, row)
            square, points = self.cut(picture, row, rng, size, flip)
            label[:10] = points.ravel()
            label[COUNTS], label[FACE] = min(1.0, _extent(row) / CLEAR), 1
        return {self.name: self.worn(square, rng), f"{self.name}_faces": label}

    def cut(
        self, picture: np.ndarray, row: np.ndarray, rng: np.random.Generator, size: int, flip: bool, away: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a square about a face and its points; with `away` the middle lies that many sides beside it."""
        points = row[POINTS].reshape(5, 2).astype(float)
        middle = points.mean(0)
        side = self.room * float(np.sqrt(((points - middle) ** 2).sum(1).mean()))
        along, down = points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)
        turn = np.arctan2(along[1] - down[0], along[0] + down[1])
        turn += rng.normal(0, 0.05) if rng.random() < 0.85 else rng.uniform(-0.3, 0.3)
        middle = middle + rng.normal(0, 0.025, 2) * side
        if away:
            angle = rng.uniform(0, 2 * np.pi)
            middle = middle + away * side * np.array([np.cos(angle), np.sin(angle)])
        side *= float(np.exp(rng.normal(0, 0.05)))
        stretch, shear = np.exp(rng.normal(0, 0.04)), rng.normal(0, 0.03)
        cos, sin = np.cos(turn), np.sin(turn)
        linear = np.array([[stretch, shear], [0, 1 / stretch]]) @ np.array([[cos, sin], [-sin, cos]]) / side
        mirrored = flip and rng.random() < 0.5
        if mirrored:
            linear = np.diag([-1.0, 1.0]) @ linear
        placed = (points - middle) @ linear.T
        square = warped(picture, linear, middle, size)
        return square, placed[MIRRORED] if mirrored else placed

    def nothing(self, sample: Sample, rng: np.random.Generator, size: int, draw: Draw) -> np.ndarray:
        """Return a square that shows no face, or none in its middle."""
        kind, rows = rng.random(), sample[f"{self.name}_faces"]
        if not len(rows):
            return backgrounds.crop(rng, sample[self.name], size)
        if kind < 0.5 and self.grounds:
            return backgrounds.crop(rng, self.grounds[int(rng.integers(len(self.grounds)))], size)
        if kind < 0.65:
            return backgrounds.shuffled(rng, sample[self.name], size)
        if kind < 0.75:
            return backgrounds.beside(rng, sample[self.name], rows, size)
        if kind < 0.85 or len(rows) > 1:
            maker = (backgrounds.flat, backgrounds.noise, backgrounds.shapes)[int(rng.integers(3))]
            return maker(rng, size)
        return self.cut(sample[self.name], rows[0], rng, size, True, float(rng.uniform(0.4, 0.9)))[0]

    def worn(self, square: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the square in other light, sometimes as a far smaller one would be, blurred, noisy or compressed."""
        size = len(square)
        if rng.random() < 0.35:
            small = int(size * np.exp(rng.uniform(np.log(0.3), 0)))
            square = cv2.resize(square, (small, small), interpolation=cv2.INTER_AREA)
            square = cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR)
        return degrade(rng, relight(rng, square) if rng.random() < 0.7 else square)


def warped(picture: np.ndarray, linear: np.ndarray, middle: np.ndarray, size: int) -> np.ndarray:
    """Return the square of `size` px about `middle`, where `linear` takes px to sides: bilinear at twice the size."""
    scale = float(np.sqrt(abs(np.linalg.det(linear)))) * size
    while scale < 0.5 and min(picture.shape[:2]) > 4:
        half = (picture.shape[1] // 2, picture.shape[0] // 2)
        shrink = np.array(half) / picture.shape[1::-1]
        picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)
        linear, middle, scale = linear / shrink, middle * shrink, 2 * scale
    edge = 2 * size
    moves = np.column_stack([linear * edge, edge / 2 - linear @ middle * edge])
    moves[:, 2] += moves[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from the middle of the first pixel
    twice = cv2.warpAffine(picture, moves, (edge, edge), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(twice, (size, size), interpolation=cv2.INTER_AREA)


def _extent(row: np.ndarray) -> float:
    return float(max(row[2] - row[0], row[3] - row[1]))
