"""What a folder_map does with its images, by this machine's pool or by a cluster's: read, work, encode."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import OutOfMemory
from ..runtime.workers import in_order
from . import files
from .folder import Source
from .manifest import Output, Stamp

T = TypeVar("T")
Group = list[tuple[Source, Any]]
Together = Callable[[Group], list[Any]]
Row = tuple[Source, Stamp, "list[Output] | Exception"]
"""A source, its stamp from before it was read, and its encoded images or why it failed."""


def done_together(
    pool: futures.Executor | None, piece: Piece, sources: Sequence[Source], ahead: int, encode: bool
) -> Iterator[Row]:
    """Yield each source in order: the pool reads, `piece.together` runs in this thread on a batch of results at a time.

    With `encode` the pool also encodes up to `ahead` of the images in advance.
    """
    read = in_order(pool, partial(_attempt, piece.work), sources, ahead)
    encoders = pool if piece.together and encode else None
    waiting: deque[tuple[Source, Stamp, futures.Future]] = deque()
    for group in _batches(read, piece.batch):
        results = _apply(piece.together, [(source, value) for source, (_, value) in group])
        for (source, (stamp, _)), result in zip(group, results, strict=True):
            if encoders is None:
                yield source, stamp, _guard(_encoded, result)
                continue
            waiting.append((source, stamp, encoders.submit(_guard, _encoded, result)))
            if len(waiting) > ahead:
                first, its_stamp, future = waiting.popleft()
                yield first, its_stamp, future.result()
    for source, stamp, future in waiting:
        yield source, stamp, future.result()


def done_apart(
    pool: futures.Executor | None, piece: Piece, sources: Sequence[Source], size: int, ahead: int
) -> Iterator[Row]:
    """Yield each source in order: a worker of the pool does all that there is to do with `size` sources at a time."""
    for group, rows in in_order(pool, piece, _batches(sources, size), ahead):
        yield from ((source, *row) for source, row in zip(group, rows, strict=True))


@dataclass(frozen=True)
class Piece:
    """All that there is to do with some sources; in another process with picklable `work` and `together`.

    With `out` the images are written there under temporary names, and only these names are returned. `ready` opens what
    all images need: where it fails, the work ends.
    """

    work: Callable[[Source], Any]
    together: Together | None = None
    batch: int = 1
    out: Path | None = None
    ready: Callable[[], Any] | None = None

    def __call__(self, sources: Sequence[Source]) -> list[tuple[Stamp, list[Output] | Exception]]:
        """Return a stamp and the encoded images, or an exception, for each source.

        Raises OutputError where images cannot be written, OutOfMemory, and what `ready` raises.
        """
        rows = []
        if self.ready:
            self.ready()
        for some in _batches(sources, self.batch):
            read = [_attempt(self.work, source) for source in some]
            group = [(source, value) for source, (_, value) in zip(some, read, strict=True)]
            made = _guard(partial(_apply, self.together), group)
            if isinstance(made, Exception):  # of one of them, perhaps
                made = [_guard(partial(_apply, self.together), [one]) for one in group]
                made = [one if isinstance(one, Exception) else one[0] for one in made]
            rows += [
                (stamp, self._kept(_guard(_encoded, images))) for (stamp, _), images in zip(read, made, strict=True)
            ]
        return rows

    def _kept(self, images: list[Output] | Exception) -> list[Output] | Exception:
        if self.out is None or isinstance(images, Exception):
            return images
        written = []
        for image in images:
            assert isinstance(image.data, bytes)
            written.append(replace(image, data=files.write_part(self.out / image.name, image.data)))
        return written


def _attempt(work: Callable[[Source], Any], source: Source) -> tuple[Stamp, Any]:
    """Return a source's stamp from before it is read, and the result of `work` or the exception that it raises."""
    return source.stamp(), _guard(work, source)


def _guard(work: Callable[[Any], Any], item: Any) -> Any:
    """Run `work` and return its result or its exception: one broken image must not stop the folder."""
    try:
        return work(item)
    except OutOfMemory:  # the next images would fail too
        raise
    except Exception as error:
        return error


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while group := list(itertools.islice(rest, size)):
        yield group


def _apply(together: Together | None, group: Group) -> list[Any]:
    """Turn a group of results into lists of images; exceptions of `work` are passed on."""
    good = [(source, value) for source, value in group if not isinstance(value, Exception)]
    made = iter(together(good) if together and good else [value for _, value in good])
    return [value if isinstance(value, Exception) else next(made) for _, value in group]


def _encoded(images: list[Output] | Exception) -> list[Output] | Exception:
    if isinstance(images, Exception):
        return images
    return [replace(image, data=image.data()) if callable(image.data) else image for image in images]
