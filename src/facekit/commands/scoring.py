"""What `ablate` scores every run by: the same held-out faces, what each run makes of them, and how that compares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..training.plan import Plan

FIGURES = ("FID-", "KID-", "IoU-parts", "identity", "accuracy", "unchanged")


class Scoring:
    """The held-out faces of one domain translated to another, as folders below `out`.

    `source` and `to` are the names of the domains; `tools` are score-fid's options.
    """

    def __init__(self, out: Path, source: str, to: str, tools: dict[str, Any], device: str):
        self.out, self.to, self.tools, self.device = out, to, tools, device
        self.faces, self.reference = out / "held" / source, out / "held" / to

    def lay_out(self, plan: Plan, force: bool) -> None:
        """Write the test images of both domains as squares of the training size; files that are there stay."""
        sides = {plan.card.domains.a: "a", plan.card.domains.b: "b"}
        for folder in (self.faces, self.reference):
            write_squares(folder, plan.layout.test[sides[folder.name]], plan.card.data.size, force)

    def score(self, name: str, weights: Path | None) -> None:
        """Translate the held-out faces with a run's weights, none for the faces as they are, and score them."""
        path = self.path(name)
        if path.exists() and self.is_fresh(path, weights):
            return
        self.measure(name, self.faces if weights is None else self.translate(name, weights), path)

    def translate(self, name: str, weights: Path) -> Path:
        """Translate the held-out faces with a run's weights; returns the folder."""
        from .translate import translate

        made = self.out / "faces" / self.to / name
        older = (made / "card.yaml").exists() and _time(made / "card.yaml") < _time(weights / "card.yaml")
        again: dict[str, Any] = {"align": False, "device": self.device, "force": older}
        return translate(self.faces, made, to=self.to, weights=str(weights), **again)

    def measure(self, name: str, made: Path, path: Path, **more: Any) -> None:
        """Score a folder of translations, and save the card; `more` are options of score-fid."""
        from ..errors import InputError
        from ..runtime import console
        from .score_fid import score_fid

        what: dict[str, Any] = {**self.tools, **more, "device": self.device, "save": path, "force": True}
        with console.silenced():  # that few images make FID too high is the same for all
            try:
                score_fid(made, self.reference, source=self.faces, **what)
                return
            except InputError as error:  # no part of a face is found: on drawings that may be
                reason = error.message
            score_fid(made, self.reference, **what)
        console.warn(f"{name}: without what it keeps of its input: {reason}")

    def is_fresh(self, path: Path, weights: Path | None) -> bool:
        """Whether a score card was made with the same features and helpers, and since the run was trained."""
        from ..storage import card as cards

        with_these = cards.load(path).get("options", {})
        same = all(with_these.get(key, value) == value for key, value in self.tools.items())
        return same and (weights is None or _time(path) >= _time(weights / "card.yaml"))

    def path(self, name: str) -> Path:
        """Return the score card of a run."""
        return self.out / "scores" / self.to / f"{name}.yaml"

    def figures(self, name: str) -> dict[str, float] | None:
        """Return a run's scores by metric; None where it has none."""
        from ..storage import card as cards

        if not self.path(name).exists():
            return None
        found = cards.read_made(self.path(name))["scores"]
        return {k: float(v) for k, v in found.items() if k.startswith(FIGURES) and not k.endswith(" std")}

    def faces_shown(self, runs: Mapping[str, Path], count: int) -> dict[str, str]:
        """Draw what every run makes of some held-out faces into the report's folder; returns file names by title."""
        from ..ablation import report as ablation_page
        from ..data.dataset import spread
        from ..storage import images
        from ..storage.folder import Folder

        paths = [source.path for source in Folder(self.faces).sources()]
        return ablation_page.draw_faces(self.out, runs, [images.read(path) for path in spread(paths, count)], self.to)

    def budget(self) -> str:
        """Say how many faces are scored against how many."""
        from ..storage.folder import Folder

        held, real = len(Folder(self.faces).sources()), len(Folder(self.reference).sources())
        return f"{held} held-out faces translated to {self.to}, against {real} images of it"


