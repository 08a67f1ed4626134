"""Keeps the best weights of a run: each save is scored on held-out images of both domains."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CardError, InputError, MissingError
from ..inference.translator import Translator
from ..recipe_api import checkpoint
from ..runtime import console
from ..scoring import extractors, fid_kid
from ..scoring.features import pixels
from ..storage import files, images, jsonl
from ..training.plan import Plan
from ..training.run_page import BEST, SCORES, SEVERAL

FEW = 50  # images; scores of fewer differ more by chance than by weights
SOURCE, TARGET = "a", "b"


class Validation:
    """Scores what a run has saved in `folder` by `run.validate_by`, the distance of its translations from real images.

    The weights with the lowest score lie in BEST, the scores in SCORES; where `run.keep_best` is more than 1, so many
    of the best weights lie in the folder SEVERAL, by step. Raises CardError for a method that does not translate one
    domain to another, InputError for fewer than two held-out images, MissingError without the net that makes the
    features.
    """

    def __init__(self, plan: Plan, folder: Path, device: str):
        self.folder, self.device, self.run = folder, device, plan.card.run
        self.size, self.paths = plan.card.data.size, plan.layout.test
        names = plan.recipe.targets(plan.card.domains)
        to = {side: name for name, side in names.items()}.get(TARGET)
        if to is None or not {SOURCE, TARGET} <= self.paths.keys() or plan.recipe.needs_source:
            raise CardError(
                f"run.validate_every is for methods that translate one domain to another, not {plan.card.recipe}",
                "leave it out",
            )
        self.to = to
        try:
            self.extractor = extractors.load(self.run.validate_features)
        except MissingError as error:
            raise MissingError(error.message, "--set run.validate_features=FILE.onnx names another net") from error
        self.faces = list(self._squares(self.paths[SOURCE]))
        self.real = self._features(self._squares(self.paths[TARGET]))
        least = min(len(self.faces), len(self.real))
        if least < 2:
            raise InputError(f"run.validate_every needs held-out images, not {least}", "--set data.holdout=100")
        if least < FEW:
            console.warn(f"{least} held-out images say little about which weights are best; --set data.holdout=100")

    def score(self, step: int) -> bool:
        """Score the weights that were saved at `step`, unless that is done; returns whether the run should end."""
        rows = [row for row in jsonl.read_lines(self.folder / SCORES) if isinstance(row.get("step"), int)]
        key = next((name for row in rows for name in row["scores"]), None)
        if not any(row["step"] == step for row in rows):
            found = fid_kid.compare(self._features(self._translations()), self.real, self.extractor.unit)
            key = next(name for name in found if name.startswith(f"{self.run.validate_by}-"))
            value = float(found[key])
            better = all(value < row["scores"][key] for row in rows)
            rows.append({"step": step, "scores": {key: value}})
            if better:
                self._keep(self.folder / BEST)
            if step in self._chosen(rows, key):
                self._keep(self._place(step))
            jsonl.drop_cut_line(self.folder / SCORES)
            jsonl.append(self.folder / SCORES, rows[-1:])
            console.note(f"train: step {step}: {key} {value:.5g}{', the best so far' if better else ''}")
            console.fact("validation", step=step, scores={key: value}, best=better)
        self._drop_others(rows, key)
        best = min(range(len(rows)), key=lambda number: rows[number]["scores"][key])
        since = len(rows) - 1 - best
        if not self.run.patience or since < self.run.patience:
            return False
        console.note(
            f"train: {key} has not fallen in {since} validations; the best weights are of step {rows[best]['step']}"
        )
        return True

    def _chosen(self, rows: Sequence[Mapping[str, Any]], key: Any) -> list[int]:
        """Return the steps whose weights are kept in SEVERAL; of equal scores the earlier ones."""
        count = self.run.keep_best if self.run.keep_best > 1 else 0
        return [row["step"] for row in sorted(rows, key=lambda row: row["scores"][key])[:count]]

    def _place(self, step: int) -> Path:
        return self.folder / SEVERAL / f"{step:08d}.safetensors"

    def _keep(self, path: Path) -> None:
        """Copy the weights that were saved last."""
        with files.replacing(path) as part:
            shutil.copyfile(self.folder / checkpoint.FILE, part)

    def _drop_others(self, rows: Sequence[Mapping[str, Any]], key: Any) -> None:
        """Remove the weights in SEVERAL that are no longer among the best."""
        kept = {self._place(step) for step in self._chosen(rows, key)}
        for row in rows:
            if (path := self._place(row["step"])) not in kept:
                files.remove(path)

    def _squares(self, paths: Sequence[Path]) -> Iterator[Image.Image]:
        """Yield the images that can be read, as squares of the training size."""
        for path in paths:
            try:
                yield images.resize(images.square(images.read(path)), self.size)
            except InputError as error:
                console.warn(f"{error.message}; left out of the validation")

    def _translations(self) -> Iterator[Image.Image]:
        model = checkpoint.load_model(self.folder / checkpoint.FILE, self.device)
        translator = Translator(model, self.to)
        for start in range(0, len(self.faces), self.extractor.batch):
            group = self.faces[start : start + self.extractor.batch]
            yield from translator.fitted([translator.fit(face) for face in group])

    def _features(self, pictures: Iterable[Image.Image]) -> np.ndarray:
        """Return features [n, dim] of pictures."""
        found, group = [np.empty((0, self.extractor.dim), np.float32)], []
        for picture in pictures:
            group.append(pixels(picture, self.extractor.edge))
            if len(group) == self.extractor.batch:
                found.append(self.extractor.run(np.stack(group)))
                group = []
        if group:
            found.append(self.extractor.run(np.stack(group)))
        return np.concatenate(found)
