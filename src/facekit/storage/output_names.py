"""Which files of an output in a store are texts that change, which are hidden, and what may be an output there."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import CardError
from . import packed, remote
from .folder import is_inside
from .record_parts import FOLDER

FETCHED = (".yaml", ".jsonl", ".json", ".txt", ".csv", packed.INDEX)  # what commands read of their own output
LATE = (*FETCHED, ".html")  # what changes as long as a command works
HIDDEN = (".crawl.sqlite",)  # the hidden files that are output, too: they go up at the end, after all that they name
LOGS = ("-wal", "-shm")  # of SQLite, beside a file that is open
MANIFESTS = "manifest*.jsonl"
SHEET = "-sheet.png"  # contact sheets lie beside a folder
STATE = "state.pt"  # of a run of training: it counts with the log up to it


def records_in(folder: Path) -> list[Path]:
    """Return the hidden files in a folder that are output, the record of a command."""
    return [folder / name for name in HIDDEN if (folder / name).exists()]


def logs_in(folder: Path) -> list[Path]:
    """Return where SQLite keeps what is not in its file yet; the files are there if it is open, or was killed."""
    return [folder / f"{name}{log}" for name in HIDDEN for log in LOGS]


def place_of(url: Path) -> tuple[Path, str]:
    """Return the URL that a folder lies in, and its name; raises CardError for a URL that is no folder in a bucket."""
    place, _, name = remote.address(url).rpartition("/")
    if place.endswith("/"):
        bucket = remote.address(url)
        raise CardError(f"{bucket} is a whole bucket", f"name a folder in it: {bucket}/NAME")
    if (mimetypes.guess_type(name)[0] or "").startswith(("image/", "video/")):
        raise CardError(f"{place}/{name} is one file", "name a folder: single files are written to a disk")
    return Path(place), name


def outputs_among(names: Iterable[str]) -> Iterator[str]:
    """Yield those of the names in an output that are output: no locks, other hidden files and parts of a record."""
    for name in names:
        shown = name in HIDDEN or name.rpartition("/")[2][0] != "."
        if is_inside(name) and shown and not name.startswith(f"{FOLDER}/"):
            yield name
