"""The images of a folder that are data, and not what facekit itself has written below it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import CardError
from ..runtime import console
from ..storage import card, jsonl
from ..storage.folder import MANIFEST, Folder, Source

RESULTS = ("train", "translate", "sample", "ablate", "compare", "smooth-edges")  # their pictures are never data
LOOKED_AT = 20  # lines of a manifest


def training_images(folder: Folder) -> list[Source]:
    """Return the images of a folder without those of outputs of facekit below it, which a warning names.

    Results, as previews and translations, are no data. Faces that were cut out of the folder's own images, and copies
    of them, would count twice. The folder itself may be an output: so may folders that were written from elsewhere.
    """

    @functools.cache
    def output_of(path: Path) -> str | None:
        if path in (folder.path, path.parent):
            return None
        command = _command(path)
        if command in RESULTS or (command and _derived(path, folder.path)):
            return f"{path} (facekit {command})"
        return output_of(path.parent)

    sources = folder.sources()
    left: Counter[str] = Counter()
    kept = []
    for source in sources:
        output = output_of(source.path.parent)
        if output is None:
            kept.append(source)
        else:
            left[output] += 1
    for output, count in left.items():
        console.warn(f"{output} is an output, not data: its {count} images are left out")
    return kept


def _command(path: Path) -> str | None:
    """Return the command whose card lies in a folder."""
    for name in (card.NAME, card.UNFINISHED):
        with contextlib.suppress(CardError):
            if (path / name).is_file():
                return str(card.load(path / name).get("command"))
    return "ablate" if (path / "cards").is_dir() and (path / "runs").is_dir() else None


def _derived(path: Path, top: Path) -> bool:
    """Whether the folder `path` was made from images that lie in a folder around it, up to `top`."""
    rows: list[dict[str, Any]] = []
    for row in jsonl.read_lines(path / MANIFEST):
        if len(rows) == LOOKED_AT:
            break
        rows.append(row)
    names = [row["source"] for row in rows if isinstance(row.get("source"), str)]
    around = [above for above in path.parents if above == top or top in above.parents]
    return bool(names) and any(all(os.path.isfile(above / name) for name in names) for above in around)
