"""A trial of a detector on labelled pictures: recall, false faces, landmark error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.face_boxes import BOX, POINTS, WEIGHT
from .types import Face

HIT = 0.4  # the overlap (IoU) from which a found face is a labelled one
SURE = 0.5  # the score from which a found face counts


@dataclass
class Trial:
    """Counts what a detector finds, picture by picture."""

    pictures: int = 0
    labelled: int = 0
    hits: int = 0
    false: int = 0
    errors: list[float] = field(default_factory=list)

    def add(self, found: list[Face], truth: np.ndarray, least: float = SURE) -> None:
        """Count the faces found (those that score `least`) in a picture against its labels [n, COLUMNS]."""
        self.pictures += 1
        judged = [row for row in truth if row[WEIGHT] > 0]
        self.labelled += len(judged)
        rest = sorted((face for face in found if face.score >= least), key=lambda face: -face.score)
        open_rows = list(judged)
        for face in rest:
            shares = [share(face.box, row[BOX]) for row in open_rows]
            if shares and max(shares) >= HIT:
                row = open_rows.pop(int(np.argmax(shares)))
                self.hits += 1
                points = row[POINTS].reshape(5, 2)
                eyes = max(float(np.linalg.norm(points[0] - points[1])), 1e-6)
                self.errors.append(float(np.linalg.norm(face.landmarks - points, axis=1).mean()) / eyes)
            elif all(share(face.box, row[BOX]) < HIT for row in truth):
                self.false += 1

    def figures(self) -> dict[str, Any]:
        """Return recall, false faces per picture, and the median landmark error in eye distances."""
        return {
            "test_images": self.pictures,
            "recall": round(self.hits / max(self.labelled, 1), 4),
            "false_per_image": round(self.false / max(self.pictures, 1), 4),
            "landmark_error": round(float(np.median(self.errors)), 4) if self.errors else None,
        }


def share(one: tuple[float, ...], other: tuple[float, ...] | np.ndarray) -> float:
    """Return the intersection over union of two boxes."""
    (a0, b0, a1, b1), (c0, d0, c1, d1) = one, other
    shared = max(0.0, min(a1, c1) - max(a0, c0)) * max(0.0, min(b1, d1) - max(b0, d0))
    return float(shared / max((a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - shared, 1e-9))
