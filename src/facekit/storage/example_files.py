"""The example files that come with facekit."""

from __future__ import annotations

from pathlib import Path

from ..errors import MissingError
from . import files, lock

PACKAGE = Path(__file__).parents[1]
HIDDEN = ("__pycache__", ".pyc")


def folder() -> Path:
    """Return the folder of the examples: inside the installed package, or at the top of a checkout.

    Raises MissingError if there is neither.
    """
    for place in (PACKAGE / "examples", PACKAGE.parents[1] / "examples"):
        if (place / "cards").is_dir():
            return place
    raise MissingError("this installation has no examples", "reinstall facekit-anime")


def names() -> list[str]:
    """Return the sorted names of the examples, relative to their folder, with forward slashes."""
    here = folder()
    paths = (path.relative_to(here) for path in here.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(mark in path.as_posix() for mark in HIDDEN))


def write(out: Path, force: bool = False) -> tuple[list[str], list[str]]:
    """Copy the examples to `out`; return the names of those written, and of existing ones that differ and were kept.

    `force` overwrites files that differ. Raises OutputError if the folder cannot be written.
    """
    here, written, kept = folder(), [], []
    with lock.held(out, "examples"):
        for place in {(out / name).parent for name in names()}:
            files.sweep(place, ours=False)
        for name in names():
            data, target = (here / name).read_bytes(), out / name
            if target.exists() and not force and (not target.is_file() or target.read_bytes() != data):
                kept.append(name)
                continue
            files.write_bytes(target, data)
            written.append(name)
    return written, kept
