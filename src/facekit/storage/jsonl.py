"""JSON Lines files: one object per line."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ..errors import InputError
from ..runtime import strict_json
from ..runtime.printable import escaped
from . import content, files

Row = dict[str, Any]
LONGEST = 50_000_000  # bytes of a line


def read_lines(path: Path) -> Iterator[Row]:
    """Yield the objects of a file; a line that holds none, for example one truncated by a kill, is skipped.

    What is no plain file, such as a pipe, counts as missing. Raises InputError for a file that cannot be read.
    """
    with open_rows(path) as file:
        try:
            for _, row in rows_in(file):
                yield row
        except OSError as error:
            _cannot_read(path, error)


def open_rows(path: Path) -> BinaryIO:
    """Open a file for `rows_in`; what is missing or no plain file counts as empty, as for `read_lines`."""
    try:
        return io.BytesIO() if os.path.lexists(path) and not path.is_file() else content.open_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return io.BytesIO()
    except OSError as error:
        _cannot_read(path, error)


def rows_in(file: BinaryIO) -> Iterator[tuple[int, Row]]:
    """Yield the objects of an open file, each with the place in bytes where its line begins."""
    place = 0
    while line := file.readline(LONGEST):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line.decode("utf-8", "replace"))
            if isinstance(row, dict):
                yield place, row
        place += len(line)


def _cannot_read(path: Path, error: OSError) -> NoReturn:
    raise InputError(f"cannot read {path}: {error.strerror}", "change its permissions") from error


def line(row: Row) -> str:
    """Return an object as one line, without its newline; control characters in it are written as escapes."""
    return escaped(strict_json.dumps(row, ensure_ascii=False))


def append(path: Path, rows: Iterable[Row]) -> None:
    """Append objects with a single write; raises OutputError if that fails."""
    files.append_line(path, "\n".join(map(line, rows)))


def write(path: Path, rows: Iterable[Row]) -> None:
    """Replace a file with these objects, atomically; raises OutputError if that fails."""
    with files.replacing(path) as part, open(part, "wb") as file:
        for row in rows:
            file.write(files.encoded(line(row) + "\n"))


def holds(path: Path, rows: Iterable[Row]) -> bool:
    """Whether a file holds these objects, byte for byte as `write` writes them, and nothing else."""
    try:
        with open(path, "rb") as file:
            same = all(file.readline() == files.encoded(line(row) + "\n") for row in rows)
            return same and not file.read(1)
    except OSError:
        return False


def drop_cut_line(path: Path) -> None:
    """Remove an incomplete last line, which a killed process may have left."""
    try:
        with open(path, "rb+") as file:
            end = file.seek(0, os.SEEK_END)
            whole = end
            while whole:
                start = max(0, whole - 65536)
                file.seek(start)
                found = file.read(whole - start).rfind(b"\n")
                whole = start + found + 1 if found >= 0 else start
                if found >= 0:
                    break
            if whole < end:
                file.truncate(whole)
    except FileNotFoundError:
        pass
    except OSError as error:
        files.cannot_write(path, error)
