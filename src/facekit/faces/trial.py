"""A trial of a detector on labelled pictures: recall, false faces, landmark error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.face_boxes import BOX, POINTS, WEIGHT
from .types import Face

SURE = 0.5  # the score from which a found face counts
LARGEST = 2.0  # how many times larger or smaller than the labelled face a found one may be


@dataclass
class Trial:
    """Counts what a detector finds, picture by picture.

    A face is found where the middle of a box lies in the middle half of a labelled one and its side is half to twice as
    long: detectors draw the edges of a face in different places.
    """

    pictures: int = 0
    labelled: int = 0
    hits: int = 0
    false: int = 0
    errors: list[float] = field(default_factory=list)
    sides: list[tuple[float, bool]] = field(default_factory=list)

    def add(self, found: list[Face], truth: np.ndarray, least: float = SURE) -> None:
        """Count the faces found (those that score `least`) in a picture against its labels [n, COLUMNS]."""
        self.pictures += 1
        matches = self.match(found, truth, least)
        self.false += sum(verdict is False for _, verdict in matches)

    def match(self, found: list[Face], truth: np.ndarray, least: float = SURE) -> list[tuple[Face, bool | None]]:
        """Return each face, best first, with whether it is a labelled one; None where that is not to be judged."""
        open_rows = [row for row in truth if row[WEIGHT] > 0]
        unsure = [row for row in truth if row[WEIGHT] == 0]
        labels, hit = list(open_rows), set()
        verdicts: list[tuple[Face, bool | None]] = []
        for face in sorted((face for face in found if face.score >= least), key=lambda face: -face.score):
            near = [row for row in open_rows if same_face(face.box, row[BOX])]
            if near:
                row = min(near, key=lambda row: _away(face.box, row[BOX]))
                open_rows = [other for other in open_rows if other is not row]
                hit.add(id(row))
                self.errors.append(landmark_error(face.landmarks, row[POINTS].reshape(5, 2)))
                verdicts.append((face, True))
            elif any(_touches(face.box, row[BOX]) for row in unsure):
                verdicts.append((face, None))
            else:
                verdicts.append((face, False))
        self.labelled += len(labels)
        self.hits += len(hit)
        self.sides += [(float(max(row[2] - row[0], row[3] - row[1])), id(row) in hit) for row in labels]
        return verdicts

    @property
    def recall(self) -> float:
        """The share of the labelled faces that was found."""
        return self.hits / max(self.labelled, 1)

    def figures(self) -> dict[str, Any]:
        """Return recall, false faces per picture, and the median landmark error in eye distances."""
        return {
            "test_images": self.pictures,
            "recall": round(self.recall, 4),
            "false_per_image": round(self.false / max(self.pictures, 1), 4),
            "landmark_error": round(float(np.median(self.errors)), 4) if self.errors else None,
        }


def same_face(found: tuple[float, ...], label: np.ndarray) -> bool:
    """Whether a box found (x0, y0, x1, y1) is the labelled face."""
    x, y = (found[0] + found[2]) / 2, (found[1] + found[3]) / 2
    width, height = label[2] - label[0], label[3] - label[1]
    inside = abs(x - (label[0] + label[2]) / 2) <= width / 4 and abs(y - (label[1] + label[3]) / 2) <= height / 4
    ratio = max(found[2] - found[0], found[3] - found[1]) / max(width, height)
    return bool(inside and 1 / LARGEST <= ratio <= LARGEST)


def landmark_error(points: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean distance of five points (5, 2) in eye distances; of a profile, in the length eyes to mouth."""
    eyes = float(np.linalg.norm(truth[0] - truth[1]))
    down = float(np.linalg.norm(truth[:2].mean(0) - truth[3:].mean(0)))
    return float(np.linalg.norm(points - truth, axis=1).mean()) / max(eyes, 0.5 * down, 1e-6)


def _away(found: tuple[float, ...], label: np.ndarray) -> float:
    return float(np.hypot(*((np.array(found[:2]) + found[2:]) / 2 - (label[:2] + label[2:4]) / 2)))


def _touches(found: tuple[float, ...], label: np.ndarray) -> bool:
    x, y = (found[0] + found[2]) / 2, (found[1] + found[3]) / 2
    across, down = (label[2] - label[0]) / 4, (label[3] - label[1]) / 4
    return bool(label[0] - across <= x <= label[2] + across and label[1] - down <= y <= label[3] + down)
