"""Learning curves of an ablation: the scores along each run against the images that it had seen.

Only runs with `run.validate_every` have scores along the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..reports import plots
from ..storage.jsonl import read_lines
from ..training.run_page import SCORES

Curves = dict[str, dict[str, dict[int, list[tuple[int, float]]]]]
"""By metric, variant and seed: points of (images of each domain that were seen, score)."""

PICTURE = "scores.png"


def read_curves(runs: Mapping[str, Mapping[int, tuple[Path, int]]]) -> Curves:
    """Read the scores along the runs, given as folder and images per step and domain, by variant and seed."""
    found: Curves = {}
    for variant, by_seed in runs.items():
        for seed, (folder, batch) in by_seed.items():
            for row in sorted(read_lines(folder / SCORES), key=lambda row: row["step"]):
                for metric, value in row["scores"].items():
                    points = found.setdefault(metric, {}).setdefault(variant, {}).setdefault(seed, [])
                    points.append((row["step"] * batch, float(value)))
    return found


def draw_curves(folder: Path, curves: Curves, untouched: Mapping[str, float]) -> str | None:
    """Plot a panel per metric, a colour per variant and a line per seed; `untouched` are the scores of the input.

    Returns the file's name, None where no run was scored along the way.
    """
    panels = {
        metric: {variant: list(by_seed.values()) for variant, by_seed in variants.items()}
        for metric, variants in curves.items()
    }
    levels = {metric: (untouched[metric], "input") for metric in panels if metric in untouched}
    return PICTURE if plots.compared(folder / PICTURE, panels, levels, "images of each domain") else None


def plain(curves: Curves) -> list[dict[str, Any]]:
    """Return the curves as plain data, a line per metric, variant and seed."""
    return [
        {"metric": metric, "variant": variant, "seed": seed, "points": [list(point) for point in points]}
        for metric, variants in curves.items()
        for variant, by_seed in variants.items()
        for seed, points in by_seed.items()
    ]
