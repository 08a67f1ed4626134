"""Images of two folders that belong together by name, read in batches, and what is measured of each pair."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..runtime import console
from ..storage import images
from ..storage.folder import Folder, Source, output_names
from ..storage.listing import composed
from . import bootstrap

BATCH = 16


class Table:
    """Measures of pairs: a row per pair, the name of its second image, and a column per measure, NaN for none."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.columns: dict[str, array[float]] = {}

    def add(self, row: str, values: Mapping[str, float]) -> None:
        """Append a row; raises InputError for a value that is not finite."""
        if not np.isfinite(list(values.values())).all():
            raise InputError(f"the measures of {row} are not finite", "are the weights of a net damaged?")
        for name in values.keys() - self.columns.keys():
            self.columns[name] = array("d", [np.nan]) * len(self.rows)
        for name, column in self.columns.items():
            column.append(values.get(name, np.nan))
        self.rows.append(row)

    def seen(self, name: str) -> np.ndarray:
        """Return the values of a column that there are."""
        found = np.asarray(self.columns[name])
        return found[~np.isnan(found)]

    def intervals(self, resamples: int, seed: int) -> dict[str, float]:
        """Return the 95 % intervals of the columns' means over pairs, as "NAME low" and "NAME high"."""
        parts = [bootstrap.named(name, self.seen(name), resamples, seed) for name in sorted(self.columns)]
        return {name: value for part in parts for name, value in part.items()}


Batch = tuple[list[Image.Image], list[Image.Image], list[str]]
Pair = tuple[Source, Source]


def pairs(first: str | Path, out: str | Path, next_step: str) -> list[Pair]:
    """Return the images of two folders that belong together: same name and sub-folder, whatever the file type.

    `a.jpg` beside `a.png` in `first` pair with the `a_jpg` and `a_png` that `translate` makes of them. Prints a
    warning for images of `out` without a partner; raises InputError, with `next_step`, if no image has one.
    """
    befores, afters = _by_stem(Folder(first).sources()), {_stem(s): s for s in Folder(out).sources()}
    both = [name for name in afters if name in befores]
    if not both:
        raise InputError(f"no image in {out} has the name of one in {first}", next_step)
    if len(both) < len(afters):
        console.warn(f"{len(afters) - len(both)} of {len(afters)} images in {out} have no partner in {first}")
    return [(befores[name], afters[name]) for name in sorted(both)]


def batches(found: list[Pair]) -> Iterator[Batch]:
    """Yield pairs that can be read, up to BATCH at a time, as two lists with the names of the second images.

    Prints a warning for the others.
    """
    for start in range(0, len(found), BATCH):
        firsts, seconds, names = [], [], []
        for first, second in found[start : start + BATCH]:
            try:
                pair = images.read(first.path), images.read(second.path)
            except InputError as error:
                console.warn(f"skipped: {error.message}")
                continue
            firsts.append(pair[0])
            seconds.append(pair[1])
            names.append(second.name)
        if firsts:
            yield firsts, seconds, names


def _stem(source: Source) -> str:
    return composed(source.name.rpartition(".")[0])


def _by_stem(sources: Sequence[Source]) -> dict[str, Source]:
    names = output_names(sources, "")
    return {composed(names[source.name]): source for source in sources}
