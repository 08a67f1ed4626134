"""Faces found by an LBP cascade (Liao et al. 2007, run by scikit-image), with the rotation at which it responds most.

A cascade only accepts or rejects a window. Score, angle and exact position come from how many neighbouring windows
it accepts: over small shifts and sizes, over rotations of the picture, and over its mirror image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import defusedxml.ElementTree as ElementTree
import numpy as np
from skimage.data import lbp_frontal_face_cascade_filename
from skimage.exposure import equalize_adapthist
from skimage.feature import Cascade

from ..errors import InputError
from .alignment import landmarks_of_eyes
from .eye_localizer import find_eyes
from .image_pyramid import Canvas, clockwise
from .types import Effort, Face

WINDOW = 24  # px, the smallest window the cascades are trained for
EYES = np.array([[-0.185, -0.131], [0.185, -0.131]])  # from the window's centre, of its width: median of SCRFD's eyes
BOX = np.array([0.40, 0.53])  # half the face's width and height, of the window's width
STRONG, WEAK = 8.0, 4.0  # support that ends the search; support that counts as a face once the search has ended
STEP = 8  # degrees between two turns that are tried
STEEPEST = 60  # degrees; heads turned further are not looked for


@dataclass(frozen=True)
class Sighting:
    """A square window that holds a face: canvas px and degrees clockwise; `support` is how many windows agree."""

    centre: np.ndarray  # (2,)
    width: float
    turn: float
    support: float


class CascadeDetector:
    """Faces by the LBP cascade in `file`, or by the frontal one that ships with scikit-image.

    About 0.1 s a photo; photos where nothing is found at once are searched again turned, mirrored, equalised and finer,
    about 1 s. Faces narrower than a tenth of the photo are looked for only where no larger one is found.
    Raises InputError where `file` is missing or is not such a cascade.
    """

    def __init__(self, file: Path | None = None):
        self.name = f"cascade:{file}" if file else "cascade"
        self._cascade = _read(Path(file or lbp_frontal_face_cascade_filename()))

    def detect(self, image: np.ndarray, effort: Effort = "first") -> list[Face]:
        """Return the faces in `image` (uint8 HxWx3 RGB), largest first; nose and mouth are estimated from the eyes."""
        canvas = Canvas(image)
        hits = np.empty((0, 4))
        sightings: list[Sighting] = []
        for least, found in self._searches(canvas):
            hits = np.concatenate([hits, found])
            levelled = [self._level(canvas, sighting) for sighting in _grouped(hits, least)]
            levelled += [self._level(canvas, s) for s in levelled if 0 < s.support < STRONG]  # from a better place
            sightings = _apart([s for s in (*sightings, *levelled) if s.support >= WEAK])
            if effort == "quick" or (effort == "first" and any(s.support >= STRONG for s in sightings)):
                break
        faces = [_face(canvas, sighting) for sighting in sightings]
        return sorted(faces, key=lambda face: face.box[0] - face.box[2])

    def _searches(self, canvas: Canvas) -> Iterator[tuple[int, np.ndarray]]:
        """Ever more thorough searches of the whole photo: how many hits make a group, and the new hits (n, 4)."""
        yield 3, self._hits(canvas)
        yield 4, self._hits(canvas, pixels=288)
        yield 4, np.concatenate([self._hits(canvas, turn=turn) for turn in (-20, 20, -40, 40)])
        yield 4, np.concatenate([self._hits(canvas, mirror=True), self._hits(canvas, equalise=True)])
        if max(canvas.size) > 288:  # finer than the photo there are no faces, only chance
            yield 5, self._hits(canvas, pixels=min(512, int(max(canvas.size))), room=0.0)

    def _hits(
        self,
        canvas: Canvas,
        pixels: int = 160,
        turn: float = 0.0,
        room: float = 0.25,
        mirror: bool = False,
        equalise: bool = False,
    ) -> np.ndarray:
        """Windows (n, 4: x, y, width, turn) that pass in a view of the photo, `pixels` square, `room` around it."""
        side = float(max(canvas.size)) * (1 + 2 * room)
        centre = canvas.size / 2
        view = canvas.patch(centre, side, turn, pixels)
        if equalise:
            view = (equalize_adapthist(view, clip_limit=0.02) * 255).astype(np.uint8)
        return _placed(self._windows(view, 1.15, (WINDOW, pixels), mirror), centre, side / pixels, turn)

    def _windows(self, view: np.ndarray, factor: float, sizes: tuple[int, int], mirror: bool = False) -> np.ndarray:
        """Every window (n, 3: x, y, width; px from the middle of `view`) that passes the cascade, none merged."""
        found = self._cascade.detect_multi_scale(
            img=np.ascontiguousarray(view[:, ::-1] if mirror else view),
            scale_factor=factor,
            step_ratio=1,
            min_size=(sizes[0], sizes[0]),
            max_size=(sizes[1], sizes[1]),
            min_neighbor_number=1,
            intersection_score_threshold=1.01,  # above 1: never merge
        )
        middle = len(view) / 2
        rows = [(w["c"] + w["width"] / 2 - middle, w["r"] + w["width"] / 2 - middle, w["width"]) for w in found]
        windows = np.array(rows, float).reshape(-1, 3)
        return windows * (-1, 1, 1) if mirror else windows

    def _level(self, canvas: Canvas, sighting: Sighting) -> Sighting:
        """`sighting` at the turn, place and width where the cascade and its mirror image answer most."""
        pixels, side = 88, 2.2 * sighting.width
        sizes = round(0.34 * pixels), round(0.66 * pixels)

        def answers(turn: float) -> np.ndarray:
            view = canvas.patch(sighting.centre, side, turn, pixels)
            windows = np.concatenate([self._windows(view, 1.1, sizes, mirror) for mirror in (False, True)])
            near = np.hypot(windows[:, 0], windows[:, 1]) < 0.16 * pixels
            return _placed(windows[near], sighting.centre, side / pixels, turn)

        middle = round(sighting.turn / STEP)
        hits = {turn: answers(turn * STEP) for turn in range(middle - 2, middle + 3)}
        for way in (-1, 1):  # climb on while the rim still answers
            rim = middle + 2 * way
            while abs(rim * STEP) < STEEPEST and len(hits[rim]) > 0.3 * max(map(len, hits.values())):
                rim += way
                hits[rim] = answers(rim * STEP)
        turns = np.array(sorted(hits)) * float(STEP)
        counts = np.convolve([0, *(len(hits[turn]) for turn in sorted(hits)), 0], [0.25, 0.5, 0.25], "valid")
        if not counts.any():
            return Sighting(sighting.centre, sighting.width, sighting.turn, 0.0)
        turn = float(turns[counts.argmax()])
        for _ in range(4):  # mean shift to the middle of the peak
            turn = float(np.average(turns, weights=counts * np.exp(-(((turns - turn) / 16) ** 2) / 2)))
        rows = np.concatenate(list(hits.values()))
        x, y, width, _ = np.average(rows, axis=0, weights=np.exp(-(((rows[:, 3] - turn) / 10) ** 2) / 2))
        return Sighting(np.array([x, y]), float(width), turn, float(counts.max()))


def _read(file: Path) -> Cascade:
    """The cascade in `file`; the form is checked here, because scikit-image can crash on other files."""
    hint = "give a file in OpenCV's LBP cascade format, such as lbpcascade_animeface.xml"
    if not file.is_file():
        raise InputError(f"no cascade file {file}", hint)
    try:
        root = ElementTree.parse(file).getroot()
        if root is None or root.findtext(".//featureType") != "LBP" or root.find(".//stages/_") is None:
            raise InputError(f"{file} is XML, but not an LBP cascade", hint)
        return Cascade(str(file))
    except (ElementTree.ParseError, OSError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise InputError(f"{file} is not a cascade: {error}", hint) from error


def _placed(windows: np.ndarray, centre: np.ndarray, scale: float, turn: float) -> np.ndarray:
    """Windows (n, 3) of a view around `centre` as canvas windows (n, 4: x, y, width, turn)."""
    places = windows[:, :2] @ clockwise(turn).T * scale + centre
    return np.column_stack([places, windows[:, 2] * scale, np.full(len(windows), turn)])


def _grouped(hits: np.ndarray, least: int) -> list[Sighting]:
    """Hits (n, 4) that lie together, most first, as their mean; groups of fewer than `least` are chance."""
    groups = []
    while len(hits):
        apart = np.linalg.norm(hits[:, None, :2] - hits[None, :, :2], axis=2)
        small = np.minimum(hits[:, None, 2], hits[None, :, 2])
        large = np.maximum(hits[:, None, 2], hits[None, :, 2])
        together = (apart < 0.35 * small) & (large < 1.5 * small)
        members = together[together.sum(1).argmax()]
        if members.sum() < least:
            break
        x, y, width, turn = hits[members].mean(0)
        groups.append(Sighting(np.array([x, y]), float(width), float(turn), float(members.sum())))
        hits = hits[~members]
    return groups


def _apart(sightings: list[Sighting]) -> list[Sighting]:
    """The best of every heap of overlapping sightings: a large one wins over an eye or a mouth that passes as well."""
    kept: list[Sighting] = []
    for sighting in sorted(sightings, key=lambda s: -s.support * s.width):
        reach = [0.5 * max(sighting.width, other.width) for other in kept]
        if all(np.abs(sighting.centre - k.centre).max() > r for k, r in zip(kept, reach, strict=True)):
            kept.append(sighting)
    return kept


def _face(canvas: Canvas, sighting: Sighting) -> Face:
    """A sighting in photo px, its eyes looked for and the rest put where a mean face has it."""
    pixels, side = 96, 1.1 * sighting.width
    patch = canvas.patch(sighting.centre, side, sighting.turn, pixels)
    eyes = (find_eyes(patch, EYES * pixels / 1.1 + pixels / 2) - pixels / 2) * side / pixels
    eyes = (eyes @ clockwise(sighting.turn).T + sighting.centre) / canvas.scale
    x0, y0 = (sighting.centre - BOX * sighting.width) / canvas.scale
    x1, y1 = (sighting.centre + BOX * sighting.width) / canvas.scale
    score = sighting.support / (sighting.support + STRONG)
    return Face((float(x0), float(y0), float(x1), float(y1)), score, landmarks_of_eyes(eyes), measured=False)
