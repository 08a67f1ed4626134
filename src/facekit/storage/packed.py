"""Folders whose images lie in tar files: an index beside each tar says where every image is, and how large.

The tar files are in WebDataset's layout: members named as the images, those of one name up to its first dot in a row.
"""

from __future__ import annotations

import bisect
import functools
import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from . import content, files, remote
from .remote import is_remote

CARD = "pack.card.yaml"  # marks a packed folder: written last
UNFINISHED = "pack.card.unfinished.yaml"
INDEX = ".index.npz"  # in the place of .tar
FORMAT = 1  # of the index
AGAIN = "copy the shards again; or `facekit pack {folder}` writes their index anew"


class Columns(NamedTuple):
    """What an index says of each image of a shard; arrays of one length.

    `offset` and `length` are bytes in the tar file, `crc` is of the image's bytes, `mtime` in ns, `size` width and
    height in px ([N, 2]; 0 where the image cannot be read).
    """

    name: list[str]
    offset: np.ndarray
    length: np.ndarray
    crc: np.ndarray
    mtime: np.ndarray
    size: np.ndarray


TYPES = {"offset": np.int64, "length": np.int64, "crc": np.uint32, "mtime": np.int64, "size": np.int32}


def index_file(tar: Path) -> Path:
    """Return where the index of a tar file is."""
    return tar.with_name(tar.name.removesuffix(".tar") + INDEX)


def write_index(tar: Path, columns: Columns, length: int) -> None:
    """Write the index of a tar file of `length` bytes; raises OutputError where that cannot be."""
    names = np.frombuffer("\0".join(columns.name).encode("utf-8", "surrogateescape"), np.uint8)
    values: dict[str, Any] = {key: getattr(columns, key) for key in TYPES}
    with files.replacing(index_file(tar)) as part, open(part, "wb") as file:
        np.savez(file, format=FORMAT, bytes=length, names=names, **values)


def read_index(tar: Path) -> tuple[int, Columns]:
    """Return the length of a tar file as its index says, and the index; raises InputError where that is damaged."""
    path = index_file(tar)
    try:
        with np.load(io.BytesIO(remote.read(path)) if is_remote(path) else path, allow_pickle=False) as kept:
            if kept["format"] != FORMAT:
                raise InputError(f"{path} has format {kept['format']}, this facekit reads {FORMAT}", "upgrade facekit")
            text = kept["names"].tobytes().decode("utf-8", "surrogateescape")
            columns = Columns(text.split("\0") if text else [], **{key: kept[key] for key in TYPES})
            if any(len(values) != len(columns.name) for values in columns):
                raise ValueError("its columns differ in length")
            if any(map(_leads_out, columns.name)):
                raise ValueError("it names images outside its folder")
            return int(kept["bytes"]), columns
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged: {error}", AGAIN.format(folder=tar.parent)) from error


def _leads_out(name: str) -> bool:
    """Whether a name in an index is none of a file below the folder."""
    if name and ".." not in name and ":" not in name and name[0] not in "/\\.":
        return False
    path = PurePath(name)
    return not path.parts or bool(path.drive or path.root) or ".." in path.parts or is_remote(Path(name))


