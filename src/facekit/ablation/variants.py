"""An ablation as data: the cards of its variants, and what their scores say, with the spread over seeds."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CardError
from ..storage import card

LOWER_IS_BETTER = ("FID", "KID", "s/step")


@dataclass(frozen=True)
class Variant:
    """A card of the ablation: `changes` says how it differs from the first; `at` is a sweep's key and value."""

    name: str
    values: dict[str, Any]
    changes: str
    at: tuple[str, Any] | None = None


def plan_variants(
    base: Mapping[str, Any], drops: Sequence[str], sweeps: Sequence[str], against: Sequence[Mapping[str, Any]]
) -> list[Variant]:
    """Return the variants of card values `base`: itself, one per drop, one per swept value, one per other card.

    A drop names terms, joined by `+` where several go at once. A sweep is `key.key=value,value`. Other cards bring
    their recipe, params, losses and optim; data, domains, run and seed are those of `base`. Raises CardError for a
    sweep without values, and for two variants of one name.
    """
    base = dict(base)
    found = [Variant(str(base["recipe"]).rpartition("/")[2].removesuffix(".py"), base, "the card as it is")]
    for drop in drops:
        terms = [term.strip() for term in drop.split("+")]
        without = card.merge(base, {"losses": dict.fromkeys(terms, 0)})
        found.append(Variant(f"no-{'-'.join(terms)}", without, f"without {' and '.join(terms)}"))
    for sweep in sweeps:
        key, equals, values = sweep.partition("=")
        if not equals or not values.strip():
            raise CardError(f"--sweep {sweep!r} has no values", "write --sweep losses.cycle=1,10,100")
        for text in values.split(","):
            change = card.assignment(f"{key}={text.strip()}")
            name = re.sub(r"[^\w.-]+", "-", f"{key.rpartition('.')[2]}-{text.strip()}")
            at = (key, card.assignment(f"x={text.strip()}")["x"])
            found.append(Variant(name, card.merge(base, change), f"{key} = {text.strip()}", at))
    for other in against:
        own: dict[str, Any] = {key: other[key] for key in ("recipe", "params", "losses", "optim") if key in other}
        common: dict[str, Any] = {
            key: base[key] for key in ("facekit", "command", "seed", "data", "domains", "run") if key in base
        }
        name = str(own["recipe"]).rpartition("/")[2].removesuffix(".py")
        found.append(Variant(name, {**common, **own}, "another method, same data and steps"))
    names = [variant.name for variant in found]
    for name in names:
        if names.count(name) > 1:
            raise CardError(f"two variants are called {name!r}", "leave one of them out")
    return found


@dataclass(frozen=True)
class Figure:
    """One metric of one variant over its seeds; `difference` is from the first variant, None for that itself.

    `inside` says whether the difference is no larger than the spread of both together; None where no spread is known.
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
    """A line of the table: the variant, its figures by metric, and why runs of it failed, by seed."""

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
    """Return the cells of the table, its head first."""
    lines = [["variant", "what changes", *metrics]]
    for row in rows:
        cells = [cell(row.figures[name], name) if name in row.figures else "-" for name in metrics]
        if row.failed:
            seeds = "; ".join(f"seed {seed} failed: {why}" for seed, why in row.failed.items())
            cells[0] = seeds if not row.figures else f"{cells[0]} ({seeds})"
        lines.append([row.variant, row.changes, *cells])
    return lines


def cell(found: Figure, metric: str) -> str:
    """Return a figure in words: mean, spread over seeds, the difference, and whether the spread covers it."""
    digits = 5 if metric.startswith("KID") else 3
    text = f"{found.mean:.{digits}f}" + ("" if found.spread is None else f" ± {found.spread:.{digits}f}")
    if found.difference is None:
        return text
    told = f"{found.difference:+.{digits}f}"
    return f"{text} ({told}, inside the spread)" if found.inside else f"{text} ({told})"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    escaped = [[text.replace("|", "\\|").replace("\n", " ") for text in line] for line in lines]
    head, *body = ["| " + " | ".join(line) + " |" for line in escaped]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body]) + "\n"


def makefile(runs: Sequence[tuple[str, str]]) -> str:
    """Return a Makefile that trains the runs, given as pairs of card and run folder."""
    head = (
        "# Trains what an ablation planned: make -j 2 -f this file, from the folder where it was planned.\n"
        "FACEKIT ?= facekit\n\nall:"
    )
    targets = "".join(f" \\\n\t{folder}/card.yaml" for _, folder in runs)
    rules = [f"{folder}/card.yaml: {made}\n\t$(FACEKIT) train --card {made} --out {folder}\n" for made, folder in runs]
    return f"{head}{targets}\n\n" + "\n".join(rules) + "\n.PHONY: all\n"
