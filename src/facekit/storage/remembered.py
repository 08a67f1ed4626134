"""What was read from the files of a folder, remembered between runs: a file that has not changed is not read again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, OutputError
from ..runtime import console
from . import content, files
from .cache import cache_folder
from .folder import Source
from .remote import is_remote

FORMAT = 2  # of the cache
FEWEST = 500  # files: fewer are read again each time, and leave nothing in the cache


def read(
    title: str, folder: Path, sources: Sequence[Source], kind: np.dtype, look: Callable[[Source], Any]
) -> tuple[np.ndarray, dict[int, InputError]]:
    """Return what `look` finds in each file, as an array [N] of the structured type `kind`, and errors by position.

    Rows of files with an error are zeros. All others are kept in the cache folder, under `title`, with each file's
    length, time and inode, so that 100,000 files are opened once, not at every start.
    """
    cached = _Cache(title, folder, kind) if len(sources) >= FEWEST else None
    names = [source.name for source in sources]
    numbers = (number for source in sources for number in _stamp(source.path))
    stamps = np.fromiter(numbers, np.int64, 3 * len(sources)).reshape(-1, 3)
    rows, known = np.zeros(len(sources), kind), np.zeros(len(sources), bool)
    if cached:
        cached.find(names, stamps, rows, known)
    todo = np.flatnonzero(~known)
    errors: dict[int, InputError] = {}
    try:
        with console.progress(title, len(todo)) if cached and len(todo) else contextlib.nullcontext() as bar:
            for index in map(int, todo):
                try:
                    rows[index] = look(sources[index])
                    known[index] = True
                except InputError as error:
                    errors[index] = error
                if bar:
                    bar.advance()
    finally:  # a stop keeps what was read
        if cached and known[todo].any():
            cached.keep(names, stamps, rows, known)
    return rows, errors


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what shows whether a file has changed: length, time and inode; zeros for one that is gone."""
    try:
        stat = content.stat(path)
    except OSError:
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ino & (2**63 - 1)


class _Cache:
    """What is known of one folder's files, in one file: names, stamps [N, 3] and rows [N].

    The names stay one text, because most often they are those that are asked for.
    """

    def __init__(self, title: str, folder: Path, kind: np.dtype):
        place = folder.as_posix() if is_remote(folder) else os.path.realpath(folder)
        key = hashlib.sha256(os.fsencode(place)).hexdigest()[:32]
        self.path = cache_folder() / title / f"{key}.npz"
        self.text = b""
        self.stamps, self.rows = np.zeros((0, 3), np.int64), np.zeros(0, kind)
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                text, stamps, rows = kept["names"].tobytes(), kept["stamps"], kept["rows"]
                whole = stamps.shape == (text.count(b"\0") + 1, 3) and rows.shape == (len(stamps),)
                if kept["format"] == FORMAT and whole and rows.dtype == kind:
                    self.text, self.stamps, self.rows = text, stamps, rows
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none yet, or a damaged one
            pass

    @cached_property
    def at(self) -> dict[str, int]:
        """The row of each name."""
        names = self.text.decode("utf-8", "surrogateescape").split("\0") if len(self.rows) else []
        return {name: row for row, name in enumerate(names)}

    def find(self, names: Sequence[str], stamps: np.ndarray, rows: np.ndarray, known: np.ndarray) -> None:
        """Fill in the rows of the files that have not changed, and mark them as known."""
        if _text(names) == self.text:
            at = np.arange(len(names))
        else:
            at = np.fromiter((self.at.get(name, -1) for name in names), np.int64, len(names))
        there = np.flatnonzero(at >= 0)
        same = there[(self.stamps[at[there]] == stamps[there]).all(1)]
        rows[same], known[same] = self.rows[at[same]], True

    def keep(self, names: Sequence[str], stamps: np.ndarray, rows: np.ndarray, known: np.ndarray) -> None:
        """Write what is known of these files, and of others that were known before."""
        others: list[tuple[str, int]] = []
        if _text(names) != self.text:
            asked = set(names)
            others = [(name, at) for name, at in self.at.items() if name not in asked]
        more = [at for _, at in others]
        found = [name for name, good in zip(names, known, strict=True) if good]
        text = _text([*found, *(name for name, _ in others)])
        stamps = np.concatenate([stamps[known], self.stamps[more]])
        rows = np.concatenate([rows[known], self.rows[more]])
        with contextlib.suppress(OutputError), files.replacing(self.path) as part, open(part, "wb") as file:
            np.savez(file, format=FORMAT, names=np.frombuffer(text, np.uint8), stamps=stamps, rows=rows)


def _text(names: Iterable[str]) -> bytes:
    return "\0".join(names).encode("utf-8", "surrogateescape")
