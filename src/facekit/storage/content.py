"""Reads images wherever they lie: as files, or in the tar files of a packed folder (see `packed`) above their path."""

from __future__ import annotations

import io
import os
import stat as modes
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from .packed import PackedFolder


def open_file(path: Path) -> BinaryIO:
    """Open an image to read; raises OSError as `open` does, InputError where a shard is damaged."""
    try:
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        found = _member(path)
        if found is None:
            raise
        return io.BytesIO(found[0].read(found[1]))


def read_bytes(path: Path) -> bytes:
    """Return the bytes of an image; raises what `open_file` does."""
    with open_file(path) as file:
        return file.read()


def stat(path: Path) -> os.stat_result:
    """Return the length and times of an image; raises OSError where it is not there."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        found = _member(path)
        if found is None:
            raise
        return found[0].stat(found[1])


def known_size(path: Path) -> tuple[int, int] | None:
    """Return the width and height that the index of a packed folder gives; None for a file, or where it gives none."""
    if os.path.lexists(path):
        return None
    found = _member(path)
    return found[0].size(found[1]) if found else None


def is_file(path: Path) -> bool:
    """Whether there is an image, or another file, at a path."""
    try:
        return modes.S_ISREG(stat(path).st_mode)
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder at a path, on the disk or as a part of a packed folder."""
    return path.is_dir() or any(True for _ in packed_below(path))


def packed_below(folder: Path) -> list[str]:
    """Return the names of the images below a folder that lie in the shards of a folder above it."""
    from . import packed

    return packed.below(folder)


def _member(path: Path) -> tuple[PackedFolder, int] | None:
    from . import packed

    return packed.member(path)
