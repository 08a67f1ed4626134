"""Which run an output folder belongs to: new, unfinished or finished, by the card in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import CardError
from . import card, files, provenance

HOW = ("recompute", "graphs", "threads")
"""Keys of `run` that choose how a step is computed and leave its result as it is: a run may resume with others."""

State = Literal["new", "unfinished", "finished"]


def take(
    folder: Path,
    values: Mapping[str, Any],
    name: str = card.NAME,
    force: bool = False,
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> State:
    """Say whether the run of card `values` into `folder` is new, unfinished or finished; note a new one there.

    `name` is the file that a finished run leaves. `complete` adds to an older training card what it does not say yet,
    before the two are compared. Raises CardError with the differences where another run holds the folder, unless
    `force` gives the folder to this one.
    """
    done, begun = folder / name, folder / name.replace(card.NAME, card.UNFINISHED)
    for path, state in ((done, "finished"), (begun, "unfinished")):
        if not force and path.exists():
            changed = differences(card.load(path), values, complete)
            if changed:
                raise CardError(
                    f"{folder} holds a run of another card: " + "; ".join(changed),
                    "choose another output folder, or --force to replace this one",
                )
            if state == "finished":  # killed right after its last file
                files.remove(begun)
            return state  # type: ignore[return-value]
    files.make_folder(folder)
    files.write_text(begun, card.dump(values))
    files.remove(done)
    return "new"


def differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> list[str]:
    """List the fields in which two runs differ, as `key: old -> new`; `complete` is that of `take`."""
    return card.differences(_completed(old, complete), _completed(new, complete))


def _completed(
    values: Mapping[str, Any], complete: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Return a training card with the fields that are newer than it, at the defaults that it was trained with."""
    if values.get("command") != "train":
        return values
    with contextlib.suppress(CardError):  # then the differences say what is wrong
        values = complete(card.plain(card.validate(card.TrainCard, values, "card")))
    run = values.get("run")
    return {**values, "run": {k: v for k, v in run.items() if k not in HOW}} if isinstance(run, Mapping) else values


def finish(folder: Path, values: Mapping[str, Any], made: Mapping[str, Any], name: str = card.NAME) -> None:
    """Write the card of a finished run, last of all its outputs; its start is when `take` noted the run."""
    begun = folder / name.replace(card.NAME, card.UNFINISHED)
    start = begun.stat().st_mtime if begun.exists() else None
    happened = {**made, "start": provenance.moment(start), "end": provenance.moment()}
    files.write_text(folder / name, card.dump({**values, "made": happened}))
    files.remove(begun)


def reopen(folder: Path) -> None:
    """Mark a finished run as unfinished: there is more to do."""
    with contextlib.suppress(FileNotFoundError):  # another shard did
        (folder / card.NAME).replace(folder / card.UNFINISHED)
    (folder / card.UNFINISHED).touch()
