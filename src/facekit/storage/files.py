"""Atomic file operations: a file is complete or absent, also after a kill."""

from __future__ import annotations

import codecs
import contextlib
import errno
import fnmatch
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Protocol

from ..errors import OutputError
from .remote import is_remote

PART = (".facekit-", ".part")  # prefix and suffix of temporary files

REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again: finished work is kept"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EROFS: ("the file system is read-only", "choose another output folder"),
    errno.EACCES: ("no permission to write", "choose another output folder, or change its permissions"),
    errno.EPERM: ("no permission to write", "choose another output folder, or change its permissions"),
    errno.ENOTDIR: ("a part of the path is a file", "choose another output folder"),
    errno.EEXIST: ("a file is where a folder should be", "choose another output folder"),
    errno.ENAMETOOLONG: ("the name is too long", "shorten it"),
}


class Follower(Protocol):
    """Follows the files that are written and removed."""

    def written(self, path: Path) -> None:
        """Take note of a file that is complete under its name."""

    def removing(self, path: Path) -> None:
        """Take note of a file that will be removed."""


followers: list[Follower] = []


def cannot_write(path: Path, error: OSError) -> NoReturn:
    """Raise OutputError for an OSError that occurred while writing `path`."""
    reason, hint = REASONS.get(error.errno or 0, (str(error), "choose another output folder"))
    raise OutputError(f"cannot write {path}: {reason}", hint) from error


def real(path: str | Path) -> Path:
    """Return a path without links in it; unlike `Path.resolve` it takes a link that leads to itself, and URLs."""
    return Path(path) if is_remote(Path(path)) else Path(os.path.realpath(path))


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; raises OutputError if that fails."""
    if is_remote(path):
        raise OutputError(
            f"cannot write to {path}: this output lies on a disk", "give a folder, and copy it when it is done"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cannot_write(path, error)
    return path


def beside(path: Path, ending: str) -> Path:
    """Return a hidden name beside a file that tells the file, however long its own name is."""
    return path.parent / f"{PART[0]}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}{ending}"


def temporary(folder: Path, path: Path | None = None) -> Path:
    """Create an empty file with an unused temporary name in a folder, with the permissions of any new file.

    Raises OutputError if that fails; the message names `path` if it is given.
    """
    ending = f"-{secrets.token_hex(8)}{PART[1]}"
    part = beside(path, ending) if path else folder / f"{PART[0]}{ending}"
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less the bits of the umask
    except OSError as error:
        cannot_write(path or folder, error)
    return part


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` to write to, and rename it to `path` when the block succeeds.

    Raises OutputError if the folder cannot be written.
    """
    make_folder(path.parent)
    part = temporary(path.parent, path)
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch.save wraps the OSError
        if isinstance(cause, OSError):
            cannot_write(path, cause)
        raise
    announce(path)


def announce(path: Path) -> None:
    """Tell those who follow that a file is complete under its name."""
    for follower in followers:
        follower.written(path)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an unused name for a folder to write, and rename that to `path` when the block succeeds.

    What was at `path` is removed then. Raises OutputError if the folder around it cannot be written.
    """
    make_folder(path.parent)
    part = beside(path, f"-{secrets.token_hex(8)}{PART[1]}")
    try:
        part.mkdir()
        made = part / path.name
        yield made
        if os.path.lexists(path):
            os.replace(path, part / "old")
        os.replace(made, path)
    except OSError as error:
        cannot_write(path, error)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sweep(folder: Path, ours: bool = True) -> None:
    """Remove temporary files that a killed process left in a folder; no other process may be writing there.

    In a folder that facekit created (`ours`), sub-folders are swept too.
    """
    for part in [*_below(folder, ".", deep=True)] if ours else [*_below(folder, PART[0])]:
        remove(part)


def _below(folder: Path, prefix: str, deep: bool = False) -> Iterator[Path]:
    """Yield the temporary files in a folder whose names begin with `prefix`, without a list of all the others."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(PART[1]):
                yield Path(entry.path)
            elif deep and entry.is_dir(follow_symlinks=False):
                yield from _below(Path(entry.path), prefix, deep)


def sweep_beside(path: Path) -> None:
    """Remove the temporary files that a killed process left of one output; no other process may be writing it."""
    for part in path.parent.glob(beside(path, f"-*{PART[1]}").name):
        if part.is_dir():  # of `replacing_folder`
            shutil.rmtree(part, ignore_errors=True)
        else:
            remove(part)


def remove(path: Path) -> None:
    """Remove a file if it exists; raises OutputError if that fails."""
    for follower in followers:
        follower.removing(path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        cannot_write(path, error)


def move(path: Path, target: Path) -> None:
    """Move a file to an unused name; raises OutputError if that fails.

    On another device, a complete copy is on disk under its final name before the original is removed.
    """
    make_folder(target.parent)
    try:
        os.rename(path, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            cannot_write(target, error)
    with replacing(target) as part:
        shutil.copyfile(path, part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
    with contextlib.suppress(OSError):  # not every file system stores times and modes
        shutil.copystat(path, target)
    remove(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_part(path: Path, data: bytes) -> Path:
    """Write what is to become the file `path` under a temporary name beside it, and return that name; see `put`."""
    part = temporary(make_folder(path.parent), path)
    try:
        part.write_bytes(data)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            cannot_write(path, error)
        raise
    return part


def put(path: Path, data: bytes | Path) -> None:
    """Write a file atomically: bytes, or what lies complete under a temporary name that `write_part` has returned."""
    if isinstance(data, bytes):
        write_bytes(path, data)
        return
    try:
        os.replace(data, path)
    except OSError as error:
        cannot_write(path, error)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_bytes(path, encoded(text))


def read_text(path: Path) -> str:
    """Return the text of a file: UTF-8 with or without a byte order mark, or UTF-16 with one; line ends are kept.

    Raises OSError or UnicodeDecodeError if it cannot be read.
    """
    return decoded(path.read_bytes())


def decoded(data: bytes) -> str:
    """Return text: UTF-8, with or without its mark, or UTF-16 with it; raises UnicodeDecodeError."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig")


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file without their ends, as it is read; the text is that of `read_text`.

    Lines end in a newline, with or without a carriage return before it; in a file without newlines in that alone.
    """
    with open(path, "rb") as start:
        utf16 = start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if utf16 else "utf-8-sig"
    with open(path, encoding=encoding, newline="") as file:
        ends = "\n" if any("\n" in part for part in iter(lambda: file.read(2**16), "")) else "\r"
    with open(path, encoding=encoding, newline=ends) as file:
        for line in file:
            yield line.removesuffix(ends).removesuffix("\r")


def encoded(text: str) -> bytes:
    """Return text as UTF-8; lone surrogates (from undecodable file names) are escaped as in JSON."""
    return text.encode("utf-8", "backslashreplace")


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the paths in a folder whose names fit a pattern, sorted; none where it is missing or cannot be read.

    `Path.glob` lists the folder first, which takes 0.2 kB a file.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if fnmatch.fnmatch(entry.name, pattern))
    return []


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def digest(path: Path) -> str:
    """Return a short hash of a file's content."""
    return sha256(path)[:16]


def append_line(path: Path, line: str) -> None:
    """Append one line with a single write, so that a killed process truncates the last line at most."""
    data = encoded(line + "\n")
    try:
        with open(path, "ab", buffering=0) as file:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, "written in part")
    except OSError as error:
        cannot_write(path, error)