class PackedFolder:
    """The images of all shards of a folder, found by name; `names` is sorted.

    Raises InputError where a shard is missing or cut short, where an index does not fit its shard, or where two shards
    hold one name.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.tars = content.beside(folder, "*.tar")
        parts = [self._checked(tar) for tar in self.tars]
        for path in content.beside(folder, f"*{INDEX}"):
            tar = path.with_name(path.name.removesuffix(INDEX) + ".tar")
            if tar not in self.tars:
                raise InputError(f"{tar} is missing: only its index is here", "copy it again")
        names = [name for part in parts for name in part.name]
        order = sorted(range(len(names)), key=names.__getitem__)
        self.names = [names[row] for row in order]
        self.shard = np.repeat(np.arange(len(parts)), [len(part.name) for part in parts])[order]
        self.values = {
            key: np.concatenate([getattr(part, key) for part in parts])[order] if parts else np.zeros(0, np.int64)
            for key in TYPES
        }
        twice = next((a for a, b in zip(self.names, self.names[1:], strict=False) if a == b), None)
        if twice is not None:
            raise InputError(f"two shards of {folder} hold {twice!r}", "give images names of their own")

    def _checked(self, tar: Path) -> Columns:
        try:
            _stat(index_file(tar))
        except FileNotFoundError:
            raise InputError(f"{tar} has no index", f"facekit pack {self.folder} writes one") from None
        length, columns = read_index(tar)
        there = _stat(tar).st_size
        if there != length:
            what = "is cut short" if there < length else "is not the shard that its index is of"
            raise InputError(
                f"{tar} {what}: it has {there:,} bytes, its index says {length:,}", AGAIN.format(folder=self.folder)
            )
        return columns

    def find(self, name: str) -> int | None:
        """Return the row of an image; None where there is none of this name."""
        row = bisect.bisect_left(self.names, name)
        return row if row < len(self.names) and self.names[row] == name else None

    def below(self, top: str) -> Sequence[str]:
        """Return the names that begin with `top`."""
        first = bisect.bisect_left(self.names, top)
        return self.names[first : bisect.bisect_left(self.names, top + "\U0010ffff", first)]

    def read(self, row: int) -> bytes:
        """Return an image's bytes; raises InputError where they are not those that the index was made of."""
        tar = self.tars[self.shard[row]]
        data = content.read_part(tar, int(self.values["offset"][row]), int(self.values["length"][row]))
        if zlib.crc32(data) != self.values["crc"][row]:
            raise InputError(
                f"{self.names[row]} in {tar} is not what its index says: the shard was changed or is damaged",
                AGAIN.format(folder=self.folder),
            )
        return data

    def size(self, row: int) -> tuple[int, int] | None:
        """Return an image's width and height in px; None where packing could not read it."""
        width, height = self.values["size"][row].tolist()
        return (width, height) if width else None

    def stat(self, row: int) -> os.stat_result:
        """Return the length and time of an image, as of a file."""
        length, mtime = int(self.values["length"][row]), int(self.values["mtime"][row])
        seconds = mtime // 10**9
        times = {"st_mtime": mtime / 10**9, "st_mtime_ns": mtime, "st_ctime_ns": mtime}
        return os.stat_result((0o100644, 0, 0, 1, 0, 0, length, seconds, seconds, seconds), times)


def packed_folder(folder: Path) -> PackedFolder | None:
    """Return what a folder's shards hold; None for a folder that is not packed.

    Raises InputError where `facekit pack` is not done with it, and as `PackedFolder` does.
    """
    if is_remote(folder):
        return _open_remote(str(folder))
    try:
        stat = os.stat(folder / CARD)
    except OSError:
        if os.path.exists(folder / UNFINISHED):
            raise InputError(f"packing into {folder} is not finished", "run the same facekit pack again") from None
        return None
    return _open(str(folder), stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=16)
def _open(folder: str, mtime: int, inode: int) -> PackedFolder:
    return PackedFolder(Path(folder))


@functools.lru_cache(maxsize=1024)
def _open_remote(folder: str) -> PackedFolder | None:
    """Return what the shards behind a URL hold, or None; asked once in a process."""
    path = Path(folder)
    names = {found.name for found in content.beside(path, "pack.card*.yaml")}
    if UNFINISHED in names and CARD not in names:
        raise InputError(f"packing into {folder} was not finished", "run facekit pack again, and copy its folder whole")
    return PackedFolder(path) if CARD in names else None


def forget_remote() -> None:
    """Ask stores anew from now on, because this process has written there."""
    _open_remote.cache_clear()


def _stat(path: Path) -> os.stat_result:
    return remote.stat(path) if is_remote(path) else os.stat(path)


def holders(path: Path) -> Iterator[tuple[PackedFolder, str]]:
    """Yield the packed folders that a path is in, the nearest first, with its name there."""
    parents = [parent for parent in path.parents if is_remote(parent)] if is_remote(path) else path.parents
    for parent in parents:
        try:
            pack = packed_folder(parent)
        except remote.Unreachable:  # the top of a bucket that may not be listed
            continue
        if pack:
            yield pack, path.relative_to(parent).as_posix()


def member(path: Path) -> tuple[PackedFolder, int] | None:
    """Return the packed folder that holds an image, and its row there; None for a path that is in none."""
    for pack, name in holders(path):
        row = pack.find(name)
        if row is not None:
            return pack, row
    return None


def below(folder: Path) -> list[str]:
    """Return the names, relative to `folder`, of the packed images below it that a packed folder above holds."""
    return [name.removeprefix(f"{top}/") for pack, top in holders(folder) for name in pack.below(f"{top}/")]
