"""What an aligned folder holds: statistics of its faces, and a page of them with the least sure detections first."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..reports import html
from ..storage.folder import Folder
from ..storage.manifest import failures

NAME = "index.html"
SHOWN = 2000  # faces on the page


def summary(entries: Mapping[str, Mapping[str, Any]], failed: int) -> dict[str, Any]:
    """Return what a card notes of the faces by manifest entry: counts, px of the boxes, degrees of roll, scores.

    Sizes, rolls and scores are given as their least, quarter, middle, three-quarter and greatest value.
    """
    rows = [entry for entry in entries.values() if _is_whole(entry)]
    photos = {str(entry.get("source")): entry.get("faces_in_photo", 1) for entry in rows}
    faces_found = Counter(str(count) for count in photos.values())
    out: dict[str, Any] = {
        "photos": len(photos) + failed,
        "without_a_face": failed,
        "faces_in_photo": dict(sorted(faces_found.items(), key=lambda pair: int(pair[0]))),
    }
    if rows:
        out["face_px"] = _spread(max(e["box"][2] - e["box"][0], e["box"][3] - e["box"][1]) for e in rows)
        out["roll_degrees"] = _spread(entry["roll"] for entry in rows)
        out["score"] = _spread(entry["score"] for entry in rows)
    return out


def _is_whole(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a manifest has all that a face has."""
    box = entry.get("box")
    corners = box if isinstance(box, list | tuple) and len(box) == 4 else [None]
    numbers = [*corners, entry.get("roll"), entry.get("score")]
    return all(isinstance(number, int | float) and math.isfinite(number) for number in numbers) and isinstance(
        entry.get("faces_in_photo", 1), int
    )


def _spread(values: Iterable[float]) -> list[float]:
    found = sorted(values)
    quarters = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    return [round(float(value), 3) for value in (found[0], *quarters, found[-1])]


def write_page(out: Path) -> dict[str, Any]:
    """Write OUT/index.html: statistics, what failed and why, the faces from the least sure on; returns the figures."""
    entries, failed = Folder(out).entries, failures(out)
    figures = summary(entries, len(failed))
    rows = [(name, entry) for name, entry in entries.items() if _is_whole(entry)]
    rows.sort(key=lambda pair: (pair[1]["score"], -abs(pair[1]["roll"]), pair[0]))
    html.write(
        out / NAME,
        "faces.html",
        title=f"faces in {out.name}",
        figures=[(key.replace("_", " "), _words(value)) for key, value in figures.items()],
        failed=list(failed.items())[:SHOWN],
        failed_count=len(failed),
        faces=rows[:SHOWN],
        more=len(rows) > SHOWN,
    )
    return figures


def _words(value: Any) -> str:
    """Return a figure of `summary` in words."""
    if isinstance(value, dict):
        return ", ".join(f"{count} photos with {key}" for key, count in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        low, first, middle, third, high = value
        return f"{low:g} to {high:g}, half of them {first:g} to {third:g}, middle {middle:g}"
    return str(value)
