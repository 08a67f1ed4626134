"""Running an ablation: train the missing runs, score every run, write the table and the report."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CardError, FacekitError, Interrupted, OutputError
from ..recipe_api.registry import find, find_entry, is_file, refuse_code, was_imported
from ..runtime import console
from ..runtime.engine import Engine
from ..runtime.workers import in_order, pool_of
from ..scoring.scorer import Scorer
from ..storage import card, files, lock, provenance
from ..training import run
from ..training.plan import Plan, make_plan
from . import curves, report, table
from .makefile import makefile
from .scoring import Scoring, Translate, open_scoring
from .table import Figure, Row, figure
from .variants import Variant, plan_variants

SHOWN = 8  # faces in the report
INPUT = "input"  # the row of the faces as they are
OWN = ("Makefile", "report.html", "table.md", "table.yaml", "losses.png", "sweep.png", curves.PICTURE)  # beside folders

Planned = tuple[str, int, str]
"""Variant, seed and name of a run."""


@dataclass
class Study:
    """What an ablation compares: variants of the card of `plan`, each with one card per seed."""

    out: Path
    plan: Plan
    variants: list[Variant]
    cards: dict[str, dict[int, dict[str, Any]]]
    failed: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        """The number of runs of every variant."""
        return len(next(iter(self.cards.values())))

    def runs(self) -> list[Planned]:
        """Return variant, seed and name of every run: all variants with the first seed, then with the next, and so on.

        So a study that is stopped early has as many runs of each variant as possible.
        """
        order = [(index, name) for index in range(self.seeds) for name in self.cards]
        return [(name, seed, f"{name}-s{seed}") for i, name in order for seed in [sorted(self.cards[name])[i]]]

    def recipe_files(self) -> tuple[str, ...]:
        """Return the recipe files that the variants are trained with."""
        named = {str(variant.values["recipe"]) for variant in self.variants}
        return tuple(sorted(name for name in named if is_file(name)))

    def folder(self, name: str) -> Path:
        """Return the run folder of a run."""
        return self.out / "runs" / name


def plan_study(
    out: Path,
    base: str,
    drops: Sequence[str] = (),
    sweeps: Sequence[str] = (),
    against: Sequence[str] = (),
    seeds: int = 1,
    changes: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Study:
    """Plan the variants of a card or recipe `base` and check every card; writes nothing.

    `changes` are KEY.KEY=VALUE; `data` holds values of the card's section `data`, which replace its folders. Raises
    CardError for a term, key or value that a variant does not have.
    """
    data = {key: str(value) if isinstance(value, Path) else value for key, value in (data or {}).items() if value}
    given = [card.assignment(text) for text in changes] + ([{"data": data}] if data else [])
    named = card.merge(*given).get("recipe") is not None
    elsewhere = bool({"root", "a", "b"} & data.keys())
    values = card.merge(_card_of(base, elsewhere, named), *given, {} if seed is None else {"seed": seed})
    plan = _quiet_plan(values, base)  # its card has every default written out: other methods get the same
    variants = plan_variants(plan.values, drops, sweeps, [_card_of(name, False) for name in against])
    for variant in variants[1:]:
        _quiet_plan(variant.values, variant.name)
    return Study(Path(out), plan, variants, {variant.name: _seeded(variant, seeds) for variant in variants})


def _card_of(name: str, elsewhere: bool, named: bool = False) -> dict[str, Any]:
    """Return the values of a card file, or of a recipe's name; `elsewhere`: its own data folders are left out.

    Raises CardError where the card names a recipe file, unless a recipe is `named` on the command line.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        values = card.load(Path(name))
        if not named:
            refuse_code(values, f"facekit ablate {name} --set recipe={{}}", name)
    else:
        values = {"recipe": find_entry(name).name if not name.endswith(".py") else name}
    if elsewhere:
        values = {**values, "data": {k: v for k, v in values.get("data", {}).items() if k not in ("root", "a", "b")}}
    return values


def _quiet_plan(values: dict[str, Any], where: str) -> Plan:
    with console.silenced():
        return make_plan([copy.deepcopy(values)], where)


def _seeded(variant: Variant, seeds: int) -> dict[int, dict[str, Any]]:
    """Return a variant's cards by seed."""
    first = int(variant.values.get("seed", 0))
    return {
        number: {"facekit": 1, "command": "train", **variant.values, "seed": number}
        for number in range(first, first + seeds)
    }


