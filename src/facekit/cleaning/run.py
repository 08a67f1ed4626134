"""A run of `clean`: measure, judge and report the images and, with `--apply`, sort them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CardError, InputError, SomeFailed
from ..runtime import console
from ..runtime.cores import usable_cores
from ..runtime.engine import LOCAL, Engine
from ..runtime.stand_ins import told
from ..storage import content, files, jsonl, lock
from ..storage.card import suggest
from ..storage.entries import Entries
from ..storage.folder import Source, open_source
from ..storage.remote import is_remote
from . import report
from .findings import SHARES, Findings, Judged, judge, share_out
from .measures import measure_all
from .quality import BIT, COPIES, FAULTS, Limits
from .sorting import copy_kept, finish_moves, kept_names, move_rejected

PAGE, FINDINGS, MEASURES, REJECTED = "report.html", "findings.jsonl", "measures.jsonl", "rejected"

NOTED = ("kept", "rejected", "reasons", "groups", "split")  # figures that go into the card of OUT


@dataclass(frozen=True)
class Cleaning:
    """The settings of a run of `clean`; see the command's flags."""

    source: Path
    out: Path | None
    apply: bool
    report: Path | None
    split: str | None
    keep: Sequence[str]
    distance: int
    colour: float
    min_size: int
    max_blur: float
    seed: int | None
    limit: int | None

    @property
    def place(self) -> Path:
        """The folder of the report and its data files."""
        home = files.real(self.source)
        if not self.report and not self.out and is_remote(home):
            raise CardError(f"the report of {home} needs a folder", "give OUT, or --report DIR")
        return self.report or self.out or home.with_name(f"{home.name}-clean")

    @property
    def options(self) -> dict[str, Any]:
        """The settings as card values."""
        values: dict[str, Any] = {**vars(self), "keep": sorted(set(self.keep))}
        return {k: told(str(v)) if isinstance(v, Path) else v for k, v in values.items() if v not in (None, [])}

    def weights(self) -> list[int]:
        """Return the shares of `split`; raises CardError where it is none, or there is no folder to split into."""
        if self.split is None:
            return []
        try:
            weights = [int(part) for part in self.split.split(":")]
        except ValueError:
            weights = []
        if len(weights) != 3 or min(weights) < 0 or not sum(weights):
            raise CardError(
                f"--split {self.split!r} is not three whole numbers", "for example --split 8:1:1 (train, val, test)"
            )
        if self.apply and not self.out:
            raise CardError(
                "--split needs a folder for its shares", "give OUT: facekit clean IN OUT --split 8:1:1 --apply"
            )
        return weights

    def spared(self) -> set[str]:
        """Return the reasons of `keep`; raises CardError for one that does not exist."""
        known = [*(name for name in FAULTS if name != "unreadable"), *COPIES]
        for name in self.keep:
            if name not in known:
                raise CardError(
                    f"--keep {name!r} is not a reason{suggest(name, known)}", f"reasons: {', '.join(known)}"
                )
        return set(self.keep)

    def images(self) -> tuple[list[Source], list[str]]:
        """Return the images to judge and the sub-folders that cannot be read; raises InputError where no image is."""
        if content.is_file(self.source):
            raise CardError(f"{self.source} is a file", "give a folder of images")
        found = open_source(self.source, self.out)
        images = [image for image in found if not image.name.endswith("/")]
        if self.apply and not self.out and not all(os.path.lexists(image.path) for image in images):
            raise CardError(
                f"the images of {self.source} are packed or behind a URL and cannot be moved",
                "give OUT: what is kept is copied there",
            )
        if not images:
            raise InputError(f"no image in {self.source} can be read", "change the permissions of its sub-folders")
        return images[: self.limit], [folder.name for folder in found if folder.name.endswith("/")]


