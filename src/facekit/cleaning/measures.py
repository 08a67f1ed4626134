"""Measuring all images of a folder; results are saved on the way, so that a stopped run continues."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..runtime import console
from ..runtime.engine import LOCAL, Engine
from ..runtime.workers import in_order, pool_of, stoppable
from ..storage import jsonl
from ..storage.folder import Source
from . import quality

GROUP = 16  # images that a worker measures before it says so


def measure_all(
    found: Sequence[Source], path: Path, workers: int, force: bool, engine: Engine = LOCAL
) -> list[dict[str, Any]]:
    """Measure images with `workers` processes, or those of a cluster; returns their rows in order.

    Results of an earlier run in the file `path` are reused unless `force`; new ones are appended. Raises Interrupted on
    Ctrl-C, OutOfMemory if a worker process was killed, MissingError for a cluster that cannot be used.
    """
    known = {} if force else _measured_before(found, path)
    todo = [source for source in found if source.name not in known]
    if todo:
        console.note(f"clean: {len(todo)} images to measure" + (f", {len(known)} measured before" if known else ""))
        jsonl.write(path, known.values())
        groups = [tuple(todo[i : i + GROUP]) for i in range(0, len(todo), GROUP)]
        with (
            stoppable("clean", lambda: f"{len(known)} of {len(found)} images"),
            console.progress("clean", len(todo)) as bar,
            pool_of(workers, True, engine.seeing(todo[0].path), len(groups)) as pool,
        ):
            for _, rows in in_order(pool, measure_some, groups, 4 * workers):
                jsonl.append(path, rows)
                known |= {row["file"]: _with_shared_keys(row) for row in rows}
                bar.advance(len(rows))
    return [known[source.name] for source in found]


def _measured_before(found: Sequence[Source], path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of the file `path` by image that still hold."""
    sources = {source.name: source for source in found}
    known = {}
    for row in jsonl.read_lines(path):
        source = sources.get(str(row.get("file")))
        whole = "problem" in row or row.keys() >= quality.FIGURES
        if source and whole and _is_current(row, quality.stamp(source)):
            known[source.name] = _with_shared_keys(row)
    return known


def _with_shared_keys(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose keys are those of all others: they come as texts of their own, which take a third of a row."""
    return {sys.intern(key): value for key, value in row.items()}


def _is_current(row: dict[str, Any], stamp: dict[str, int]) -> bool:
    """Whether a row matches the current file; for a file that could not be read, access rights must match too."""
    keys = stamp.keys() if "problem" in row else stamp.keys() - {"ctime"}
    return all(row.get(key) == stamp[key] for key in keys)


def measure_some(group: Sequence[Source]) -> list[dict[str, Any]]:
    """Measure a few images, in a worker process."""
    return [quality.measure_file(source) for source in group]
