"""The page of an ablation: its table, the same faces by every variant, the sweeps, and the losses."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..recipe_api import checkpoint
from ..reports import contact_sheet
from ..storage import files, images
from ..storage.jsonl import read_lines
from .variants import LOWER_IS_BETTER, Row, Variant

NOTE = (
    "Mean ± standard deviation over seeds; in brackets the difference from the first row. A difference is inside the "
    "spread where it is no larger than the standard deviations of both variants together (root of the sum of squares): "
    "take it for none. Lower is better for FID and KID, higher for IoU (face parts that stay where they are) and "
    "identity (cosine of face features before and after)."
)


@torch.no_grad()
def pictures(runs: Mapping[str, Path], faces: Sequence[Image.Image], to: str) -> dict[str, list[list[Image.Image]]]:
    """Return what each run makes of the faces, by column of the recipes' previews: a row per run, empty without one."""
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
    terms = list(dict.fromkeys(t for rows in logs.values() for log in rows for row in log for t in row["losses"]))
    if not terms:
        return None
    figure, panels = _panels(len(terms))
    for panel, term in zip(panels, terms, strict=False):
        for index, (name, rows) in enumerate(logs.items()):
            for number, log in enumerate(rows):
                points = [(row["step"], row["losses"][term]) for row in log if term in row["losses"]]
                if points:
                    panel.plot(*zip(*points, strict=True), color=f"C{index}", lw=0.8, label=None if number else name)
        panel.set_title(term, fontsize=9)
    return _save(figure, panels, folder / "losses.png")


def draw_sweeps(folder: Path, rows: Sequence[Row], variants: Sequence[Variant], metrics: Sequence[str]) -> str | None:
    """Plot the metrics over swept values, mean and spread, and the first row as a line; returns the name."""
    keys = list(dict.fromkeys(variant.at[0] for variant in variants if variant.at))
    shown = [name for name in metrics if name != "s/step"]
    by_name = {row.variant: row for row in rows}
    plots = [(key, metric) for key in keys for metric in shown]
    if not plots:
        return None
    figure, panels = _panels(len(plots))
    for panel, (key, metric) in zip(panels, plots, strict=False):
        points = []
        for variant in variants:
            row = by_name.get(variant.name)
            at = variant.at[1] if variant.at and variant.at[0] == key else None
            if row and metric in row.figures and isinstance(at, (int, float)):
                found = row.figures[metric]
                points.append((float(at), found.mean, found.spread or 0.0))
        if points:
            x, y, spread = zip(*sorted(points), strict=True)
            panel.errorbar(x, y, spread, marker="o", capsize=3)
            if min(x) > 0 and max(x) / min(x) >= 10:
                panel.set_xscale("log")
        first = rows[0].figures.get(metric)
        if first:
            panel.axhline(first.mean, color="0.6", lw=0.8, ls="--", label=rows[0].variant)
        panel.set_title(f"{metric} over {key}", fontsize=9)
    return _save(figure, panels, folder / "sweep.png")


def _panels(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(3, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * lines), layout="constrained")
    return figure, [figure.add_subplot(lines, columns, index + 1) for index in range(count)]


def _save(figure: Any, panels: Iterable[Any], path: Path) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for panel in panels:
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=8)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=7, frameon=False)
    with files.replacing(path) as part:
        FigureCanvasAgg(figure).print_png(str(part))
    return path.name


def write_page(
    folder: Path, title: str, lines: Sequence[Sequence[str]], pictures: Mapping[str, str], budget: str, card: str
) -> None:
    """Write `report.html`: table, pictures by heading, the budget, and the card that all variants start from."""
    head, *body = lines
    cells = ["<tr>" + "".join(f"<th>{html.escape(text)}</th>" for text in head) + "</tr>"]
    cells += ["<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in line) + "</tr>" for line in body]
    style = "<style>table { border-collapse: collapse } th, td { text-align: left; padding: .25rem .8rem .25rem 0; "
    parts = [style + "border-bottom: 1px solid #ddd; vertical-align: top }</style>"]
    parts += [f"<p>{html.escape(budget)}</p>", f"<table>{''.join(cells)}</table>", f"<p>{html.escape(NOTE)}</p>"]
    for heading, name in pictures.items():
        parts.append(f'<h2>{html.escape(heading)}</h2><img loading="lazy" src="{html.escape(name)}" alt="{name}">')
    parts.append(f"<h2>card</h2><pre>{html.escape(card)}</pre>")
    files.write_text(folder / "report.html", contact_sheet.PAGE.format(title=html.escape(title), body="\n".join(parts)))


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """Return the metrics of a table in the order to show them: distances first, then what is kept, then cost."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    return sorted(names, key=lambda name: (name == "s/step", not name.startswith(LOWER_IS_BETTER)))