class LabelScoring(Scoring):
    """The held-out faces of all labels translated to every label, each against all real images of that label."""

    def __init__(self, out: Path, labels: Sequence[str], tools: dict[str, Any], device: str):
        super().__init__(out, "", "all", tools, device)
        self.labels = labels
        self.faces, self.reference = out / "held", out / "real"

    def lay_out(self, plan: Plan, force: bool) -> None:
        """Write the test images of every label, and all its images."""
        has = plan.layout.readers["x"].labels
        for index, label in enumerate(self.labels):
            of_label = [path for path, vector in has.items() if vector[index]]
            write_squares(self.faces / label, plan.layout.test[label], plan.card.data.size, force)
            write_squares(self.reference / label, of_label, plan.card.data.size, force)

    def translate(self, name: str, weights: Path) -> Path:
        """Translate the held-out faces to every label, and where the method has a mask, show it."""
        from ..recipe_api import checkpoint
        from .translate import translate

        made = super().translate(name, weights)
        if checkpoint.load_model(weights).recipe.masks:
            masks: dict[str, Any] = {"align": False, "device": self.device, "mask": True, "force": True}
            translate(self.faces, self.masks(name), to="all", weights=str(weights), **masks)
        return made

    def masks(self, name: str) -> Path:
        """Return where a run's masks are."""
        return self.out / "masks" / name

    def measure(self, name: str, made: Path, path: Path, **more: Any) -> None:
        """Score a folder of translations by label, and save the card."""
        import shutil

        if made == self.faces:  # as they are, they stand for every label
            made = self.out / "faces" / self.to / name
            for label in self.labels:
                shutil.copytree(self.faces, made / label, dirs_exist_ok=True)
        masks = self.masks(name) if self.masks(name).exists() else None
        super().measure(name, made, path, labels=True, masks=masks)

    def faces_shown(self, runs: Mapping[str, Path], count: int) -> dict[str, str]:
        """Draw a sheet per label: some held-out faces, and what every run made of them."""
        from ..data.dataset import spread
        from ..reports import contact_sheet
        from ..storage import images
        from ..storage.folder import Folder

        sources = spread([source.name for source in Folder(self.faces).sources()], count)
        found = {}
        for label in self.labels:
            rows = [[images.read(self.faces / name) for name in sources]]
            for run in runs.values():
                made = self.out / "faces" / self.to / run.name / label
                rows.append([images.read(made / name) for name in sources])
            found[label] = f"{label}.png"
            contact_sheet.save_sheet(self.out / found[label], rows, labels=["input", *runs], size=96)
        return found

    def budget(self) -> str:
        """Say how many faces are scored against how many."""
        from ..storage.folder import Folder

        held, real = len(Folder(self.faces).sources()), len(Folder(self.reference).sources())
        return f"{held} held-out faces translated to each of {len(self.labels)} labels, against {real} images of them"


def open_scoring(out: Path, plan: Plan, to: str | None, tools: dict[str, Any], device: str) -> Scoring:
    """Return how the runs of a plan are scored: towards one of two domains, or towards every label.

    Raises CardError for a domain that is none of the two.
    """
    from ..errors import CardError
    from ..recipe_api.labelled import Labelled
    from ..storage import card as cards

    if isinstance(plan.recipe, Labelled):
        if to not in (None, "all"):
            raise CardError("labelled methods are scored for all labels", "leave out --to")
        return LabelScoring(out, plan.recipe.params.labels, tools, device)
    domains = plan.card.domains
    if to is not None and to not in (domains.a, domains.b):
        names = [domains.a, domains.b]
        raise CardError(f"no domain {to!r}{cards.suggest(to, names)}", f"--to {' or '.join(names)}")
    if tools.get("classifier"):
        raise CardError("--classifier is for labelled methods", "leave it out")
    return (
        Scoring(out, domains.b, domains.a, tools, device)
        if to == domains.a
        else Scoring(out, domains.a, domains.b, tools, device)
    )


def write_squares(folder: Path, paths: Iterable[Path], size: int, force: bool) -> None:
    """Write images as squares of `size` px, numbered; files that are there stay, unless forced."""
    from ..errors import InputError
    from ..runtime import console
    from ..storage import images

    for index, path in enumerate(paths):
        target = folder / f"{index:05d}.png"
        if force or not target.exists():
            try:
                images.save(images.resize(images.square(images.read(path)), size), target)
            except InputError as error:
                console.warn(f"{error.message}; left out of the scores")


def _time(path: Path) -> float:
    return path.stat().st_mtime
