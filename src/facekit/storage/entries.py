"""The entries of a folder's manifest, read from it one by one: those of a million images take gigabytes."""

from __future__ import annotations

import bisect
import contextlib
import operator
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import console
from . import content, jsonl
from .folder import MANIFEST, Source, is_inside


class Entries:
    """Says of images, which are in the order of their names, what `Folder.entries` does; 12 bytes for an image.

    The files of the manifest stay open until `close`. Lines that name no file, or a file outside the folder, are
    ignored with a warning. Raises InputError where a file cannot be read.
    """

    def __init__(self, folder: Path, sources: Sequence[Source]):
        self._sources, self._guard, self._closing = sources, threading.Lock(), contextlib.ExitStack()
        self._file, self._line = np.full(len(sources), -1, np.int32), np.zeros(len(sources), np.int64)
        self._files = [
            self._closing.enter_context(jsonl.open_rows(path)) for path in content.beside(folder, "manifest*.jsonl")
        ]
        foreign = 0
        for number, file in enumerate(self._files):
            for line, row in jsonl.rows_in(file):
                place = self._place(row["file"]) if is_inside(row.get("file")) else None
                foreign += not is_inside(row.get("file"))
                if place is not None:
                    self._file[place], self._line[place] = number, line
        if foreign:
            console.warn(f"{folder / MANIFEST}: {foreign} lines do not name a file of this folder and are ignored")

    def get(self, name: str) -> dict[str, Any]:
        """Return the entry of an image; empty where the manifest has none."""
        place = self._place(name)
        if place is None or self._file[place] < 0:
            return {}
        file = self._files[self._file[place]]
        with self._guard:
            file.seek(self._line.item(place))
            return next(jsonl.rows_in(file))[1]

    def close(self) -> None:
        """Close the files of the manifest."""
        self._closing.close()

    def _place(self, name: str) -> int | None:
        place = bisect.bisect_left(self._sources, name, key=operator.attrgetter("name"))
        return place if place < len(self._sources) and self._sources[place].name == name else None