def clean_folder(
    cleaning: Cleaning, workers: int | None = None, force: bool = False, engine: Engine = LOCAL
) -> dict[str, Any]:
    """Report on the images of a folder and, with `apply`, sort them; returns the figures.

    The images are measured by `engine`, all else is done by this process. Raises SomeFailed at the end where a
    sub-folder could not be read.
    """
    found, unreadable = cleaning.images()
    weights, spared = cleaning.weights(), cleaning.spared()
    source, place = cleaning.source, cleaning.place
    if not force:
        _refuse_foreign(place)
    with lock.held(place, "clean"):
        files.sweep(place, ours=False)
        if cleaning.apply and not cleaning.out and (place / REJECTED).is_dir():
            files.sweep(place / REJECTED)
            finish_moves(source, place / REJECTED)
            found, unreadable = cleaning.images()
        table = measure_all(found, place / MEASURES, engine.workers(workers, len(found)), force, engine)
        limits = Limits(size=cleaning.min_size, blur=cleaning.max_blur)
        images = judge(table, limits, cleaning.distance, cleaning.colour, spared)
        if weights:
            share_out(images, weights, cleaning.seed or 0)
        figures = summarise(images)
        sorted_before = cleaning.apply and not cleaning.out and not figures["rejected"] and (place / REJECTED).is_dir()
        if sorted_before:
            console.note(f"clean: nothing to do, what was rejected of {source} is in {place / REJECTED}")
        else:
            _write_report(cleaning, images, figures, min(workers or usable_cores(), len(found)))
        figures |= {"report": str(place / PAGE), "findings": str(place / FINDINGS)}
        console.result(describe(figures, source, cleaning.apply), **figures)
        if cleaning.apply:
            with contextlib.closing(Entries(source, found)) as entries:
                if cleaning.out:
                    names, noted = kept_names(images), {key: figures[key] for key in NOTED if key in figures}
                    del table, images  # copying takes memory, too
                    copy_kept(found, names, cleaning.out, cleaning.options, entries, unreadable, force, noted)
                else:
                    move_rejected(images, source, place / REJECTED, entries)
    if unreadable:
        raise SomeFailed(
            f"clean: {len(unreadable)} sub-folders of {source} cannot be read: {', '.join(unreadable[:3])}",
            "change their permissions, then run the same command again",
        )
    return figures


def _refuse_foreign(place: Path) -> None:
    """Raise CardError where the folder of the report holds files of its names that no run of `clean` has written."""
    ours = any("format" in row and "file" in row for row in jsonl.read_lines(place / MEASURES))
    for name in () if ours else (PAGE, FINDINGS, MEASURES):
        path = place / name
        if os.path.lexists(path) and not (name == MEASURES and path.is_file() and path.stat().st_size == 0):
            raise CardError(
                f"{path} already exists and was not created by facekit",
                "choose another folder with --report, or --force to replace it",
            )


def _write_report(cleaning: Cleaning, images: Findings, figures: dict[str, Any], workers: int) -> None:
    """Write the page, then the findings, if they have changed."""
    page, findings = cleaning.place / PAGE, cleaning.place / FINDINGS
    if page.exists() and jsonl.holds(findings, map(as_row, images)):
        return
    files.write_text(page, report.page(str(cleaning.source), images, figures, cleaning.options, workers))
    jsonl.write(findings, map(as_row, images))


def summarise(images: Findings) -> dict[str, Any]:
    """Return the figures of a run; an image with several reasons counts under each."""
    count, kept = len(images.kept), int(images.kept.sum())
    figures: dict[str, Any] = {"images": count, "kept": kept, "rejected": count - kept, "reasons": reasons_of(images)}
    figures |= {"groups": images.group_count, "pairs": count * (count - 1) // 2, "pairs_compared": images.compared}
    shares = np.bincount(images.share[images.share >= 0], minlength=len(SHARES)).tolist()
    return figures | ({"split": dict(zip(SHARES, shares, strict=True))} if any(shares) else {})


def reasons_of(images: Findings) -> dict[str, int]:
    """Return how many images each reason has, the most frequent first, of equal ones the one that is seen first."""
    places = {name: np.flatnonzero(images.reasons & bit) for name, bit in BIT.items()}
    seen = [name for name, some in places.items() if len(some)]
    return {name: len(places[name]) for name in sorted(seen, key=lambda name: (-len(places[name]), places[name][0]))}


def describe(figures: dict[str, Any], source: Path, apply: bool) -> str:
    """Return the result for people."""
    lines = [f"{figures['kept']} of {figures['images']} images of {source} are worth keeping"]
    width = max((len(name) for name in figures["reasons"]), default=0)
    lines += [f"  {name:{width}}  {count}" for name, count in figures["reasons"].items()]
    compared = f"{figures['pairs_compared']:,} of {figures['pairs']:,} pairs compared"
    lines.append(f"{figures['groups']} groups of similar images ({compared})")
    if "split" in figures:
        lines.append("  ".join(f"{name} {count}" for name, count in figures["split"].items()))
    lines.append(f"look at {figures['report']}" + ("" if apply else ", then run the same command with --apply"))
    return "\n".join(lines)


def as_row(one: Judged) -> dict[str, Any]:
    """Return an image's line of findings.jsonl."""
    shown = ("file", "width", "height", "bytes", "blur", "chroma", "spread", "problem")
    row: dict[str, Any] = {k: one.row[k] for k in shown if k in one.row}
    more = {"group": one.group, "better": one.better, "bits": one.bits, "share": one.share}
    return row | {"kept": one.kept, "reasons": one.reasons, **{k: v for k, v in more.items() if v is not None}}
