"""The contact sheet of a translation: each input beside its outputs."""

from __future__ import annotations

from pathlib import Path

from ..reports import contact_sheet
from ..storage import content, images
from ..storage.folder import Folder, is_inside

SheetRows = list[list[Path]]
"""Rows of an input and its outputs."""

MOST = 48  # pictures of translations on one sheet


def rows_of_folder(source: Path, out: Path, titles: list[str]) -> SheetRows:
    """Return each input of a folder with its outputs, in the order of `titles`; inputs that lack one are left out."""
    rows: dict[Path, list[Path]] = {}
    for name, entry in sorted(Folder(out).entries.items()):
        if not is_inside(entry.get("source")):
            continue
        whole = source if content.is_file(source) else source / entry["source"]
        rows.setdefault(whole, [whole]).append(out / name)
    found = [row for row in rows.values() if all(content.is_file(path) for path in row)]
    if len(titles) > 1:
        found = [row for row in found if all(path.relative_to(out).parts[0] in titles for path in row[1:])]
        found = [[row[0], *sorted(row[1:], key=lambda p: titles.index(p.relative_to(out).parts[0]))] for row in found]
    return found


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
