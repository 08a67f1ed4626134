"""Reads images wherever they lie: as files, behind a URL (`remote`), or in the tar files of a packed folder above."""

from __future__ import annotations

import contextlib
import io
import os
import stat as modes
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..runtime.stand_ins import url_of
from . import files, remote
from .remote import is_remote

if TYPE_CHECKING:
    from .packed import PackedFolder


def open_file(path: Path) -> BinaryIO:
    """Open an image to read; raises OSError as `open` does, InputError where a store or a shard fails."""
    if is_remote(path) or _object(path):
        return io.BytesIO(read_bytes(path))
    try:
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        found = _member(path)
        if found is None:
            raise
        return io.BytesIO(found[0].read(found[1]))


def read_bytes(path: Path) -> bytes:
    """Return the bytes of an image; raises what `open_file` does."""
    if far := _object(path):
        return remote.read(far)
    if not is_remote(path):
        with open_file(path) as file:
            return file.read()
    found = None if remote.is_listed(path) else _member(path)
    return found[0].read(found[1]) if found else remote.read(path)


def read_part(path: Path, start: int, length: int) -> bytes:
    """Return bytes out of the middle of a file; raises OSError, InputError where a store fails."""
    if is_remote(path):
        return remote.read(path, start, start + length)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        return file.read(length)


def stat(path: Path) -> os.stat_result:
    """Return the length and times of an image; raises OSError where it is not there, InputError where a store fails."""
    if far := _object(path):
        return remote.stat(far)
    if is_remote(path):
        found = None if remote.is_listed(path) else _member(path)
        return found[0].stat(found[1]) if found else remote.stat(path)
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        found = _member(path)
        if found is None:
            raise
        return found[0].stat(found[1])


def known_size(path: Path) -> tuple[int, int] | None:
    """Return the width and height that the index of a packed folder gives; None for a file, or where it gives none."""
    if not is_remote(path) and os.path.lexists(path):
        return None
    found = _member(path)
    return found[0].size(found[1]) if found else None


def is_file(path: Path) -> bool:
    """Whether there is an image, or another file, at a path; raises InputError where a store fails."""
    try:
        return modes.S_ISREG(stat(path).st_mode)
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder at a path: on the disk, in a store, or as a part of a packed folder."""
    if is_remote(path):
        return remote.is_folder(path) or bool(_packed_below(path))
    return path.is_dir() or bool(_packed_below(path))


def beside(folder: Path, pattern: str) -> list[Path]:
    """Return the files in a folder whose names fit a pattern, sorted; packed images are not among them."""
    if is_remote(folder):
        return remote.glob(folder, pattern)
    return files.matching(folder, pattern)


def _object(path: Path) -> Path | None:
    """Return the URL of the object that an empty file stands for (see `working_copy`); None for any other path."""
    url = url_of(path)
    with contextlib.suppress(OSError):
        return Path(url) if url and os.stat(path).st_size == 0 else None
    return None


def _packed_below(folder: Path) -> list[str]:
    from . import packed

    return packed.below(folder)


def _member(path: Path) -> tuple[PackedFolder, int] | None:
    from . import packed

    return packed.member(path)
