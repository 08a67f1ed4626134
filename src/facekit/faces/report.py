"""What an aligned folder holds: statistics of its faces, and a page of them with the least sure detections first."""

from __future__ import annotations

import hashlib
import math
import statistics
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..reports import html
from ..storage.folder import is_inside
from ..storage.manifest import entries, failures

NAME = "index.html"
SHOWN = 2000  # faces on the page


class Faces:
    """The faces of a manifest as columns of numbers: as rows, those of a million images take gigabytes.

    `rows` yields the lines; of two that name one file the later counts. Lines that lack what a face has are left out.
    `line` is each face's place among the lines; `photo` tells photos apart, with `in_photo` faces found in each; `px`
    is the longer edge of the box, `roll` is in degrees.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]):
        file, photo, in_photo = array("Q"), array("Q"), array("q")
        numbers = array("d")
        for row in rows:
            whole = _is_whole(row)
            file.append(_digest(row.get("file")))
            photo.append(_digest(row.get("source")))
            in_photo.append(row.get("faces_in_photo", 1) if whole else 0)
            box = row["box"] if whole else [math.nan] * 4
            numbers.extend((max(box[2] - box[0], box[3] - box[1]), *((row["roll"], row["score"]) if whole else (0, 0))))
        px, roll, score = np.array(numbers).reshape(-1, 3).T
        self.line = _last_of_each(np.array(file, np.uint64))
        self.line = self.line[np.isfinite(px[self.line])]
        self.photo, self.in_photo = np.array(photo, np.uint64)[self.line], np.array(in_photo)[self.line]
        self.px, self.roll, self.score = px[self.line], roll[self.line], score[self.line]

    def summary(self, failed: int) -> dict[str, Any]:
        """Return what a card notes: counts, px of the boxes, degrees of roll, scores.

        Sizes, rolls and scores are given as their least, quarter, middle, three-quarter and greatest value.
        """
        photos = self.in_photo[_last_of_each(self.photo)]
        counts = zip(*(found.tolist() for found in np.unique(photos, return_counts=True)), strict=True)
        out: dict[str, Any] = {
            "photos": len(photos) + failed,
            "without_a_face": failed,
            "faces_in_photo": {str(faces): count for faces, count in counts},
        }
        if len(self.line):
            out["face_px"], out["roll_degrees"] = _spread(self.px), _spread(self.roll)
            out["score"] = _spread(self.score)
        return out

    def least_sure(self, most: int) -> list[int]:
        """Return the lines of up to `most` faces: the lowest scores first, then the most tilted, then the first."""
        return self.line[np.lexsort((self.line, -np.abs(self.roll), self.score))[:most]].tolist()


def _digest(name: object) -> int:
    """Return 64 bits that tell names apart."""
    return int.from_bytes(hashlib.blake2b(str(name).encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def _last_of_each(values: np.ndarray) -> np.ndarray:
    """Return the place of the last of each value, in order."""
    return np.sort(len(values) - 1 - np.unique(values[::-1], return_index=True)[1])


def _is_whole(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a manifest has all that a face has."""
    box = entry.get("box")
    corners = box if isinstance(box, list | tuple) and len(box) == 4 else [None]
    numbers = [*corners, entry.get("roll"), entry.get("score")]
    return all(isinstance(number, int | float) and math.isfinite(number) for number in numbers) and isinstance(
        entry.get("faces_in_photo", 1), int
    )


def _spread(values: np.ndarray) -> list[float]:
    found = np.sort(values).tolist()
    quarters = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    return [round(float(value), 3) for value in (found[0], *quarters, found[-1])]


def write_page(out: Path) -> dict[str, Any]:
    """Write OUT/index.html: statistics, what failed and why, the faces from the least sure on; returns the figures."""
    failed, faces = failures(out), Faces(manifest_rows(out))
    figures = faces.summary(len(failed))
    shown = {line: place for place, line in enumerate(faces.least_sure(SHOWN))}
    rows = sorted((shown[line], row) for line, row in enumerate(manifest_rows(out)) if line in shown)
    html.write(
        out / NAME,
        "faces.html",
        title=f"faces in {out.name}",
        figures=[(key.replace("_", " "), _words(value)) for key, value in figures.items()],
        failed=list(failed.items())[:SHOWN],
        failed_count=len(failed),
        faces=[(row["file"], row) for _, row in rows],
        more=len(faces.line) > SHOWN,
    )
    return figures


def manifest_rows(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of all manifests of a folder that name a file of it."""
    return (row for row in entries(out) if is_inside(row.get("file")))


def _words(value: Any) -> str:
    """Return a figure of `summary` in words."""
    if isinstance(value, dict):
        return ", ".join(f"{count} photos with {key}" for key, count in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        low, first, middle, third, high = value
        return f"{low:g} to {high:g}, half of them {first:g} to {third:g}, middle {middle:g}"
    return str(value)
