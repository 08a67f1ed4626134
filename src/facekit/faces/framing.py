"""How a face is framed: the named templates of `--template`, each from five landmarks to the warp of a square crop."""

from __future__ import annotations

import numpy as np

from ..errors import CardError, InputError
from ..storage.card import suggest
from .alignment import MARGIN, similarity, template

TEMPLATES = ("portrait", "ffhq", "arcface", "anime")
ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""Where the five points of a face lie in ArcFace's crops of 112 px (Deng et al. 2019; insightface's face_align.py)."""
ANIME_ROOM = 1.45  # the side of an anime crop, in sides of an FFHQ crop: hair and chin of a drawing fit in
ANIME_UP = 0.12  # how far its middle lies above that of an FFHQ crop, in sides of an FFHQ crop


def face_warp(landmarks: np.ndarray, size: int, margin: float | None = None, name: str = "portrait") -> np.ndarray:
    """Return the warp (2, 3), photo px -> crop px, that frames a face with `landmarks` (5, 2) in a square of `size` px.

    "portrait" brings the five points nearest to those of a mean face (see `alignment.template`; margin 0.25 if None),
    "arcface" to those of face recognition. "ffhq" takes roll and size from eyes and mouth as FFHQ's crops do (Karras et
    al. 2019), "anime" does the same with room for hair and chin; both suit faces whose nose and mouth are drawn where
    no mean face has them. For these three, `margin` adds that fraction of the side on each side (0 if None).
    Raises CardError for an unknown name, a size below 1 or a negative margin, InputError for points that coincide.
    """
    if name not in TEMPLATES:
        raise CardError(f"no template {name!r}{suggest(name, TEMPLATES)}", f"one of {', '.join(TEMPLATES)}")
    if name == "portrait":
        return similarity(landmarks, template(size, MARGIN if margin is None else margin))
    template(size, margin or 0.0)  # raises for what makes no crop
    room = 1 + 2 * (margin or 0.0)
    if name == "arcface":
        return similarity(landmarks, (ARCFACE - 56) * (size / 112 / room) + size / 2)
    across, middle = _quad(np.asarray(landmarks, float))
    if name == "anime":
        middle = middle - 2 * ANIME_UP * np.array([-across[1], across[0]])
        room *= ANIME_ROOM
    across = across * room
    ends = np.array([middle - across, middle + across])
    return similarity(ends, np.array([[0.0, size / 2], [float(size), size / 2]]))


def _quad(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return FFHQ's half side (a vector along the eyes) and middle, in px; raises InputError where points coincide."""
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    along, down = points[1] - points[0], mouth - eyes
    across = along - np.array([-down[1], down[0]])
    length = float(np.hypot(*across))
    if not np.isfinite(length) or length < 1e-6:
        raise InputError("cannot align: the landmarks coincide", "try another --detector, or crop the face by hand")
    across = across / length * max(2.0 * float(np.hypot(*along)), 1.8 * float(np.hypot(*down)))
    return across, eyes + 0.1 * down
