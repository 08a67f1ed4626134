"""Scoring the runs of an ablation: every run translates the same held-out faces, compared with the same real images."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dataset import spread
from ..errors import CardError, InputError
from ..recipe_api import checkpoint
from ..recipe_api.labelled import Labelled
from ..reports import contact_sheet
from ..runtime import console
from ..scoring.evaluate import evaluate
from ..scoring.scorer import Scorer
from ..storage import card, images
from ..storage.folder import Folder
from ..training.plan import Plan
from . import report

METRICS = ("FID-", "KID-", "IoU-parts", "landmark-distance", "colour-", "identity", "accuracy", "unchanged")

Translate = Callable[..., Path]  # `facekit.translate`


class Scoring:
    """The held-out faces of one domain translated to another, as folders below `out`.

    `source` and `to` are the sides ("a", "b") that are translated from and to; `names` are the domains' names by side.
    """

    def __init__(self, out: Path, names: Mapping[str, str], source: str, to: str, scorer: Scorer, translate: Translate):
        self.out, self.names, self.sides, self.scorer, self.translator = out, names, (source, to), scorer, translate
        self.to = names[to]
        self.folder_name = folder_name(self.to, to)
        self.faces = out / "held" / folder_name(names[source], source)
        self.reference = out / "held" / self.folder_name

    @property
    def device(self) -> str:
        """The name of the device that runs are trained and scored on."""
        return self.scorer.settings.device

    def lay_out(self, plan: Plan, force: bool) -> None:
        """Write the test images of both domains as squares of the training size; existing files are kept.

        Raises InputError if a domain has fewer than two images, because FID and KID compare sets.
        """
        for folder, side in zip((self.faces, self.reference), self.sides, strict=True):
            write_squares(folder, plan.layout.test[side], plan.card.data.size, force)
            self._need_two(folder)

    def _need_two(self, folder: Path) -> None:
        try:
            self.scorer.image_set(folder)
        except InputError as error:
            hint = "give more images, or keep more out of training: --set data.holdout=16"
            raise InputError(f"too few held-out images to score: {error.message}", hint) from error

    def score(self, name: str, weights: Path | None) -> None:
        """Translate the held-out faces with a run's weights and score them; without weights, score the faces."""
        self.measure(name, self.faces if weights is None else self.translate(name, weights), self.path(name))

    def translate(self, name: str, weights: Path) -> Path:
        """Translate the held-out faces with a run's weights; returns the folder."""
        out = self.out / "faces" / self.folder_name / name
        return self._translate(out, weights, self.to)

    def _translate(self, out: Path, weights: Path, to: str, **more: Any) -> Path:
        older = (out / card.NAME).exists() and _time(out / card.NAME) < _time(weights / card.NAME)
        return self.translator(
            self.faces, out, to=to, weights=str(weights), align=False, device=self.device, force=older, **more
        )

    def measure(self, name: str, out: Path, path: Path, **more: Any) -> None:
        """Score a folder of translations and save the score card; a card of the same images and nets is reused."""
        try:
            self._evaluate(out, source=self.faces, save=path, **more)
        except InputError as error:  # no part of a face is found: on drawings that may be
            console.warn(f"{name}: scored without what it preserves of its input: {error.message}")
            self._evaluate(out, save=path, **more)

    def _evaluate(self, out: Path, **more: Any) -> None:
        with console.silenced():  # all runs get the warning that few images make FID too high
            try:
                evaluate(self.scorer, out, self.reference, **more)
            except CardError:  # the card there is of other images or nets
                evaluate(self.scorer, out, self.reference, force=True, **more)

    def path(self, name: str) -> Path:
        """Return the score card of a run."""
        return self.out / "scores" / self.folder_name / f"{name}.yaml"

    def figures(self, name: str) -> dict[str, float] | None:
        """Return a run's scores by metric, or None if there are none."""
        if not self.path(name).exists():
            return None
        found = card.read_made(self.path(name))["scores"]
        return {k: float(v) for k, v in found.items() if k.startswith(METRICS) and not k.endswith(" std")}

    def draw(self, runs: Mapping[str, Path], count: int) -> dict[str, str]:
        """Draw every run's translations of some held-out faces for the report; returns file names by title."""
        paths = [source.path for source in Folder(self.faces).sources()]
        return report.draw_faces(self.out, runs, [images.read(path) for path in spread(paths, count)], self.to)

    def budget(self) -> str:
        """Return how many faces are scored against how many."""
        held, real = len(Folder(self.faces).sources()), len(Folder(self.reference).sources())
        return f"{held} held-out faces translated to {self.to}, against {real} images of it"


