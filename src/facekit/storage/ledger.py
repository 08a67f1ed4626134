"""Which files of a working copy are the same as their objects: stamps of the files, versions of the objects."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path

from . import files

Stamp = tuple[int, int]
NAME = "kept.json"


class Ledger:
    """Notes for each name the stamp of the file and the version of the object, in a file that survives a kill."""

    def __init__(self, folder: Path):
        self.path, self.rows = folder / NAME, dict[str, tuple[Stamp, str]]()
        self._guard = threading.Lock()

    def load(self) -> None:
        """Read what an earlier process has noted."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            self.rows = {name: ((size, time), version) for name, ((size, time), version) in rows.items()}

    def keep(self, name: str, stamp: Stamp, version: str | None) -> None:
        """Note that a file and its object are the same."""
        with self._guard:
            self.rows[name] = stamp, version or ""
            self._write()

    def drop(self, name: str) -> None:
        """Forget a name."""
        with self._guard:
            if self.rows.pop(name, None):
                self._write()

    def clear(self) -> None:
        """Forget all."""
        with self._guard:
            self.rows = {}
            self._write()

    def stamp(self, name: str) -> Stamp | None:
        """Return the stamp of the file when it was the same as its object."""
        return self.rows[name][0] if name in self.rows else None

    def version(self, name: str) -> str | None:
        """Return the version of the object then."""
        return self.rows[name][1] if name in self.rows else None

    def _write(self) -> None:
        part = self.path.with_name(NAME + files.PART[1])
        try:
            part.write_text(json.dumps(self.rows), encoding="utf-8")
            os.replace(part, self.path)
        except OSError as error:
            files.cannot_write(self.path, error)


def stamp_of(stat: os.stat_result) -> Stamp:
    """Return what changes when a file is written."""
    return stat.st_size, stat.st_mtime_ns


def size_of(path: Path) -> int | None:
    """Return the length of a file in bytes; None where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
