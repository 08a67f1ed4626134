"""`clean --apply`: copy the kept images to a new folder, or move the rejected ones out of the old one."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runtime import console
from ..storage import files, jsonl, provenance
from ..storage.folder import MANIFEST, Source, is_inside
from ..storage.folder_map import folder_map
from ..storage.manifest import Output
from .quality import Judged

MOVING = "moving.jsonl"  # in the folder of what was rejected, while images move there
OWN = ("file", "source", "source_bytes", "source_mtime")


def copy_kept(
    kept: Sequence[Judged],
    out: Path,
    given: dict[str, Any],
    entries: dict[str, dict[str, Any]],
    unreadable: Sequence[str],
    force: bool,
    figures: dict[str, Any],
) -> None:
    """Copy the kept images to `out` with their manifest entries, and remove earlier copies that are no longer kept.

    Copies of images in `unreadable` sub-folders stay. `figures` go into the card. Raises CardError if `out` holds
    another run, or files that facekit did not create.
    """
    if not kept:
        raise InputError(
            "nothing is worth keeping", "look at the report; --keep, --min-size and --max-blur keep more images"
        )
    names = {one.source.name: f"{one.share}/{one.source.name}" if one.share else one.source.name for one in kept}

    def copy(source: Source) -> list[Output]:
        said = entries.get(source.name, {})
        entry = {"origin": said["source"]} if "source" in said else {}  # `source` is the image in IN
        entry |= {key: value for key, value in said.items() if key not in OWN}
        return [Output(names[source.name], source.read_bytes(), entry)]

    folder_map(
        "clean",
        [one.source for one in kept],
        out,
        {"facekit": 1, "command": "clean", "options": given},
        copy,
        names=names,
        workers=2,
        force=force,
        mirror=lambda name: not name.startswith(tuple(unreadable)),
        made=lambda: {**provenance.collect("imagehash", "scikit-image", "pillow"), **figures},
    )


def move_rejected(rejected: Sequence[Judged], source: Path, place: Path, entries: dict[str, dict[str, Any]]) -> None:
    """Move the rejected images from `source` to `place`, and record there the reasons and their manifest entries.

    The moves are listed in `moving.jsonl` before the first one; the file is removed after the last one. So
    `finish_moves` can complete them after a kill.
    """
    taken: set[Path] = set()
    plan = []
    for one in rejected:
        target = place / one.source.name
        while target in taken or target.exists():
            target = target.with_name(f"{target.stem}_{target.suffix}")
        taken.add(target)
        row: dict[str, Any] = {
            "file": target.relative_to(place).as_posix(),
            "from": str(one.source.path),
            "reasons": one.reasons,
        }
        row |= {"better": one.better, "entry": entries.get(one.source.name)}
        plan.append({"name": one.source.name, "row": {k: v for k, v in row.items() if v}})
    if plan:
        jsonl.write(place / MOVING, plan)
        finish_moves(source, place)


def finish_moves(source: Path, place: Path) -> None:
    """Finish the moves that are recorded in `place`, if any; moves already done are skipped."""
    journal = place / MOVING
    if not journal.exists():
        return
    moved = []
    for step in jsonl.read_lines(journal):
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
            moved.append(row)
    old = list(jsonl.read_lines(place / MANIFEST))
    jsonl.write(place / MANIFEST, [*old, *(row for row in moved if row not in old)])
    files.remove(journal)
