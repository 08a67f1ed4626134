"""What a face detector is and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np


@dataclass(frozen=True)
class Face:
    """One face in a photo; all coordinates are px of the photo, y down, (0, 0) the outer corner of the first pixel."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1: brow to chin, ear to ear; may reach beyond the photo
    score: float  # 0..1, higher is surer; comparable within one detector only
    landmarks: np.ndarray  # (5, 2): eye, eye, nose, mouth corner, mouth corner; image left first (insightface order)
    measured: bool  # False: only box and eyes were looked for, nose and mouth stand where a mean face has them
    kind: str = "photo"  # or "drawing"; the neural detector alone tells them apart


Effort = Literal["quick", "first", "every"]
"""How long to search: one pass; on until a face is found; on for small faces beside it."""


class Detector(Protocol):
    """What finds faces. `name` is the name that `find_detector` takes."""

    name: str

    def detect(self, image: np.ndarray, effort: Effort = "first") -> list[Face]:
        """The faces in `image` (uint8 HxWx3 RGB), largest box first; an empty list where there is none."""
        ...
