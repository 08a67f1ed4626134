"""The contact sheet of a translation: each input beside its outputs."""

from __future__ import annotations

import heapq
from pathlib import Path

from ..reports import contact_sheet
from ..storage import content, images, manifest
from ..storage.folder import is_inside

SheetRows = list[list[Path]]
"""Rows of an input and its outputs."""

MOST = 48  # pictures of translations on one sheet


def rows_of_folder(source: Path, out: Path, titles: list[str]) -> SheetRows:
    """Return the first inputs of a folder with their outputs, in the order of `titles`.

    They are the first by the names of their outputs; inputs that lack one are left out. The manifest is read by lines.
    """
    rows: dict[Path, list[Path]] = {}
    for title in titles:
        top = f"{title}/" if len(titles) > 1 else ""
        for name, made_of in _first(out, top):
            whole = source if content.is_file(source) else source / made_of
            rows.setdefault(whole, [whole]).append(out / name)
    return [row for row in rows.values() if len(row) > len(titles) and all(content.is_file(path) for path in row)]


def _first(out: Path, top: str) -> list[tuple[str, str]]:
    """Return the names of the first outputs below `top`, and those of their inputs."""
    named = (
        (row["file"], row["source"])
        for row in manifest.entries(out)
        if is_inside(row.get("file")) and is_inside(row.get("source")) and row["file"].startswith(top)
    )
    return [*dict(heapq.nsmallest(4 * MOST, named)).items()]  # a few may be missing


def write_sheet(rows: SheetRows, path: Path, titles: list[str]) -> bool:
    """Write the contact sheet to `path`; returns False where there is nothing new to show."""
    shown = [row for row in rows if len(row) == len(titles) + 1][: MOST // len(titles)]
    newest = max((made.stat().st_mtime_ns for row in shown for made in row[1:]), default=0)
    if not shown or (path.exists() and path.stat().st_mtime_ns >= newest):
        return False
    edge = 256 if len(shown) <= 6 and len(titles) == 1 else 128
    pictures = []
    for row in shown:
        cells = [images.read(image) for image in row]
        for image in cells:
            image.thumbnail((edge, edge))  # whole photos would fill the memory
        pictures.append(cells)
    groups = 1 if len(rows) <= 3 else max(1, min(3, 8 // (1 + len(titles))))
    labels = [row[1].name for row in shown]
    contact_sheet.save_sheet(path, pictures, titles=["input", *titles], labels=labels, size=edge, groups=groups)
    return True
