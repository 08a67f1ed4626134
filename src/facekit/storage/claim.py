"""Which run an output folder belongs to, and whether that run is new, unfinished or finished; its card says so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import CardError
from ..runtime.stand_ins import told
from . import card, files, provenance

HOW = (
    "recompute",
    "graphs",
    "threads",
    "validate_every",
    "validate_by",
    "validate_features",
    "keep_best",
    "patience",
)
"""Keys of `run` that do not change the result of a step: a run may resume with other values."""

State = Literal["new", "unfinished", "finished"]


def cards_of(folder: Path, name: str = card.NAME) -> tuple[Path, Path]:
    """Return where the card of a finished run is, and that of an unfinished one."""
    return folder / name, folder / name.replace(card.NAME, card.UNFINISHED)


def take(
    folder: Path,
    values: Mapping[str, Any],
    name: str = card.NAME,
    force: bool = False,
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> State:
    """Return whether the run of card `values` in `folder` is new, unfinished or finished; a new run is recorded there.

    `name` is the card file that a finished run leaves. `complete` fills fields that an older training card lacks,
    before the two cards are compared. With `force` the folder is taken from any other run. Raises CardError with the
    differences if another run holds the folder.
    """
    values, (finished, unfinished) = told(values), cards_of(folder, name)
    for path, state in ((finished, "finished"), (unfinished, "unfinished")):
        if not force and path.exists():
            changed = differences(card.load(path), values, complete)
            if changed:
                raise CardError(
                    f"{folder} holds a run of another card: " + "; ".join(changed),
                    "choose another output folder, or --force to replace this one",
                )
            if state == "finished":  # a run that was killed right after its last file has both cards
                files.remove(unfinished)
            return state  # type: ignore[return-value]
    files.make_folder(folder)
    files.write_text(unfinished, card.dump(values))
    files.remove(finished)
    return "new"


def is_complete(out: Path, values: Mapping[str, Any], name: str) -> bool:
    """Whether the output `out`, with its card `name` beside it, is what the run of card `values` would write.

    Removes what a killed run left of the card. Raises CardError where it is another run's, of an input that has changed
    since, or somebody else's.
    """
    cards = cards_of(out.parent, name)
    try:
        for path in cards:
            files.sweep_beside(path)
        found = next((path for path in cards if path.exists()), None)
        there = os.path.lexists(out)
    except OSError as error:  # a name that is too long
        files.cannot_write(out, error)
    if not there:
        return False
    if found is None:
        raise CardError(f"{out} already exists and was not created by facekit", "choose another name, or --force")
    changed = differences(card.load(found), values)
    if changed:
        raise CardError(
            f"{out} is of another run: {'; '.join(changed)}", "choose another name, or --force to replace this one"
        )
    if found == cards[0]:  # killed right after its last file
        files.remove(cards[1])
    return found == cards[0]


def differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> list[str]:
    """List the fields in which two runs differ, as `key: old -> new`; for `complete` see `take`."""
    return card.differences(_completed(old, complete), _completed(new, complete))


def _completed(
    values: Mapping[str, Any], complete: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Return an older training card with the newer fields added, at the defaults that it was trained with."""
    if values.get("command") != "train":
        return values
    with contextlib.suppress(CardError):  # an invalid card shows up in the differences
        values = complete(card.plain(card.validate(card.TrainCard, values, "card")))
    run = values.get("run")
    return {**values, "run": {k: v for k, v in run.items() if k not in HOW}} if isinstance(run, Mapping) else values


def finish(folder: Path, values: Mapping[str, Any], made: Mapping[str, Any], name: str = card.NAME) -> None:
    """Write the card of a finished run with its results `made`; call it after all other outputs are written.

    The run's start time is when `take` recorded the run.
    """
    _, unfinished = cards_of(folder, name)
    start = unfinished.stat().st_mtime if unfinished.exists() else None
    results = {**made, "start": provenance.moment(start), "end": provenance.moment()}
    files.write_text(folder / name, card.dump(told({**values, "made": results})))
    files.remove(unfinished)


def reopen(folder: Path) -> None:
    """Mark a finished run as unfinished, because there is more to do."""
    with contextlib.suppress(FileNotFoundError):  # another shard was faster
        (folder / card.NAME).replace(folder / card.UNFINISHED)
    (folder / card.UNFINISHED).touch()
