"""A page that shows the same face by two methods without their names, and what the votes cast on it say."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CardError, InputError
from ..reports import html
from ..runtime import console
from ..storage import card, claim, files, images, lock, provenance
from ..storage.folder import Folder
from ..storage.listing import composed
from .bradley_terry import Choice, Strength, strengths

PAGE, KEY = "index.html", "key.json"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
CHOICES = ("left", "right", "same")


@dataclass(frozen=True)
class Trial:
    """Two pictures of one face: `left` and `right` are numbers of folders."""

    id: str
    face: str
    left: int
    right: int


def faces_in_all(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the images that every folder has, by name without its ending; raises InputError where there are none."""
    found: list[dict[str, Path]] = []
    for folder in folders:
        sources = Folder(folder).sources()
        found.append({composed(str(Path(source.name).with_suffix(""))): source.path for source in sources})
    found = [{name: path for name, path in one.items() if _is_readable(path)} for one in found]
    names = sorted(set.intersection(*(set(one) for one in found)))
    if not names:
        raise InputError(
            "the folders have no image name in common", "translate the same photos into each of the folders"
        )
    missing = max(len(one) for one in found) - len(names)
    if missing:
        console.warn(f"compare: {missing} images are not in every folder and are left out")
    return {name: [one[name] for one in found] for name in names}


def _is_readable(path: Path) -> bool:
    try:
        images.size_of(path)
    except InputError as error:
        console.warn(f"compare: {error.message}; left out")
        return False
    return True


def plan_trials(faces: Sequence[str], count: int, seed: int) -> list[Trial]:
    """Return every pair of folders for every face, in random order, sides drawn at random.

    All faces come once before one comes twice, so that a voter who stops early has seen as many as possible.
    """
    order = random.Random(seed)
    rounds: list[list[Trial]] = [[] for _ in range(count * (count - 1) // 2)]
    for face in faces:
        pairs = list(itertools.combinations(range(count), 2))
        order.shuffle(pairs)
        for round_, pair in zip(rounds, pairs, strict=True):
            left, right = order.sample(pair, 2)
            digest = hashlib.sha256(f"{seed} {face} {left} {right}".encode()).hexdigest()
            round_.append(Trial(digest[:12], face, left, right))
    for round_ in rounds:
        order.shuffle(round_)
    return [trial for round_ in rounds for trial in round_]


def make_page(
    folders: Sequence[Path], page: Path, source: Path | None, size: int, seed: int, force: bool
) -> list[Trial]:
    """Write the page with copies of the images, under names that say nothing, and the key to its votes.

    Raises CardError for fewer than two folders or two of one name, and where `page` holds something else.
    """
    if len(folders) < 2:
        raise CardError("one folder cannot be compared", "give two or more")
    if len({files.real(folder) for folder in folders}) < len(folders):
        raise CardError("a folder is given twice", "leave one out")
    for folder in [*folders, *([source] if source else [])]:
        if files.real(page) == files.real(folder):
            raise CardError(f"{page} holds images to compare", "choose another --page")
    names = _names(folders)
    faces = faces_in_all([*folders, source] if source else folders)
    trials = plan_trials([*faces], len(folders), seed)
    options: dict[str, Any] = {"folders": [str(folder) for folder in folders], "size": size, "seed": seed}
    options |= {"source": str(source)} if source else {}
    values = {"facekit": 1, "command": "compare", "options": options}
    with lock.held(page, "facekit compare"):
        ours = any((page / name).exists() for name in (card.NAME, card.UNFINISHED))
        foreign = [page / name for name in (PAGE, KEY) if os.path.lexists(page / name)]
        if foreign and not ours and not force:
            raise CardError(
                f"{foreign[0]} already exists and was not created by facekit", "choose another --page, or --force"
            )
        files.sweep(page, ours=False)
        files.sweep(page / "images", ours=False)
        if claim.take(page, values, force=force) == "finished":
            console.note(f"compare: nothing to do, {page} is complete (--force writes it again)")
            return trials
        shown = []
        with console.progress("compare", len(trials)) as bar:
            for trial in trials:
                chosen = {"left": trial.left, "right": trial.right, **({"source": -1} if source else {})}
                row = {"id": trial.id}
                for side, number in chosen.items():
                    row[side] = f"images/{trial.id}-{side}.png"
                    picture = images.read(faces[trial.face][number])
                    picture.thumbnail((size, size))
                    images.save(picture, page / row[side])
                shown.append(row)
                bar.advance(1)
        html.write(page / PAGE, "compare.html", title="Which is better?", trials=shown, page_id=card.digest(values))
        key = {"folders": names, "trials": {t.id: {"face": t.face, "left": t.left, "right": t.right} for t in trials}}
        files.write_text(page / KEY, json.dumps(key, indent=1) + "\n")
        claim.finish(page, values, {**provenance.collect(), "trials": len(trials)})
    return trials


def _names(folders: Sequence[Path]) -> list[str]:
    """Return a short name for each folder, longer where two have the same."""
    short = [files.real(folder).name for folder in folders]
    return short if len({*short}) == len(short) else [str(folder) for folder in folders]


def read_votes(page: Path, votes: Sequence[Path]) -> tuple[list[str], list[Choice]]:
    """Return the folders' names and the choices of all votes files.

    A later vote of the same file on a pair replaces the earlier one. Raises InputError for a page without its key, and
    for a file that holds no votes on this page.
    """
    try:
        key = json.loads((page / KEY).read_text(encoding="utf-8"))
        names, trials = list(key["folders"]), dict(key["trials"])
        for trial in trials.values():
            _ = str(trial["face"]), names[trial["left"]], names[trial["right"]]
    except UNREADABLE as error:
        raise InputError(f"{page} holds no key to votes", "give the folder that `compare --page` wrote") from error
    found = []
    for path in votes:
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["votes"]
            last = {str(row["id"]): str(row["choice"]) for row in rows}
        except UNREADABLE as error:
            raise InputError(f"{path} is not a file of votes", "save it on the page: Export votes") from error
        known = {id_: choice for id_, choice in last.items() if id_ in trials and choice in CHOICES}
        if not known:
            raise InputError(f"{path} has no vote on a pair of {page}", "give the page that the votes were cast on")
        if len(known) < len(last):
            console.warn(f"{path}: {len(last) - len(known)} votes are on other pairs and are left out")
        for id_, choice in known.items():
            trial = trials[id_]
            sides = (trial["right"], trial["left"]) if choice == "right" else (trial["left"], trial["right"])
            found.append(Choice(str(trial["face"]), *sides, tie=choice == "same"))
    return names, found


def table(names: Sequence[str], found: Sequence[Strength]) -> str:
    """Return the strengths as lines of text, the best first."""
    width = max(len("folder"), *(len(name) for name in names))
    lines = [f"{'folder':{width}}  share of wins  95 % interval  votes"]
    for name, row in sorted(zip(names, found, strict=True), key=lambda pair: -pair[1].share):
        lines.append(f"{name:{width}}  {row.share:13.2f}  {f'{row.low:.2f} to {row.high:.2f}':>13}  {row.votes:5}")
    return "\n".join(lines)


def count_votes(page: Path, votes: Sequence[Path]) -> tuple[list[str], list[Strength]]:
    """Return the folders' names and their strengths; see `read_votes`."""
    names, choices = read_votes(page, votes)
    return names, strengths(choices, len(names))
