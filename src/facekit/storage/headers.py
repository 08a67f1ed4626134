"""The sizes of images, remembered between runs: a file that has not changed is not opened again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, OutputError
from ..runtime import console
from . import content, files, images
from .cache import cache_folder
from .folder import Source
from .remote import is_remote

FORMAT = 1  # of the cache
FEWEST = 500  # images: fewer are opened again each time, and leave nothing in the cache


def read_sizes(folder: Path, sources: Sequence[Source]) -> tuple[np.ndarray, dict[int, InputError]]:
    """Return the width and height of each image (int32 [N, 2], px), and the errors of those that cannot be read.

    Errors are by position; their sizes are 0. Sizes are kept in the cache folder with each file's length, time and
    inode, so that the headers of 100,000 files are opened once, not at every start.
    """
    cached = _Cache(folder) if len(sources) >= FEWEST else None
    names = [source.name for source in sources]
    stamps = np.array([_stamp(source.path) for source in sources], np.int64).reshape(-1, 3)
    sizes = cached.find(names, stamps) if cached else np.zeros((len(sources), 2), np.int32)
    todo = np.flatnonzero(sizes[:, 0] == 0)
    errors: dict[int, InputError] = {}
    try:
        with console.progress("headers", len(todo)) if cached and len(todo) else contextlib.nullcontext() as bar:
            for index in map(int, todo):
                try:
                    sizes[index] = images.size_of(sources[index].path)
                except InputError as error:
                    errors[index] = error
                if bar:
                    bar.advance()
    finally:  # a stop keeps what was read
        if cached and len(errors) < len(todo):
            cached.keep(names, stamps, sizes)
    return sizes, errors


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what shows whether a file has changed: length, time and inode; zeros for one that is gone."""
    try:
        stat = content.stat(path)
    except OSError:
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ino & (2**63 - 1)


class _Cache:
    """The sizes of one folder's images in one file: names, stamps [N, 3] and sizes [N, 2]."""

    def __init__(self, folder: Path):
        place = folder.as_posix() if is_remote(folder) else os.path.realpath(folder)
        key = hashlib.sha256(os.fsencode(place)).hexdigest()[:32]
        self.path = cache_folder() / "headers" / f"{key}.npz"
        self.rows: dict[str, int] = {}
        self.stamps, self.sizes = np.zeros((0, 3), np.int64), np.zeros((0, 2), np.int32)
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                names = kept["names"].tobytes().decode("utf-8", "surrogateescape").split("\0")
                stamps, sizes = kept["stamps"], kept["sizes"]
                if kept["format"] == FORMAT and stamps.shape == (len(names), 3) and sizes.shape == (len(names), 2):
                    self.rows, self.stamps, self.sizes = {name: i for i, name in enumerate(names)}, stamps, sizes
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none yet, or a damaged one
            pass

    def find(self, names: Sequence[str], stamps: np.ndarray) -> np.ndarray:
        """Return the sizes [N, 2] of the files that have not changed; 0 for the others."""
        sizes = np.zeros((len(names), 2), np.int32)
        rows = np.array([self.rows.get(name, -1) for name in names], np.int64)
        known = np.flatnonzero(rows >= 0)
        same = known[(self.stamps[rows[known]] == stamps[known]).all(1)]
        sizes[same] = self.sizes[rows[same]]
        return sizes

    def keep(self, names: Sequence[str], stamps: np.ndarray, sizes: np.ndarray) -> None:
        """Write the sizes of these files, and those of others that were known before."""
        asked = set(names)
        others = [(name, row) for name, row in self.rows.items() if name not in asked]
        rows = [row for _, row in others]
        text = "\0".join([*names, *(name for name, _ in others)]).encode("utf-8", "surrogateescape")
        stamps = np.concatenate([stamps, self.stamps[rows]])
        sizes = np.concatenate([sizes, self.sizes[rows]])
        with contextlib.suppress(OutputError), files.replacing(self.path) as part, open(part, "wb") as file:
            np.savez(file, format=FORMAT, names=np.frombuffer(text, np.uint8), stamps=stamps, sizes=sizes)
