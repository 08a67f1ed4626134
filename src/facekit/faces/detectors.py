"""The face detectors by name, and the faces that one finds in a photo."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ..errors import CardError, InputError
from ..storage.card import suggest
from .turned_search import TurnedSearch, look_slanted, look_turned
from .types import Detector, Effort, Face

DETECTORS = ("auto", "facekit:RUN", "cascade", "cascade:FILE", "insightface", "insightface:PACK")
FRONTAL, DRAWN, SCRFD = (0.6, 0.42), (0.6, 0.33), (0.65, 0.5)
"""Scores from which an upright face is sure, and from which it counts: photos without a face reach 0.35 to 0.52."""
OWN, OWN_SMALL = 0.7, 0.8
"""Scores from which a face counts, for our own detector; small ones (SMALL of the picture's shorter edge) are rarer."""
OWN_TURNED, OWN_TWICE = 0.9, 0.85  # scores from which one counts that is seen in turned pictures only: in one, in two
SAME = 0.25  # of a face's side: how far apart the middles of its boxes are at most where it is seen twice
SMALL = 0.1
EMBEDDED = "facekit"  # what `auto` stands for where there is no pack of insightface
SMALLEST = 16  # px, the larger side of a face's box; smaller ones are noise as often as faces


def find_detector(name: str = "auto", model_root: Path | None = None) -> Detector:
    """Return the detector called `name`.

    `auto` is insightface where one of its packs lies under `model_root` (default ~/.insightface), else facekit.
    `facekit` finds photos and drawings with the net that comes with facekit, `facekit:RUN` with one of
    `train-detector`. `cascade` is scikit-image's frontal cascade, `cascade:FILE` an LBP cascade in
    OpenCV's XML format; `insightface:PACK` is a named model pack, `insightface` the one at hand, downloaded if there is
    none.
    Raises CardError for a name that is none of these, InputError for a cascade file that cannot be read, and
    MissingError where weights, insightface or its models are not here.
    """
    from .lbp_cascade import CascadeDetector
    from .scrfd import InsightFaceDetector, local_packs

    kind, colon, detail = name.partition(":")
    if name == "auto":
        kind = "insightface" if local_packs(model_root) else EMBEDDED
    if kind == "facekit" and (detail or not colon):
        from .neural import NeuralDetector

        return Sure(NeuralDetector(Path(detail).expanduser() if detail else None), OWN, OWN_SMALL, OWN_TURNED)
    if kind == "cascade" and (detail or not colon):
        cascade = CascadeDetector(Path(detail).expanduser() if detail else None)
        return TurnedSearch(cascade, *(DRAWN if detail else FRONTAL))
    if kind == "insightface" and (detail or not colon):
        return TurnedSearch(InsightFaceDetector(detail or None, model_root), *SCRFD)
    raise CardError(f"unknown face detector {name!r}{suggest(name, DETECTORS)}", f"{EMBEDDED} needs no download")


class Sure:
    """A detector without the faces that it is not sure of: those that score less than `least`, small ones `small`.

    Where it is sure of none, it looks at the picture turned by quarters, then, for large faces, by eighths, and counts
    those that score `turned`, or OWN_TWICE both times: it knows faces at any roll, and upright ones best.
    """

    def __init__(self, detector: Detector, least: float, small: float = 0.0, turned: float | None = None):
        self.name, self.least, self.small, self.detector = detector.name, least, max(least, small), detector
        self.turned = turned

    def detect(self, image: np.ndarray, effort: Effort = "first") -> list[Face]:
        """Return the faces in `image` (uint8 HxWx3 RGB), largest first."""
        edge = SMALL * min(image.shape[:2])
        found = self.detector.detect(image, effort)
        sure = [face for face in found if face.score >= (self.least if _side(face) >= edge else self.small)]
        if sure or self.turned is None:
            return sure
        seen = look_turned(partial(self.detector.detect, effort=effort), image)
        sure = [face for face in seen if face.score >= self.turned]
        if sure:
            return sure
        again = look_slanted(partial(self.detector.detect, effort="quick"), image)
        return [face for face in again if face.score >= self.turned] or _twice(seen, again)

    def doubt(self, image: np.ndarray) -> str:
        """Return what to say of the best candidate in an image without a sure face; empty where there is none."""
        best = max((face.score for face in self.detector.detect(image)), default=0.0)
        return f"; the best candidate scores {best:.2f}, a face {self.least:g} or more" if best else ""


def _twice(seen: list[Face], again: list[Face]) -> list[Face]:
    """Return the faces of `again` that score OWN_TWICE or more both times they were seen."""
    likely, known = ([face for face in faces if face.score >= OWN_TWICE] for faces in (again, seen))
    return [face for face in likely if any(_apart(face, other) < SAME * _side(other) for other in known)]


def _apart(one: Face, other: Face) -> float:
    (x0, y0, x1, y1), (u0, v0, u1, v1) = one.box, other.box
    return float(np.hypot(x0 + x1 - u0 - u1, y0 + y1 - v0 - v1)) / 2


def _side(face: Face) -> float:
    return max(face.box[2] - face.box[0], face.box[3] - face.box[1])


def find_faces(detector: Detector, image: np.ndarray, every: bool = False, hint: str = "crop it by hand") -> list[Face]:
    """Return the largest face in `image` (uint8 HxWx3 RGB), or with `every` all of them, from left to right.

    Faces smaller than `SMALLEST` px do not count. Raises InputError where there is none; `hint` is what to do instead
    of trying another detector.
    """
    faces = detector.detect(image, "every" if every else "first")
    found = [face for face in faces if _side(face) >= SMALLEST]
    if not found:
        small = f", only {len(faces)} smaller than {SMALLEST} px" if faces else ""
        if not small and isinstance(detector, Sure):
            small = detector.doubt(image)
        error = InputError(f"no face found by {detector.name}{small}", f"{hint}, or another --detector")
        error.stage = "detect"  # type: ignore[attr-defined]
        raise error
    return sorted(found, key=lambda face: face.box[0] + face.box[2]) if every else found[:1]
