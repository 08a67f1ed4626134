"""Training scenes for a face detector, composed as they are needed: faces of any size and roll before any ground."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..ops.ellipse import moved
from ..storage import images
from . import backgrounds
from .face_boxes import BOX, COLUMNS, KIND, POINTS, WEIGHT
from .reader import Reader, Sample

ROOM = 12  # faces that a scene's label holds
STORED = 320  # px, the longest side of a picture in memory
SMALLEST = 10.0  # px; smaller faces of a scene are not judged
SHOWN = 0.55  # the share of a face that must be inside the scene to count as one
MIRRORED = np.array([1, 0, 2, 4, 3])  # the points of a face in a mirror

Draw = Callable[[], Sample]
"""Gives another labelled picture, a random one."""


@dataclass(frozen=True)
class SceneReader(Reader):
    """Reads pictures with their faces (`NAME`, `NAME_faces`) and composes scenes of them.

    A scene is [S, S, 3] with [ROOM, COLUMNS] faces in its px; a weight of 0 is a face that is not judged, -1 no face.
    """

    faces: Mapping[Path, np.ndarray] = field(default_factory=dict)
    grounds: tuple[np.ndarray, ...] = ()

    def read(self, path: Path, size: int) -> Sample:
        """Decode a picture, at most STORED px, with its faces; raises InputError where that cannot be done."""
        picture = images.read(path)
        scale = min(1.0, STORED / max(picture.size))
        if scale < 1:
            picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), reducing_gap=2.0)
        labels = {name: scaled(rows, scale) for name, rows in self.labels(path).items()}
        return {self.name: np.asarray(picture), **labels}

    def labels(self, path: Path) -> dict[str, np.ndarray]:
        """Return the rows of a picture, in its own px, by the entry of a sample that holds them."""
        return {f"{self.name}_faces": self.faces[path]}

    def present(self, sample: Sample, rng: np.random.Generator, size: int, flip: bool, draw: Draw) -> Sample:
        """Compose the scene that shows `sample`, with other pictures that `draw` gives."""
        composer = Composer(rng, size, flip, self)
        kind = rng.random()
        first = sample if len(sample[f"{self.name}_faces"]) else draw()
        if kind < 0.12 or not len(first[f"{self.name}_faces"]):
            composer.ground(draw)
        elif kind < 0.42:
            composer.ground(draw)
            composer.whole(first)
        else:
            composer.ground(draw)
            composer.crowd(first, draw)
        picture, faces = composer.finished()
        return {self.name: picture, f"{self.name}_faces": faces}


def scaled(rows: np.ndarray, scale: float) -> np.ndarray:
    """Return faces [n, COLUMNS] of a picture in px of a copy of that scale."""
    out = rows.copy()
    out[:, :KIND] *= scale
    return out


class Composer:
    """One scene while it is composed: its picture, and the faces in it so far."""

    def __init__(self, rng: np.random.Generator, size: int, flip: bool, reader: SceneReader):
        self.rng, self.size, self.flip, self.name = rng, size, flip, reader.name
        self.grounds = reader.grounds
        self.picture: Any = np.empty((size, size, 3), np.uint8)
        self.rows: list[np.ndarray] = []

    def ground(self, draw: Draw) -> None:
        """Fill the scene with something that shows no face."""
        rng, size, kind = self.rng, self.size, self.rng.random()
        if kind < 0.55 and self.grounds:
            self.picture = backgrounds.crop(rng, self.grounds[int(rng.integers(len(self.grounds)))], size)
        elif kind < 0.7:
            self.picture = backgrounds.shuffled(rng, draw()[self.name], size)
        elif kind < 0.82:
            other = draw()
            self.picture = backgrounds.beside(rng, other[self.name], other[f"{self.name}_faces"], size)
        else:
            maker = (backgrounds.flat, backgrounds.noise, backgrounds.shapes)[int(rng.integers(3))]
            self.picture = maker(rng, size)
        if rng.random() < 0.15:
            self.picture = cv2.GaussianBlur(self.picture, (0, 0), float(rng.uniform(1, 6)))

    def whole(self, sample: Sample) -> None:
        """Lay a whole picture over the scene, so that it fills most of it."""
        picture = sample[self.name]
        scale = self.size / max(picture.shape[:2]) * float(np.exp(self.rng.uniform(np.log(0.55), np.log(1.5))))
        middle = np.array(picture.shape[1::-1]) / 2
        away = self.rng.normal(0, 0.1, 2) * self.size
        self.lay(sample, self.matrix(scale, middle, np.full(2, self.size / 2) + away), None)

    def crowd(self, first: Sample, draw: Draw) -> None:
        """Lay one to six faces side by side, each of its own size and roll."""
        rng, size = self.rng, self.size
        count = 1 if rng.random() < 0.4 else int(rng.integers(2, 7))
        samples = [first, *(draw() for _ in range(count - 1))]
        largest = size * (1.0 if count == 1 else 0.75 if count == 2 else 0.5)
        taken: list[tuple[np.ndarray, float]] = []
        for sample in samples:
            rows = sample[f"{self.name}_faces"]
            if not len(rows):
                continue
            row = rows[int(rng.integers(len(rows)))]
            side = float(max(row[2] - row[0], row[3] - row[1]))
            wanted = float(np.exp(rng.uniform(np.log(13), np.log(largest))))
            for _ in range(6):
                margin = min(0.3 * wanted, size / 2)
                place = rng.uniform(margin, size - margin, 2)
                if all(np.abs(place - other).max() > 0.55 * (wanted + extent) for other, extent in taken):
                    break
            else:
                continue
            taken.append((place, wanted))
            middle = (row[:2] + row[2:4]) / 2
            self.lay(sample, self.matrix(wanted / side, middle, place), row)

    def matrix(self, scale: float, middle: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return a random turn, stretch and mirroring of that scale which takes `middle` to `place`; [2, 3]."""
        rng, kind = self.rng, self.rng.random()
        if kind < 0.5:
            turn = rng.normal(0, 14)
        elif kind < 0.7:
            turn = 90 * rng.integers(4) + rng.normal(0, 8)
        else:
            turn = rng.uniform(-180, 180)
        cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        stretch = np.exp(rng.normal(0, 0.06))
        shear = rng.normal(0, 0.05)
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[stretch, shear], [0, 1 / stretch]]) * scale
        if self.flip and rng.random() < 0.5:
            linear = linear @ np.diag([-1.0, 1.0])
        return np.column_stack([linear, place - linear @ middle])

    def lay(self, sample: Sample, matrix: np.ndarray, only: np.ndarray | None) -> None:
        """Lay a picture over the scene by `matrix`; with `only` just the surroundings of that face."""
        rng, picture = self.rng, sample[self.name]
        height, width = picture.shape[:2]
        soft: Any = np.full((height, width), 255, np.uint8)
        if only is not None and rng.random() < 0.7:
            soft = _surroundings(rng, only, (height, width))
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        moves = matrix.copy()
        while scale < 0.6 and min(picture.shape[:2]) > 4:
            height, width = picture.shape[:2]
            half = (max(1, width // 2), max(1, height // 2))
            picture = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)
            soft = cv2.resize(soft, half, interpolation=cv2.INTER_AREA)
            moves[:, :2] *= (width / half[0], height / half[1])
            scale *= 2
        moves[:, 2] += moves[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from the middle of the first pixel
        low, high = _bounds(moves, picture.shape, self.size)
        if (high <= low).any():
            return
        moves[:, 2] -= low
        target = (int(high[0] - low[0]), int(high[1] - low[1]))
        laid = cv2.warpAffine(picture, moves, target, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(soft, moves, target, flags=cv2.INTER_LINEAR)
        region = (slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])))
        if rng.random() < 0.3:
            laid = relight(rng, laid)
        share = mask[..., None].astype(np.uint16)
        under = self.picture[region].astype(np.uint16)
        mixed = (under * (255 - share) + laid.astype(np.uint16) * share + 127) // 255
        covered = np.zeros((self.size, self.size), np.uint8)
        covered[region] = mask
        for row in self.rows:  # what the picture covers of the faces before it
            if row[WEIGHT] > 0 and _shown(255 - covered, row[BOX]) < 0.6:
                row[WEIGHT] = 0
        self.picture[region] = mixed.astype(np.uint8)
        for row in sample[f"{self.name}_faces"]:
            placed = move_face(row, matrix)
            visible = _shown(covered, placed[BOX])
            if only is not None and visible < 0.25:
                continue
            if visible < SHOWN or max(placed[2] - placed[0], placed[3] - placed[1]) < SMALLEST:
                placed[WEIGHT] = 0
            if visible > 0.02:
                self.rows.append(placed)

    def finished(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the scene with occlusions, light, blur and compression, and its faces [ROOM, COLUMNS]."""
        rng = self.rng
        for row in self.rows:
            if rng.random() < 0.12:
                cover(rng, self.picture, row)
        self.picture = degrade(rng, relight(rng, self.picture) if rng.random() < 0.7 else self.picture)
        faces = np.zeros((ROOM, COLUMNS), np.float32)
        faces[:, WEIGHT] = -1
        rows = sorted(self.rows, key=lambda row: -row[WEIGHT])[:ROOM]
        if rows:
            faces[: len(rows)] = np.stack(rows)
        return self.picture, faces


def move_face(row: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return a face's row under the affine `matrix` [2, 3]: its box is that of the ellipse in the box, moved along."""
    linear = matrix[:, :2]
    out = row.copy()
    out[BOX] = moved(row[BOX], linear, matrix[:, 2])
    points = row[POINTS].reshape(5, 2) @ linear.T + matrix[:, 2]
    out[POINTS] = (points[MIRRORED] if np.linalg.det(linear) < 0 else points).ravel()
    return out


def _bounds(matrix: np.ndarray, shape: tuple[int, ...], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scene's rectangle (low and high x, y) that a picture covers."""
    height, width = shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ matrix[:, :2].T + matrix[:, 2]
    return np.clip(np.floor(corners.min(0)), 0, size), np.clip(np.ceil(corners.max(0)), 0, size)


def _shown(covered: np.ndarray, box: np.ndarray) -> float:
    """Return the share of a box's ellipse (by its middle rectangle) that `covered` (0..255) covers."""
    x0, y0, x1, y1 = box
    inset_x, inset_y = 0.1 * (x1 - x0), 0.1 * (y1 - y0)
    x0, x1, y0, y1 = x0 + inset_x, x1 - inset_x, y0 + inset_y, y1 - inset_y
    size = len(covered)
    left, top, right, bottom = (round(float(np.clip(v, 0, size))) for v in (x0, y0, x1, y1))
    area = max((x1 - x0) * (y1 - y0), 1e-6)
    if right <= left or bottom <= top:
        return 0.0
    step = max(1, (right - left) // 16)
    inside = float(covered[top:bottom:step, left:right:step].mean()) / 255
    return min(1.0, inside * (right - left) * (bottom - top) / area)


def _surroundings(rng: np.random.Generator, row: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask of a face with some hair or background around it: an ellipse or a rectangle, soft or hard."""
    mask: Any = np.zeros(shape, np.uint8)
    x, y = (row[0] + row[2]) / 2, (row[1] + row[3]) / 2
    grow = rng.uniform(1.1, 2.0)
    a, b = (row[2] - row[0]) / 2 * grow, (row[3] - row[1]) / 2 * grow
    y -= (grow - 1) * 0.3 * (row[3] - row[1]) / 2  # more of the hair than of the neck
    if rng.random() < 0.6:
        cv2.ellipse(mask, (int(x), int(y)), (int(a), int(b)), 0, 0, 360, 255, -1)
    else:
        cv2.rectangle(mask, (int(x - a), int(y - b)), (int(x + a), int(y + b)), 255, -1)
    if rng.random() < 0.6:
        width = max(1, int(0.15 * min(a, b))) * 2 + 1
        mask = cv2.blur(mask, (width, width))
    return mask


def cover(rng: np.random.Generator, picture: np.ndarray, row: np.ndarray) -> None:
    """Hide a part of a face, at most about a third, behind a bar or a disc."""
    width, height = row[2] - row[0], row[3] - row[1]
    x, y = row[0] + rng.uniform(0, 1) * width, row[1] + rng.uniform(0, 1) * height
    a, b = rng.uniform(0.08, 0.28, 2) * (width, height)
    colour = tuple(int(v) for v in rng.integers(0, 256, 3))
    if rng.random() < 0.5:
        cv2.ellipse(picture, (int(x), int(y)), (int(a) + 1, int(b) + 1), 0, 0, 360, colour, -1, cv2.LINE_AA)
    else:
        cv2.rectangle(picture, (int(x - a), int(y - b)), (int(x + a), int(y + b)), colour, -1)


def relight(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Return the picture in other light: gamma, gain and offset by channel, sometimes extreme."""
    wild = rng.random() < 0.15
    levels = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    gamma = np.exp(rng.normal(0, 0.6 if wild else 0.25))
    gain = np.exp(rng.normal(0, 0.4 if wild else 0.15) + rng.normal(0, 0.08, 3))
    offset = rng.normal(0, 0.15 if wild else 0.05) + rng.normal(0, 0.02, 3)
    table = np.clip((levels**gamma * gain + offset) * 255, 0, 255).astype(np.uint8)
    return cv2.LUT(picture, table[None])


def degrade(rng: np.random.Generator, picture: Any) -> np.ndarray:
    """Return the picture as a worse camera or file would have it: grey, blurred, small, noisy or compressed."""
    if rng.random() < 0.12:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        picture = cv2.merge([grey, grey, grey])
    kind = rng.random()
    size = len(picture)
    if kind < 0.1:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 1.5)))
    elif kind < 0.2:
        small = int(size * rng.uniform(0.4, 0.9))
        picture = cv2.resize(cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    elif kind < 0.28:
        grains = rng.integers(-1, 2, (size, size, 1), np.int8) * int(rng.integers(2, 20))
        picture = np.clip(picture.astype(np.int16) + grains, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        _, packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 90))])
        picture = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return picture
