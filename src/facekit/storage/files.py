"""Files that are either there whole or not at all."""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ..errors import OutputError
from .remote import is_remote

PART = (".facekit-", ".part")  # how the names of temporary files begin and end

REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again: finished work is kept"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EROFS: ("the place is read-only", "choose another output folder"),
    errno.EACCES: ("no permission to write", "choose another output folder, or change its permissions"),
    errno.EPERM: ("no permission to write", "choose another output folder, or change its permissions"),
    errno.ENOTDIR: ("a part of the path is a file", "choose another output folder"),
    errno.EEXIST: ("a file is where a folder should be", "choose another output folder"),
    errno.ENAMETOOLONG: ("the name is too long", "shorten it"),
}


def cannot_write(path: Path, error: OSError) -> NoReturn:
    """Raise OutputError for an OSError met while writing `path`."""
    reason, hint = REASONS.get(error.errno or 0, (str(error), "choose another output folder"))
    raise OutputError(f"cannot write {path}: {reason}", hint) from error


def make_folder(path: Path) -> Path:
    """Make a folder with its parents; raises OutputError where that cannot be."""
    if is_remote(path):
        raise OutputError(
            f"cannot write to {path}: outputs lie on a disk", "give a folder, and copy it when it is done"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cannot_write(path, error)
    return path


def temporary(folder: Path, path: Path | None = None) -> Path:
    """Make an empty file of a free temporary name in a folder, with the permissions of any new file.

    Raises OutputError, of `path` if given, where that cannot be.
    """
    part = folder / f"{PART[0]}{secrets.token_hex(8)}{PART[1]}"
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less the bits of the umask
    except OSError as error:
        cannot_write(path or folder, error)
    return part


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; it takes its real name when the block ends well.

    Raises OutputError where the place cannot be written.
    """
    make_folder(path.parent)
    part = temporary(path.parent, path)
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch.save raises one over the other
        if isinstance(cause, OSError):
            cannot_write(path, cause)
        raise


def sweep(folder: Path, ours: bool = True) -> None:
    """Remove the temporary files that a killed process left in a folder; no other process may be writing there.

    In a folder that is `ours` those of its sub-folders go too.
    """
    for part in folder.rglob(f".*{PART[1]}") if ours else folder.glob(f"{PART[0]}*{PART[1]}"):
        remove(part)


def remove(path: Path) -> None:
    """Remove a file if it is there; raises OutputError where that cannot be."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        cannot_write(path, error)


def move(path: Path, target: Path) -> None:
    """Move a file to a name that is free; raises OutputError where that cannot be.

    To another device it is copied first: the copy is on the disk, whole and under its name, before the original goes.
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
    with contextlib.suppress(OSError):  # not every file system takes times and modes
        shutil.copystat(path, target)
    remove(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file."""
    write_bytes(path, encoded(text))


def read_text(path: Path) -> str:
    """Return the text of a file: UTF-8, with or without its mark, or UTF-16 with it; line ends stay as they are.

    Raises OSError or UnicodeDecodeError where it cannot be read.
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
    """Return text as UTF-8; what is not (in file names) is escaped as JSON does it."""
    return text.encode("utf-8", "backslashreplace")


def digest(path: Path) -> str:
    """Return a short hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def append_line(path: Path, line: str) -> None:
    """Append one line with a single write, so that a killed process leaves at most one cut line, the last."""
    data = encoded(line + "\n")
    try:
        with open(path, "ab", buffering=0) as file:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, "written in part")
    except OSError as error:
        cannot_write(path, error)
