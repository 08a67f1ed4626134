"""Where the faces of a film are: each frame searched once, noted as it is found, then followed and smoothed."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..faces import Detector, Face, warp
from ..faces.detectors import SMALLEST
from ..faces.tracking import Placed, is_cut, link, place, thumbnail
from ..runtime import console
from ..runtime.workers import in_order, pool_of
from ..storage import jsonl
from ..video.frames import Film, Frame, Selection, estimate, select
from .face_input import Crop, FaceInput, FaceTranslator
from .head_mask import HeadMask

NOTES = "faces.jsonl"


@dataclass
class Search:
    """What a search found: the time of each frame (s of the file), its faces, and the frames after a cut.

    `times` has one more, the end of the last frame.
    """

    times: list[Fraction] = field(default_factory=list)
    faces: list[list[Face]] = field(default_factory=list)
    cuts: set[int] = field(default_factory=set)

    def add(self, row: dict[str, Any]) -> None:
        """Add a frame as its line in NOTES says."""
        if row["cut"]:
            self.cuts.add(len(self.times))
        self.times.append(Fraction(row["time"]))
        self.faces.append([_face(values) for values in row["faces"]])


def search(
    film: Film, selection: Selection, detector: Detector | None, every: bool, folder: Path, workers: int
) -> Search:
    """Return the times and faces of all frames; without `detector` only their times.

    What is found is noted in `folder`, and a search that was stopped goes on from there. Raises InputError for a film
    without frames in the selection.
    """
    notes = folder / NOTES
    jsonl.drop_cut_line(notes)
    found = Search()
    for row in jsonl.read_lines(notes):
        if "end" in row:
            found.times.append(Fraction(row["end"]))
            return found
        found.add(row)
    end = Fraction(0)
    before: np.ndarray | None = None
    done = len(found.times)
    frames = select(film, selection, done - 1, found.times[-1]) if done else select(film, selection)

    def look(frame: Frame) -> tuple[np.ndarray, list[Face]]:
        again = frame.number < done  # only to be compared with the next
        faces = detector.detect(frame.pixels, "every" if every else "first") if detector and not again else []
        return thumbnail(frame.pixels), [face for face in faces if _side(face) >= SMALLEST]

    with console.progress("find faces", estimate(film, selection), done) as bar, pool_of(workers, False) as pool:
        for frame, (small, faces) in in_order(pool, look, frames, 2 * workers):
            if frame.number >= done:
                cut = before is not None and is_cut(before, small)
                row = {"time": str(frame.time), "cut": cut, "faces": [_values(face) for face in faces]}
                jsonl.append(notes, [row])
                found.add(row)
                bar.advance(1)
            before, end = small, frame.time + frame.lasts
    if not found.times:
        raise InputError(f"{film.path} has no frames there", "check --start and --end")
    jsonl.append(notes, [{"end": str(end)}])
    found.times.append(end)
    return found


def places_of(found: Search, margin: float, every: bool, smooth: bool) -> list[list[Placed]]:
    """Return where the faces of each frame are, followed and smoothed."""
    times = np.array([float(time) for time in found.times[:-1]])
    return place(link(found.faces, times, found.cuts), times, found.cuts, margin, every, smooth)


class TrackedFaces:
    """Cuts faces out of frames where `places` says; see `face_input` for what is done with them."""

    def __init__(self, translator: FaceTranslator, places: list[list[Placed]]):
        self.translator, self.places = translator, places
        self.head = HeadMask()

    def __call__(self, number: int, pixels: np.ndarray) -> FaceInput:
        """Return the faces of a frame (uint8 HxWx3 RGB); there may be none."""
        size = self.translator.net_size
        crops = []
        for placed in self.places[number]:
            matrix = placed.matrix(size)
            cut = warp(pixels, matrix, size)
            crops.append(Crop(self.translator.fit(cut), matrix, size, self.head(cut), opacity=placed.opacity))
        return FaceInput(crops, Image.fromarray(pixels))


def _side(face: Face) -> float:
    return max(face.box[2] - face.box[0], face.box[3] - face.box[1])


def _values(face: Face) -> list[float]:
    numbers = [*face.box, face.score, float(face.measured), *face.landmarks.ravel()]
    return [round(float(number), 3) for number in numbers]


def _face(values: list[float]) -> Face:
    x0, y0, x1, y1, score, measured, *points = values
    return Face((x0, y0, x1, y1), score, np.array(points).reshape(5, 2), bool(measured))