class LabelScoring(Scoring):
    """Held-out faces of all labels, translated to every label and compared with all real images of that label."""

    def __init__(self, out: Path, labels: Sequence[str], scorer: Scorer, translate: Translate):
        super().__init__(out, {"x": "x", "all": "all"}, "x", "all", scorer, translate)
        self.labels = labels
        self.faces, self.reference = out / "held", out / "real"

    def lay_out(self, plan: Plan, force: bool) -> None:
        """Write the test images of every label, and all its images."""
        table = plan.layout.readers["x"].labels
        of_label = table.by_label(list(table))
        for label in self.labels:
            write_squares(self.faces / label, plan.layout.test[label], plan.card.data.size, force)
            write_squares(self.reference / label, of_label[label], plan.card.data.size, force)
            self._need_two(self.reference / label)

    def translate(self, name: str, weights: Path) -> Path:
        """Translate the held-out faces to every label and, where the method has a mask, write the masks."""
        out = super().translate(name, weights)
        if checkpoint.load_model(weights).recipe.masks:
            self._translate(self.masks(name), weights, "all", mask=True)
        return out

    def masks(self, name: str) -> Path:
        """Return where a run's masks are."""
        return self.out / "masks" / name

    def measure(self, name: str, out: Path, path: Path, **more: Any) -> None:
        """Score a folder of translations by label, and save the card."""
        if out == self.faces:  # the faces as they are stand for every label
            out = self.out / "faces" / self.to / name
            for label in self.labels:
                shutil.copytree(self.faces, out / label, dirs_exist_ok=True)
        masks = self.masks(name) if self.masks(name).exists() else None
        super().measure(name, out, path, labels=True, masks=masks)

    def draw(self, runs: Mapping[str, Path], count: int) -> dict[str, str]:
        """Draw a sheet per label: some held-out faces and every run's translations of them; returns names by label."""
        names = spread([source.name for source in Folder(self.faces).sources()], count)
        found = {}
        for label in self.labels:
            rows = [[images.read(self.faces / name) for name in names]]
            for run in runs.values():
                out = self.out / "faces" / self.to / run.name / label
                rows.append([images.read(out / name) for name in names])
            found[label] = f"{folder_name(label, 'label')}.png"
            contact_sheet.save_sheet(self.out / found[label], rows, labels=["input", *runs], size=96)
        return found

    def budget(self) -> str:
        """Return how many faces are scored against how many."""
        held, real = len(Folder(self.faces).sources()), len(Folder(self.reference).sources())
        return f"{held} held-out faces translated to each of {len(self.labels)} labels, against {real} images of them"


def open_scoring(out: Path, plan: Plan, to: str | None, scorer: Scorer, translate: Translate) -> Scoring:
    """Return the scoring of a plan's runs: for one of the two domains, or for every label.

    Raises CardError for an unknown domain.
    """
    if isinstance(plan.recipe, Labelled):
        if to not in (None, "all"):
            raise CardError("labelled methods are scored for all labels", "leave out --to")
        return LabelScoring(out, plan.recipe.params.labels, scorer, translate)
    names = {"a": plan.card.domains.a, "b": plan.card.domains.b}
    if to is not None and to not in names.values():
        raise CardError(f"no domain {to!r}{card.suggest(to, names.values())}", f"--to {' or '.join(names.values())}")
    if scorer.settings.classifier:
        raise CardError("--classifier is for labelled methods", "leave it out")
    source, target = ("b", "a") if to == names["a"] else ("a", "b")
    return Scoring(out, names, source, target, scorer, translate)


def folder_name(name: str, side: str) -> str:
    """Return a folder name for a domain; `side` is added where characters are replaced, so that names stay distinct."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".")
    return name if plain == name else f"{plain or 'domain'}-{side}"


def write_squares(folder: Path, paths: Iterable[Path], size: int, force: bool) -> None:
    """Write images as numbered squares of `size` px; existing files are kept unless forced."""
    for index, path in enumerate(paths):
        target = folder / f"{index:05d}.png"
        if force or not target.exists():
            try:
                images.save(images.resize(images.square(images.read(path)), size), target)
            except InputError as error:
                console.warn(f"{error.message}; left out of the scores")


def _time(path: Path) -> float:
    return path.stat().st_mtime
