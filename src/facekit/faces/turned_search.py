"""Find faces in photos that are rotated, by looking at turned copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from ..ops.ellipse import moved
from .types import Detector, Effort, Face

LARGEST = 2560  # px: the longest side of a picture that is turned by eighths; larger ones are reduced
UPRIGHT = 0.05  # how much better a turned face must score than an upright one


class TurnedSearch:
    """A detector that also looks at the photo turned by quarters where it is not sure of an upright face.

    Upside down or sideways, detectors find too little, or call a collar a face; turned the right way round, the true
    face scores higher. `sure` is the score from which an upright face ends the search; `least` is the score that counts
    as a face at all.
    """

    def __init__(self, detector: Detector, sure: float, least: float):
        self.name = detector.name
        self._detector, self._sure, self._least = detector, sure, least

    def detect(self, image: np.ndarray, effort: Effort = "first") -> list[Face]:
        """Return the faces in `image` (uint8 HxWx3 RGB), largest first, all found at the same turn of the photo."""
        best = self._found(image, effort)
        if _best(best) >= self._sure:
            return best
        turned = look_turned(partial(self._found, effort="quick" if effort == "first" else effort), image)
        return turned if _best(turned) > _best(best) + UPRIGHT else best

    def _found(self, image: np.ndarray, effort: Effort) -> list[Face]:
        return [face for face in self._detector.detect(image, effort) if face.score >= self._least]


def look_turned(find: Callable[[np.ndarray], list[Face]], image: np.ndarray) -> list[Face]:
    """Return the faces that `find` sees in `image` (uint8 HxWx3 RGB) turned by a quarter, half or three quarters.

    They are those of the turn at which the best of them scores highest, in px of the image.
    """
    turns = ([_back(f, image.shape, n) for f in find(np.ascontiguousarray(np.rot90(image, n)))] for n in (1, 3, 2))
    return max(turns, key=_best)


def look_slanted(find: Callable[[np.ndarray], list[Face]], image: np.ndarray) -> list[Face]:
    """Return the faces that `find` sees in `image` (uint8 HxWx3 RGB) turned by 45, 135, 225 or 315 degrees.

    They are those of the turn at which the best of them scores highest, in px of the image.
    """
    scale = min(1.0, LARGEST / max(image.shape[:2]))
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = image.shape[:2]
    linear = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    size = np.ceil(np.abs(linear) @ (width, height)).astype(int)
    shift = size / 2 - linear @ (width / 2, height / 2)
    moves = np.column_stack([linear, shift + linear @ (0.5, 0.5) - 0.5])  # OpenCV counts from the first pixel's middle
    slanted = cv2.warpAffine(image, moves, size.tolist(), flags=cv2.INTER_LINEAR, borderValue=(128, 128, 128))
    seen = max(find(slanted), look_turned(find, slanted), key=_best)
    back = linear.T / scale
    return [_moved(face, back, -back @ shift) for face in seen]


def _moved(face: Face, linear: np.ndarray, shift: np.ndarray) -> Face:
    """Return a face moved by an affine map."""
    box = tuple(moved(np.array(face.box), linear, shift).tolist())
    return replace(face, box=box, landmarks=face.landmarks @ linear.T + shift)


def _best(faces: list[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def _back(face: Face, shape: tuple[int, ...], quarters: int) -> Face:
    """Return a face of `np.rot90(image, quarters)` in px of the image, which has `shape`."""
    x0, y0, x1, y1 = face.box
    points = np.vstack([face.landmarks, [[x0, y0], [x1, y1]]])
    height, width = shape[:2]
    for turn in range(quarters, 0, -1):  # undo one quarter at a time
        across = width if turn % 2 else height
        points = np.column_stack([across - points[:, 1], points[:, 0]])
    low, high = points[-2:].min(0), points[-2:].max(0)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return replace(face, box=box, landmarks=points[:-2])
