"""The page of an ablation: its table, the same faces translated by every variant, the sweeps and the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..recipe_api import checkpoint
from ..reports import contact_sheet, html, plots
from ..storage import images
from ..storage.jsonl import read_lines
from .table import Row
from .variants import Variant

NOTE = (
    "Mean ± standard deviation over seeds; in brackets the difference from the first row. A difference is inside the "
    "spread where it is no larger than the standard deviations of both variants together (root of the sum of squares): "
    "it may be chance. Lower is better for FID and KID, landmark-distance (how far parts move, in distances between "
    "the eyes) and colour (CIEDE2000 between a part before and after), higher for IoU (face parts that stay "
    "where they are) and identity (cosine of face features before and after)."
)


@torch.no_grad()
def pictures(runs: Mapping[str, Path], faces: Sequence[Image.Image], to: str) -> dict[str, list[list[Image.Image]]]:
    """Return each run's translations of the faces, by column of the recipes' previews: a row per run, or empty."""
    found: list[dict[str, list[Image.Image]]] = []
    for folder in runs.values():
        model = checkpoint.load_model(folder)
        side = checkpoint.direction(model, to)
        columns: dict[str, list[Image.Image]] = {}
        for face in faces:
            x = images.to_tensor(images.resize(face, model.card.data.size))[None]
            for title, y in model.recipe.preview(model.nets, x, side).items():
                columns.setdefault(title, []).append(images.to_image(y[0]))
        found.append(columns)
    titles = dict.fromkeys(title for columns in found for title in columns)
    return {title: [columns.get(title, []) for columns in found] for title in titles}


def draw_faces(folder: Path, runs: Mapping[str, Path], faces: Sequence[Image.Image], to: str) -> dict[str, str]:
    """Write a sheet per column of the previews: the faces, then a row for every run; returns file names by title."""
    written = {}
    for title, rows in pictures(runs, faces, to).items():
        shown = [(name, row) for name, row in zip(runs, rows, strict=True) if row]
        name = f"{title.replace(' ', '-')}.png"
        labels = ["input", *(label for label, _ in shown)]
        contact_sheet.save_sheet(folder / name, [list(faces), *(row for _, row in shown)], labels=labels, size=128)
        written[to if title == "translation" else title] = name
    return written


def draw_losses(folder: Path, runs: Mapping[str, Sequence[Path]]) -> str | None:
    """Plot every term over the steps, a panel per term and a colour per variant, a line per seed; returns the name."""
    logs = {name: [list(read_lines(run / "log.jsonl")) for run in paths] for name, paths in runs.items()}
    return "losses.png" if plots.losses_compared(folder / "losses.png", logs) else None


def draw_sweeps(folder: Path, rows: Sequence[Row], variants: Sequence[Variant], metrics: Sequence[str]) -> str | None:
    """Plot the metrics over swept values, mean and spread, and the first row as a line; returns the name."""
    keys = list(dict.fromkeys(variant.at[0] for variant in variants if variant.at))
    by_name = {row.variant: row for row in rows}
    panels: dict[str, list[tuple[float, float, float]]] = {}
    levels: dict[str, tuple[float, str]] = {}
    for key in keys:
        for metric in (name for name in metrics if name != "s/step"):
            title = f"{metric} over {key}"
            panels[title] = []
            for variant in variants:
                row = by_name.get(variant.name)
                at = variant.at[1] if variant.at and variant.at[0] == key else None
                if row and metric in row.figures and isinstance(at, (int, float)):
                    found = row.figures[metric]
                    panels[title].append((float(at), found.mean, found.spread or 0.0))
            if metric in rows[0].figures:
                levels[title] = (rows[0].figures[metric].mean, rows[0].variant)
    if not panels:
        return None
    plots.sweep(folder / "sweep.png", panels, levels)
    return "sweep.png"


def write_page(
    folder: Path,
    title: str,
    lines: Sequence[Sequence[str]],
    pictures: Mapping[str, str],
    budget: str,
    card: str,
    done: int,
    runs: int,
) -> None:
    """Write `report.html`: table, pictures by heading, the budget, and the card that all variants start from.

    While fewer than `runs` are `done` the page says so and refreshes itself.
    """
    values: dict[str, Any] = {"title": title, "budget": budget, "note": NOTE, "card": card, "done": done, "runs": runs}
    html.write(folder / "report.html", "ablation.html", **values, lines=lines, pictures=pictures)
