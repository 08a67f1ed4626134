"""Images of two folders that belong together by name, read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ..errors import InputError
from ..runtime import console
from ..storage import images
from ..storage.folder import Folder, Source, output_names
from ..storage.listing import composed

BATCH = 16


def pairs(first: str | Path, out: str | Path, next_step: str) -> list[tuple[Path, Path]]:
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
    return [(befores[name].path, afters[name].path) for name in sorted(both)]


def batches(found: list[tuple[Path, Path]]) -> Iterator[tuple[list[Image.Image], list[Image.Image]]]:
    """Yield pairs that can be read, up to BATCH at a time, as two lists; prints a warning for the others."""
    for start in range(0, len(found), BATCH):
        firsts, seconds = [], []
        for first, second in found[start : start + BATCH]:
            try:
                pair = images.read(first), images.read(second)
            except InputError as error:
                console.warn(f"skipped: {error.message}")
                continue
            firsts.append(pair[0])
            seconds.append(pair[1])
        if firsts:
            yield firsts, seconds


def _stem(source: Source) -> str:
    return composed(source.name.rpartition(".")[0])


def _by_stem(sources: list[Source]) -> dict[str, Source]:
    names = output_names(sources, "")
    return {composed(names[source.name]): source for source in sources}