def write_cards(study: Study, force: bool = False) -> None:
    """Write a card per run, and a Makefile that trains them.

    Raises CardError if the folder holds another ablation, OutputError if it holds files that facekit did not write;
    `force` replaces both.
    """
    _refuse_foreign(study.out, force)
    files.sweep(study.out, ours=False)
    for place in ("cards", "held", "scores"):
        files.sweep(study.out / place)
    pairs, recipes = [], []
    for variant, seed, name in study.runs():
        path, values = study.out / "cards" / f"{name}.yaml", study.cards[variant][seed]
        if path.exists() and not force:
            changed = card.differences(card.load(path), values)
            if changed:
                raise CardError(
                    f"{path} is of another ablation: " + "; ".join(changed),
                    "choose another --out, or --force to replace this one",
                )
        else:
            files.write_text(path, card.dump(values))
        pairs.append((str(path), str(study.folder(name))))
        recipes.append(values["recipe"] if is_file(values["recipe"]) else "")
    files.write_text(study.out / "Makefile", makefile(pairs, recipes))


def _refuse_foreign(out: Path, force: bool) -> None:
    """Raise OutputError if `out` holds files that an ablation would overwrite and did not write."""
    ours = any((out / "cards").glob("*.yaml"))
    foreign = [] if ours else [name for name in OWN if (out / name).exists()]
    path = out / "Makefile"
    if ours and path.exists() and "facekit" not in path.read_text(encoding="utf-8", errors="replace")[:400].lower():
        foreign = [path.name]
    if foreign and not force:
        raise OutputError(
            f"{out} holds files that facekit did not write and an ablation would replace: {', '.join(foreign)}",
            "choose another --out, or --force to replace them",
        )


def compare(
    study: Study,
    to: str | None,
    scorer: Scorer,
    translate: Translate,
    force: bool = False,
    plan_only: bool = False,
    validator: run.OpenValidator | None = None,
) -> str:
    """Write the cards, train, translate and score what is missing, and write table and report; returns the table.

    With `plan_only` only the cards and the Makefile are written, and the path of the Makefile is returned. `translate`
    is `facekit.translate`, `validator` as of `training.run.train`. A variant that fails becomes a row that says why.
    Where the scorer's engine is a cluster, its workers do the runs, side by side.
    Raises InputError before any training if there are too few held-out images to score.
    """
    study.plan.refuse_folder(study.out)
    scoring = open_scoring(study.out, study.plan, to, scorer, translate)
    with lock.held(study.out, "facekit ablate"):
        write_cards(study, force)
        if plan_only:
            console.note(f"ablate: train them with: make -j 2 -f '{study.out}/Makefile'")
            return str(study.out / "Makefile")
        features = scorer.extractor.name  # so that missing weights are an error now, not after hours of training
        scoring.lay_out(study.plan, force)
        console.note(f"ablate: {len(study.variants)} variants x {study.seeds} seeds; features {features}")
        scoring.score(INPUT, None)
        runs = study.runs()
        _write(study, scoring, 0, len(runs))
        attempt = Attempt(study.out, scoring, force, validator, study.recipe_files())
        with (
            scorer.settings.engine.connected(scorer.settings.device) as engine,
            pool_of(0 if engine.remote else 1, True, _seeing(engine, study), len(runs)) as pool,
        ):
            for done, ((variant, seed, name), reason) in enumerate(in_order(pool, attempt, runs, 1), 1):
                if reason:
                    console.warn(f"{name}: {reason}")
                    study.failed.setdefault(variant, {})[seed] = reason
                if done < len(runs):
                    _write(study, scoring, done, len(runs))
        return _write(study, scoring, len(runs), len(runs))


def _seeing(engine: Engine, study: Study) -> Engine:
    """Return the engine with the study's folder and the data that its cards name."""
    data = study.plan.card.data
    return engine.seeing(study.out / "Makefile", data.root, data.a, data.b, *study.recipe_files())


@dataclass(frozen=True)
class Attempt:
    """Trains, translates and scores a run of the study in `out`, skipping what is done, also in another process."""

    out: Path
    scoring: Scoring
    force: bool
    validator: run.OpenValidator | None
    recipes: tuple[str, ...] = ()
    """Recipe files that planning has run, because they were named: another process may run them, too."""

    def __call__(self, planned: Planned) -> str | None:
        """Do one run; returns why it failed, or None.

        Raises Interrupted, and CardError if the run folder holds another run: these end the whole ablation.
        """
        for file in self.recipes:
            if not was_imported(file):
                find(file)
        _, _, name = planned
        path, folder, device = self.out / "cards" / f"{name}.yaml", self.out / "runs" / name, self.scoring.device
        try:
            run.train({}, (), path, folder, device, self.force, validator=self.validator)
            self.scoring.score(name, folder)
        except (Interrupted, CardError):
            raise
        except Exception as error:  # one broken variant must not stop the others
            return error.message if isinstance(error, FacekitError) else f"{type(error).__name__}: {error}"
        return None


