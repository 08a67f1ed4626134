"""What a face detector is, what it returns, and which detectors there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import CardError
from ..storage.card import suggest

DETECTORS = ("auto", "cascade", "cascade:FILE", "insightface", "insightface:PACK")


@dataclass(frozen=True)
class Face:
    """One face in a photo; all coordinates are px of the photo, y down, (0, 0) the outer corner of the first pixel."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1: brow to chin, ear to ear; may reach beyond the photo
    score: float  # 0..1, higher is surer; comparable within one detector only
    landmarks: np.ndarray  # (5, 2): eye, eye, nose, mouth corner, mouth corner; image left first (insightface order)
    measured: bool  # False: only box and eyes were looked for, nose and mouth stand where a mean face has them


class Detector(Protocol):
    name: str

    def detect(self, image: np.ndarray) -> list[Face]:
        """The faces in `image` (uint8 HxWx3 RGB), largest box first; an empty list where there is none."""
        ...


def find_detector(name: str = "auto", model_root: Path | None = None) -> Detector:
    """The detector called `name`.

    `auto` is insightface where one of its packs lies under `model_root` (default ~/.insightface), else the cascade;
    `cascade` needs nothing; `cascade:FILE` reads an LBP cascade in OpenCV's XML format, such as one for drawn faces;
    `insightface:PACK` is a named model pack, `insightface` the one at hand, downloaded if there is none.
    Raises CardError for a name that is none of these, InputError for a cascade file that cannot be read, and
    MissingError where insightface or its models are not here.
    """
    from .lbp_cascade import CascadeDetector
    from .scrfd import InsightFaceDetector, local_packs

    kind, colon, detail = name.partition(":")
    if name == "auto":
        kind = "insightface" if local_packs(model_root) else "cascade"
    if kind == "cascade" and (detail or not colon):
        return CascadeDetector(Path(detail).expanduser() if detail else None)
    if kind == "insightface" and (detail or not colon):
        return InsightFaceDetector(detail or None, model_root)
    raise CardError(f"unknown face detector {name!r}{suggest(name, DETECTORS)}", "cascade needs no download")
