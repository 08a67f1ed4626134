"""The page of a run: progress, preview images and a plot of the losses."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..errors import InputError
from ..reports import contact_sheet, html, plots
from ..runtime import console
from ..storage import card, files, images, jsonl, provenance
from .pace import Pace
from .state import TrainState

LOG = "log.jsonl"
PLOT = "losses.png"
PROGRESS = "progress.json"  # step, steps, seconds_per_step and running, for programs; see `facekit watch`
BEST, SCORES = "best.safetensors", "scores.jsonl"  # of validations
SEVERAL = "best"  # the folder of the best weights, by step, where more than one is kept
PREVIEWS = "previews/" + 8 * "[0-9]" + ".png"
Images = Mapping[str, list[Path]]
FACES = 8  # rows of a preview
PLOT_EVERY = 10.0  # seconds between drawings of the losses during training


class RunPage:
    """`index.html` of a run folder, with `previews/STEP.png` and `losses.png`; it reloads itself during training.

    `previews` are the preview images by domain.
    """

    def __init__(self, folder: Path, values: dict[str, Any], previews: dict[str, list[Path]], pace: Pace):
        self.folder, self.values, self.previews, self.pace = folder, values, previews, pace
        self._faces: dict[str, list[Image.Image]] = {}
        self.plotted_step, self.plotted_at = -1, time.monotonic()

    def faces(self, side: str) -> list[Image.Image]:
        """Return the first preview images of a domain that can be decoded; all previews of a run show the same ones."""
        if side not in self._faces:
            decoded = _decoded(self.previews[side], self.values["data"]["size"])
            self._faces[side] = list(itertools.islice(decoded, FACES))
        return self._faces[side]

    @torch.no_grad()
    def preview(self, state: TrainState) -> Image.Image | None:
        """Write the preview of this step; returns it, or None for a method without previews."""
        tables = []
        for to, source in state.recipe.previews().items():
            faces = self.faces(source)
            if faces:
                tables.append(_preview_table(state, faces, to))
        if not tables:
            return None
        sheet = _stack(tables)
        images.save(sheet, self.folder / "previews" / f"{state.step:08d}.png")
        return sheet

    def forget_after(self, step: int) -> None:
        """Remove the log lines and previews of later steps, and a log line that a kill has truncated."""
        log = self.folder / LOG
        if log.exists():
            rows = {row["step"]: row for row in _log(log) if row["step"] <= step}
            jsonl.write(log, rows.values())
        for preview in self.folder.glob(PREVIEWS):
            if int(preview.stem) > step:
                files.remove(preview)

    def write(self, running: bool) -> None:
        """Write `losses.png` and `index.html`: progress, the previews (newest first) and the card."""
        self.write_progress(running)
        self._plot(running)
        previews = sorted(self.folder.glob(PREVIEWS), reverse=True)
        scores = list(jsonl.read_lines(self.folder / SCORES))
        html.write(
            self.folder / "index.html",
            "run.html",
            title=f"{Path(self.values['recipe']).name}: {files.real(self.folder).name}",
            running=running,
            step=self.pace.step,
            steps=self.pace.steps,
            status=_status(self.pace, running),
            plot=PLOT if (self.folder / PLOT).exists() else None,
            scores=scores,
            best=min(scores, key=lambda row: next(iter(row["scores"].values())), default=None),
            previews=[(int(path.stem), f"previews/{path.name}") for path in previews],
            card=card.dump(self.values),
        )

    def write_progress(self, running: bool) -> None:
        """Write `progress.json`."""
        pace = self.pace
        told = {"step": pace.step, "steps": pace.steps, "seconds_per_step": pace.seconds_per_step, "running": running}
        files.write_text(self.folder / PROGRESS, json.dumps(told) + "\n")

    def _plot(self, running: bool) -> None:
        """Draw the losses if there are new ones; during training at most every PLOT_EVERY seconds, as it is slow."""
        now = time.monotonic()
        if running and now - self.plotted_at < PLOT_EVERY:
            return
        rows = list(_log(self.folder / LOG))
        if rows and rows[-1]["step"] != self.plotted_step:
            plots.losses(self.folder / PLOT, rows)
            self.plotted_step, self.plotted_at = rows[-1]["step"], now


def _log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log that hold losses of a step."""
    for row in jsonl.read_lines(path):
        if isinstance(row.get("step"), int) and isinstance(row.get("losses"), dict):
            yield row


def _status(pace: Pace, running: bool) -> str:
    """Return the progress of a run in one sentence."""
    parts = [f"Step {pace.step:,} of {pace.steps:,}"]
    if pace.seconds_per_step is not None:
        parts.append(f"{pace.seconds_per_step:.3g} s per step")
    if not running:
        parts.append("finished" if pace.step >= pace.steps else "stopped; the same command continues")
    elif pace.seconds_left is not None:
        parts.append(f"{console.duration(pace.seconds_left)} left")
    return ", ".join(parts) + f" (written {provenance.moment()})"


def _decoded(paths: list[Path], size: int) -> Iterator[Image.Image]:
    for path in paths:
        try:
            yield images.resize(images.square(images.read(path)), size)
        except InputError as error:
            console.warn(f"{error.message}; left out of the previews")


def _preview_table(state: TrainState, faces: list[Image.Image], to: str) -> Image.Image:
    size, recipe = state.card.data.size, state.recipe
    nets = torch.nn.ModuleDict({**state.nets, **state.exports})
    was = state.exports.training
    nets.eval()
    dtype = next(nets.parameters()).dtype
    columns: dict[str, list[Image.Image]] = {}
    for image in faces:  # one by one: a preview must not need more memory than a training step
        x = images.to_tensor(image)[None].to(state.device, dtype)
        for title, y in recipe.preview(nets, x, to).items():
            columns.setdefault(title, []).append(images.to_image(y[0]))
    nets.train(was)
    names = {side: name for name, side in recipe.targets(state.card.domains).items()}
    name = names.get(to, to)
    columns = {name if title == "translation" else title: column for title, column in columns.items()}
    rows = [list(row) for row in zip(faces, *columns.values(), strict=True)]
    groups = 2 if len(columns) < 4 else 1
    return contact_sheet.contact_sheet(rows, ["input", *columns], size=min(size, 256), groups=groups)


def _stack(tables: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(t.width for t in tables), sum(t.height for t in tables)), contact_sheet.PAPER)
    top = 0
    for table in tables:
        sheet.paste(table, (0, top))
        top += table.height
    return sheet
