"""Measuring all images of a folder; results are saved on the way, so that a stopped run continues."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import console
from ..runtime.engine import LOCAL, Engine
from ..runtime.workers import in_order, pool_of, stoppable
from ..storage import jsonl
from ..storage.folder import Source
from . import quality
from .table import Table

GROUP = 16  # images that a worker measures before it says so
Piece = list[tuple[int, Source]]  # places in a table with their images


def measure_all(found: Sequence[Source], path: Path, workers: int, force: bool, engine: Engine = LOCAL) -> Table:
    """Measure images with `workers` processes, or those of a cluster; returns their measures.

    `found` is in the order of names. Results of an earlier run in the file `path` are reused unless `force`; new ones
    are appended. Raises Interrupted on Ctrl-C, OutOfMemory if a worker process was killed, MissingError for a cluster
    that cannot be used.
    """
    table = Table(found)
    held = bytearray() if force else _measured_before(table, path)
    todo = np.flatnonzero(~table.measured)
    if len(todo):
        before = len(found) - len(todo)
        console.note(f"clean: {len(todo)} images to measure" + (f", {before} measured before" if before else ""))
        jsonl.write(path, itertools.compress(jsonl.read_lines(path), held) if before else ())
        pieces = -(-len(todo) // GROUP)
        with (
            stoppable("clean", lambda: f"{table.measured.sum()} of {len(found)} images"),
            console.progress("clean", len(todo)) as bar,
            pool_of(workers, True, engine.seeing(found[todo[0]].path), pieces) as pool,
        ):
            for piece, rows in in_order(pool, measure_some, _pieces(found, todo), 4 * workers):
                jsonl.append(path, rows)
                for (place, _), row in zip(piece, rows, strict=True):
                    table.put(place, row)
                bar.advance(len(rows))
    return table


def measure_some(piece: Piece) -> list[dict[str, Any]]:
    """Measure a few images, in a worker process."""
    return [quality.measure_file(source) for _, source in piece]


def _pieces(found: Sequence[Source], todo: np.ndarray) -> Iterator[Piece]:
    for start in range(0, len(todo), GROUP):
        yield [(place, found[place]) for place in todo[start : start + GROUP].tolist()]


def _measured_before(table: Table, path: Path) -> bytearray:
    """Fill the table with the rows of the file `path` that still hold; returns for each row of it whether it does."""
    places = {source.name: place for place, source in enumerate(table.sources)}
    held = bytearray()
    for row in jsonl.read_lines(path):
        place = places.get(str(row.get("file")))
        held.append(place is not None and not table.measured[place] and _reused(table, place, row))
    return held


def _reused(table: Table, place: int, row: dict[str, Any]) -> bool:
    """Put a row into the table and return True, if it matches the current file and is whole."""
    if not _is_current(row, quality.stamp(table.sources[place])):
        return False
    try:
        table.put(place, row)
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    return True


def _is_current(row: dict[str, Any], stamp: dict[str, int]) -> bool:
    """Whether a row matches the current file; for a file that could not be read, access rights must match too."""
    keys = stamp.keys() if "problem" in row else stamp.keys() - {"ctime"}
    return all(row.get(key) == stamp[key] for key in keys)