def rows_of(study: Study, scoring: Scoring) -> list[Row]:
    """Return the table: a row per variant, compared with the first variant, and a row for the untranslated input."""
    rows: list[Row] = []
    first: dict[str, list[float]] = {}
    for index, variant in enumerate(study.variants):
        failed = study.failed.get(variant.name, {})
        by_metric: dict[str, list[float]] = {}
        parameters = None
        for seed in study.cards[variant.name]:
            name = f"{variant.name}-s{seed}"
            path = study.folder(name) / card.NAME
            figures = scoring.figures(name) if path.exists() and seed not in failed else None
            if figures is None:
                continue
            results = card.read_made(path)
            parameters = sum(results.get("parameters", {}).values()) or None
            steps = results["steps"] - results["last_start"]["from_step"]
            if steps:
                figures["s/step"] = results["last_start"]["seconds"] / steps
            for metric, value in figures.items():
                by_metric.setdefault(metric, []).append(value)
        found = {m: figure(v, first.get(m)) for m, v in by_metric.items()}
        rows.append(Row(variant.name, variant.changes, found, failed, parameters))
        first = by_metric if index == 0 else first  # where it failed there is nothing to differ from
    untouched = {m: Figure((v,), v, None) for m, v in (scoring.figures(INPUT) or {}).items()}
    return [*rows, Row(INPUT, "the faces as they are", untouched, {})]


def _write(study: Study, scoring: Scoring, done: int, total: int) -> str:
    """Write report.html and, when all runs are done, table.yaml, table.md and the pictures; returns the table."""
    out, plan, rows = study.out, study.plan, rows_of(study, scoring)
    metrics = table.metrics_of(rows)
    lines = table.table(rows, metrics)
    length = f"{plan.card.run.steps} steps" if plan.card.run.steps is not None else f"{plan.card.run.epochs} epochs"
    size = f"batch {plan.card.data.batch} at {plan.card.data.size} px"
    budget = f"{length} of {size} for every run, {study.seeds} seed(s); {scoring.budget()}"
    title, shown = f"ablation of {plan.card.recipe}", {}
    if done == total:
        along = learning_curves(study)
        shown = _draw(study, scoring, rows, metrics, along)
        values = {"budget": budget, **scoring.scorer.settings.options(source=True), "rows": table.plain(rows)}
        values["curves"] = curves.plain(along)
        files.write_text(out / "table.yaml", card.dump({**values, "made": provenance.collect("torch")}))
        files.write_text(out / "table.md", f"{budget}\n\n{table.markdown(lines)}\n{report.NOTE}\n")
        console.note(f"ablate: done, look at {out}/report.html")
    report.write_page(out, title, lines, shown, budget, card.dump(plan.values), done, total)
    return table.markdown(lines)


def saved_rows(out: Path) -> list[dict[str, Any]]:
    """Return the rows of a finished ablation's table.yaml, as plain data."""
    return card.load(out / "table.yaml").get("rows", [])


def learning_curves(study: Study) -> curves.Curves:
    """Return the scores along the runs of a study, where `run.validate_every` asked for them."""
    runs = {
        name: {
            seed: (study.folder(f"{name}-s{seed}"), values["data"]["batch"] * values["run"]["accumulate"])
            for seed, values in by_seed.items()
        }
        for name, by_seed in study.cards.items()
    }
    return curves.read_curves(runs)


def _draw(
    study: Study, scoring: Scoring, rows: Sequence[Row], metrics: Sequence[str], along: curves.Curves
) -> dict[str, str]:
    """Draw faces, sweeps and losses; returns file names by heading."""
    first = {name: study.folder(f"{name}-s{min(seeds)}") for name, seeds in study.cards.items()}
    trained = {name: path for name, path in first.items() if (path / card.NAME).exists()}
    logs = {name: [study.folder(f"{name}-s{seed}") for seed in study.cards[name]] for name in trained}
    drawn = scoring.draw(trained, SHOWN)
    found = {"sweeps": report.draw_sweeps(study.out, rows, study.variants, metrics)}
    found["losses over steps"] = report.draw_losses(study.out, logs)
    untouched = {metric: one.mean for metric, one in rows[-1].figures.items()}
    found["scores along the runs"] = curves.draw_curves(study.out, along, untouched)
    return {**drawn, **{heading: name for heading, name in found.items() if name}}
