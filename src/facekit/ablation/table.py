"""The table of an ablation: the scores of every variant, with the spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LOWER_IS_BETTER = ("FID", "KID", "landmark-distance", "colour-", "s/step")


@dataclass(frozen=True)
class Figure:
    """One metric of one variant over its seeds; `difference` is to the first variant (None for the first itself).

    `inside` says whether the difference is at most the combined spread of both; None if the spread is unknown.
    """

    values: tuple[float, ...]
    mean: float
    spread: float | None
    difference: float | None = None
    inside: bool | None = None


def figure(values: Sequence[float], first: Sequence[float] | None = None) -> Figure:
    """Summarise one metric over seeds: mean, standard deviation (n - 1), difference from the first variant's."""
    mean, spread = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
    if first is None:
        return Figure(tuple(values), mean, spread)
    difference = mean - statistics.fmean(first)
    inside = None
    if spread is not None and len(first) > 1:
        inside = abs(difference) <= math.hypot(spread, statistics.stdev(first))
    return Figure(tuple(values), mean, spread, difference, inside)


@dataclass(frozen=True)
class Row:
    """A row of the table: the variant, its figures by metric, and the errors of failed runs by seed."""

    variant: str
    changes: str
    figures: dict[str, Figure]
    failed: dict[int, str]
    parameters: int | None = None


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the table as plain data."""
    out = []
    for row in rows:
        scores = {
            name: {k: list(v) if isinstance(v, tuple) else v for k, v in vars(found).items() if v is not None}
            for name, found in row.figures.items()
        }
        line: dict[str, Any] = {"variant": row.variant, "changes": row.changes, "scores": scores}
        out.append({**line, **({"parameters": row.parameters} if row.parameters else {}), "failed": row.failed})
    return out


def table(rows: Sequence[Row], metrics: Sequence[str]) -> list[list[str]]:
    """Return the cells of the table, the header row first."""
    lines = [["variant", "what changes", *metrics]]
    for row in rows:
        cells = [cell(row.figures[name], name) if name in row.figures else "-" for name in metrics]
        if row.failed:
            seeds = "; ".join(f"seed {seed} failed: {why}" for seed, why in row.failed.items())
            cells[0] = seeds if not row.figures else f"{cells[0]} ({seeds})"
        lines.append([row.variant, row.changes, *cells])
    return lines


def cell(found: Figure, metric: str) -> str:
    """Return a figure as text: mean, spread over seeds, the difference, and whether the spread covers it."""
    digits = 5 if metric.startswith("KID") else 3
    text = f"{found.mean:.{digits}f}" + ("" if found.spread is None else f" ± {found.spread:.{digits}f}")
    if found.difference is None:
        return text
    change = f"{found.difference:+.{digits}f}"
    return f"{text} ({change}, inside the spread)" if found.inside else f"{text} ({change})"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    escaped = [[text.replace("|", "\\|").replace("\n", " ") for text in line] for line in lines]
    head, *body = ["| " + " | ".join(line) + " |" for line in escaped]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body]) + "\n"


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """Return the metrics of a table in display order: distances, preservation, cost."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    return sorted(names, key=lambda name: (name == "s/step", not name.startswith(LOWER_IS_BETTER)))
