"""`clean --apply`: copy the kept images to a new folder, or move the rejected ones out of the old one."""

from __future__ import annotations

import filecmp
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtime import console
from ..storage import files, jsonl, provenance
from ..storage.entries import Entries
from ..storage.folder import MANIFEST, Source, is_inside
from ..storage.folder_map import folder_map
from ..storage.manifest import Output
from .findings import SHARES, Findings, Judged

MOVING = "moving.jsonl"  # in the folder of what was rejected, while images move there
OWN = ("file", "source", "source_bytes", "source_mtime")


def kept_names(images: Findings) -> dict[str, str]:
    """Return the kept images by their names, each with its name in the new folder."""
    sources, names = images.table.sources, {}
    for place in np.flatnonzero(images.kept).tolist():
        name, share = sources[place].name, images.share.item(place)
        names[name] = f"{SHARES[share]}/{name}" if share >= 0 else name
    return names


def copy_kept(
    found: Sequence[Source],
    names: dict[str, str],
    out: Path,
    given: dict[str, Any],
    entries: Entries,
    unreadable: Sequence[str],
    force: bool,
    figures: dict[str, Any],
) -> None:
    """Copy images of `found` to their `names` in `out` with their manifest entries; earlier copies of others go.

    Copies of images in `unreadable` sub-folders stay. `figures` go into the card. Raises CardError if `out` holds
    another run, or files that facekit did not create.
    """
    if not names:
        raise InputError(
            "nothing is worth keeping", "look at the report; --keep, --min-size and --max-blur keep more images"
        )

    def copy(source: Source) -> list[Output]:
        said = entries.get(source.name)
        entry = {"origin": said["source"]} if "source" in said else {}  # `source` is the image in IN
        entry |= {key: value for key, value in said.items() if key not in OWN}
        return [Output(names[source.name], source.read_bytes(), entry)]

    folder_map(
        "clean",
        [source for source in found if source.name in names],
        out,
        {"facekit": 1, "command": "clean", "options": given},
        copy,
        names=names,
        workers=2,
        force=force,
        mirror=lambda name: not name.startswith(tuple(unreadable)),
        made=lambda: {**provenance.collect("imagehash", "scikit-image", "pillow"), **figures},
    )


def move_rejected(images: Findings, source: Path, place: Path, entries: Entries) -> None:
    """Move the rejected images from `source` to `place`, and record there the reasons and their manifest entries.

    The moves are listed in `moving.jsonl` before the first one; the file is removed after the last one. So
    `finish_moves` can complete them after a kill.
    """
    if not images.kept.all():
        rejected = (images.image(number) for number in np.flatnonzero(~images.kept).tolist())
        jsonl.write(place / MOVING, _moves(rejected, place, entries))
        finish_moves(source, place)


def _moves(rejected: Iterable[Judged], place: Path, entries: Entries) -> Iterator[dict[str, Any]]:
    """Yield a line of the journal for each image: its name, and its line in the manifest of `place`."""
    taken: set[str] = set()
    for one in rejected:
        target = place / one.source.name
        while str(target) in taken or target.exists():
            target = target.with_name(f"{target.stem}_{target.suffix}")
        taken.add(str(target))
        row: dict[str, Any] = {
            "file": target.relative_to(place).as_posix(),
            "from": str(one.source.path),
            "reasons": one.reasons,
        }
        row |= {"better": one.better, "entry": entries.get(one.source.name)}
        yield {"name": one.source.name, "row": {k: v for k, v in row.items() if v}}


def finish_moves(source: Path, place: Path) -> None:
    """Finish the moves that are recorded in `place`, if any; moves already done are skipped."""
    journal = place / MOVING
    if not journal.exists():
        return
    old = {_mark(row) for row in jsonl.read_lines(place / MANIFEST)}
    moved = (row for row in _moved(source, place) if _mark(row) not in old)
    jsonl.write(place / MANIFEST, itertools.chain(jsonl.read_lines(place / MANIFEST), moved))
    files.remove(journal)


def _moved(source: Path, place: Path) -> Iterator[dict[str, Any]]:
    """Make the moves of the journal that are still to be made; yields the row of each image that has moved."""
    for step in jsonl.read_lines(place / MOVING):
        name, row = step.get("name"), step.get("row")
        if not is_inside(name) or not isinstance(row, dict) or not is_inside(row.get("file")):
            continue
        here, target = source / str(name), place / row["file"]
        if here.is_symlink() or here.exists():
            if not target.exists():
                files.move(here, target)
            elif filecmp.cmp(here, target, shallow=False):  # copied to another device, and killed
                files.remove(here)
            else:
                console.warn(f"clean: {here} stays: {target} already exists")
                continue
        if target.is_symlink() or target.exists():
            yield row


def _mark(row: dict[str, Any]) -> bytes:
    """Return a digest of a row of the manifest: a million rows take too much memory."""
    return hashlib.blake2b(files.encoded(jsonl.line(row)), digest_size=16).digest()
