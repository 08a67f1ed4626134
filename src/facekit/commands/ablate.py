"""`facekit ablate`: a method without its parts, its weights swept, other methods beside it, on equal terms."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from . import options

if TYPE_CHECKING:
    from ..ablation import Row, Variant
    from ..plan import Plan

SHOWN = 8  # faces in the report
INPUT = "input"  # the row of the faces as they are


def ablate(
    base: Annotated[str, typer.Argument(help="the card to start from, or a recipe's name", metavar="CARD")],
    *,
    out: Annotated[Path, typer.Option(help="folder for cards, runs, faces, scores and the report")],
    drop: Annotated[
        Optional[list[str]], typer.Option(help="a variant without TERM, or without TERM+TERM", metavar="TERM")
    ] = None,
    sweep: Annotated[
        Optional[list[str]], typer.Option(help="a variant per value: losses.cycle=1,10,100", metavar="KEY=V,V")
    ] = None,
    against: Annotated[
        Optional[list[str]], typer.Option(help="another method on the same data and steps: a card or a recipe's name")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="runs of every variant, with seeds from the card's on")] = 1,
    data: Annotated[Optional[Path], typer.Option(help="folder with trainA/ trainB/, or a/ b/")] = None,
    a: Annotated[Optional[Path], typer.Option("--a", help="images of the first domain")] = None,
    b: Annotated[Optional[Path], typer.Option("--b", help="images of the second domain")] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="KEY.KEY=VALUE: change a value of every variant's card")
    ] = None,
    to: Annotated[Optional[str], typer.Option(help="the domain that is scored; else the second")] = None,
    features: Annotated[
        str, typer.Option(help="of FID and KID: clean-fid, or an ONNX or TorchScript file")
    ] = "clean-fid",
    segnet: Annotated[str, typer.Option(help="weights that label face parts")] = "segnet",
    face: Annotated[str, typer.Option(help="weights that embed faces")] = "facefeat",
    plan: Annotated[bool, typer.Option("--plan", help="write the cards and a Makefile of the runs, and stop")] = False,
    device: options.Device = "auto",
    seed: options.Seed = None,
    limit: options.Limit = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Train variants of a card and compare them.

    Every variant is trained, translates the same held-out faces, and is scored. OUT/report.html shows them side by
    side, OUT/table.md and table.yaml have the figures with their spread over seeds. Stopped, or after more variants
    were asked for, the same command trains only what is missing. A variant that fails is a row that says why.
    """
    from .. import ablation, report
    from .. import card as cards
    from .. import features as extractors

    out = Path(out)
    given = [cards.assignment(text) for text in set_ or []]
    folders = {key: str(path) for key, path in (("root", data), ("a", a), ("b", b)) if path}
    if folders or limit:
        given.append({"data": {**folders, **({"limit": limit} if limit else {})}})
    values = cards.merge(_card_of(base, bool(folders)), *given, {} if seed is None else {"seed": seed})
    first = quiet_plan(values, base)  # its card has every default written out: other methods get the same
    others = [_card_of(name, False) for name in against or []]
    variants = ablation.plan_variants(first.values, drop or [], sweep or [], others)
    for variant in variants[1:]:
        quiet_plan(variant.values, variant.name)
    runs = {variant.name: seeded(variant, seeds) for variant in variants}
    if dry_run:
        lines = [f"{variant.name}: {variant.changes}" for variant in variants]
        report.result("\n".join(lines), variants={v.name: v.changes for v in variants}, seeds=seeds)
        return out
    write_cards(out, runs, force)
    if plan:
        report.note(f"ablate: {len(variants)} variants x {seeds} seeds; train them with: make -j 2 -f {out}/Makefile")
        return out
    side = side_of(first, to)
    extractor = extractors.load(features, device=device)  # what is missing is missed before hours of training
    names = first.card.domains
    source, target = (names.a, names.b) if side == "b" else (names.b, names.a)
    score = Scoring(out, source, target, {"features": features, "segnet": segnet, "face": face}, device)
    score.lay_out(first, side, force)
    report.note(f"ablate: {len(variants)} variants x {seeds} seeds; features {extractor.name}")
    failed: dict[str, dict[int, str]] = {name: {} for name in runs}
    for index in range(seeds):  # all variants once, then again with the next seed: a stop leaves a fair comparison
        for name, of_seed in runs.items():
            number = sorted(of_seed)[index]
            why = attempt(out, f"{name}-s{number}", score, device, force)
            if why:
                failed[name][number] = why
    rows = collect(out, variants, runs, failed, score)
    write_report(out, rows, variants, runs, first, score, seeds)
    return out


def _card_of(name: str, elsewhere: bool) -> dict[str, Any]:
    """Return the values of a card file, or of a recipe's name; `elsewhere`: its own data folders are left out."""
    from .. import card as cards
    from ..recipe import find_entry

    if Path(name).suffix in (".yaml", ".yml"):
        values = cards.load(Path(name))
    else:
        values = {"recipe": find_entry(name).name if not name.endswith(".py") else name}
    if elsewhere:
        values = {**values, "data": {k: v for k, v in values.get("data", {}).items() if k not in ("root", "a", "b")}}
    return values


def quiet_plan(values: dict[str, Any], where: str) -> Plan:
    """Return the plan of a variant; raises CardError for a term, key or value that it does not have."""
    from .. import report
    from ..plan import make_plan

    with report.silenced():
        return make_plan([copy.deepcopy(values)], where)


def seeded(variant: Variant, seeds: int) -> dict[int, dict[str, Any]]:
    """Return a variant's cards by seed."""
    first = int(variant.values.get("seed", 0))
    return {
        number: {"facekit": 1, "command": "train", **variant.values, "seed": number}
        for number in range(first, first + seeds)
    }


def write_cards(out: Path, runs: dict[str, dict[int, dict[str, Any]]], force: bool) -> None:
    """Write a card per run, and a Makefile that trains them; raises CardError where another ablation is there."""
    from .. import ablation, files
    from .. import card as cards
    from ..errors import CardError

    made = []
    for index in range(len(next(iter(runs.values())))):  # all variants once, then again with the next seed
        for name, of_seed in runs.items():
            number, values = sorted(of_seed.items())[index]
            path = out / "cards" / f"{name}-s{number}.yaml"
            if path.exists() and not force:
                changed = cards.differences(cards.load(path), values)
                if changed:
                    raise CardError(
                        f"{path} is of another ablation: " + "; ".join(changed),
                        "choose another --out, or --force to replace this one",
                    )
            else:
                files.make_folder(path.parent)
                files.write_text(path, cards.dump(values))
            made.append((str(path), str(out / "runs" / path.stem)))
    files.write_text(out / "Makefile", ablation.makefile(made))


def side_of(plan: Plan, to: str | None) -> str:
    """Return which domain is scored, 'a' or 'b'; raises CardError for a name that is none of the two."""
    from .. import card as cards
    from ..errors import CardError

    names = {plan.card.domains.a: "a", plan.card.domains.b: "b"}
    if to is not None and to not in names:
        raise CardError(f"no domain {to!r}{cards.suggest(to, names)}", f"--to {' or '.join(names)}")
    return names[to] if to else "b"


class Scoring:
    """The same held-out faces for every run, what each makes of them, and the scores of that: folders below `out`.

    `source` and `to` are the names of the domains; `tools` are score-fid's features, segnet and face.
    """

    def __init__(self, out: Path, source: str, to: str, tools: dict[str, str], device: str):
        self.out, self.to, self.tools, self.device = out, to, tools, device
        self.faces, self.reference = out / "held" / source, out / "held" / to

    def lay_out(self, plan: Plan, side: str, force: bool) -> None:
        """Write the test images of both domains as squares of the training size; files that are there stay."""
        from .. import images, report
        from ..errors import InputError

        sources = {self.faces: plan.layout.test["a" if side == "b" else "b"], self.reference: plan.layout.test[side]}
        for folder, paths in sources.items():
            for index, path in enumerate(paths):
                target = folder / f"{index:05d}.png"
                if force or not target.exists():
                    try:
                        images.save(images.resize(images.square(images.read(path)), plan.card.data.size), target)
                    except InputError as error:
                        report.warn(f"{error.message}; left out of the scores")

    def score(self, name: str, weights: Path | None) -> None:
        """Translate the held-out faces with a run's weights, none for the faces as they are, and score them."""
        from .. import report
        from ..errors import InputError
        from .score_fid import score_fid
        from .translate import translate

        made = self.faces
        path = self.path(name)
        if path.exists() and self.is_fresh(path, weights):
            return
        if weights is not None:
            made = self.out / "faces" / self.to / name
            older = (made / "card.yaml").exists() and _time(made / "card.yaml") < _time(weights / "card.yaml")
            again = {"align": False, "device": self.device, "force": older}
            translate(self.faces, made, to=self.to, weights=str(weights), **again)  # type: ignore[arg-type]
        what = {**self.tools, "device": self.device}
        with report.silenced():  # that few images make FID too high is the same for all
            try:
                score_fid(made, self.reference, source=self.faces, save=path, force=True, **what)  # type: ignore[arg-type]
                return
            except InputError as error:  # no part of a face is found: on drawings that may be
                reason = error.message
            score_fid(made, self.reference, save=path, force=True, **what)  # type: ignore[arg-type]
        report.warn(f"{name}: without what it keeps of its input: {reason}")

    def is_fresh(self, path: Path, weights: Path | None) -> bool:
        """Whether a score card was made with the same features and helpers, and since the run was trained."""
        from .. import card as cards

        with_these = cards.load(path).get("options", {})
        same = all(with_these.get(key, value) == value for key, value in self.tools.items())
        return same and (weights is None or _time(path) >= _time(weights / "card.yaml"))

    def path(self, name: str) -> Path:
        """Return the score card of a run."""
        return self.out / "scores" / self.to / f"{name}.yaml"

    def figures(self, name: str) -> dict[str, float] | None:
        """Return a run's scores by metric; None where it has none."""
        from .. import card as cards

        if not self.path(name).exists():
            return None
        found = cards.read_made(self.path(name))["scores"]
        wanted = ("FID-", "KID-", "IoU-parts", "identity")
        return {k: float(v) for k, v in found.items() if k.startswith(wanted) and not k.endswith(" std")}


def _time(path: Path) -> float:
    return path.stat().st_mtime


def attempt(out: Path, name: str, score: Scoring, device: str, force: bool) -> str | None:
    """Train, translate and score one run, whatever of it is missing; returns why it failed, None if it did not.

    Raises Interrupted, and CardError where the run folder holds another run: those concern the whole ablation.
    """
    from .. import report
    from ..errors import CardError, FacekitError, Interrupted
    from .train import train

    try:
        train(card=out / "cards" / f"{name}.yaml", out=out / "runs" / name, device=device, force=force)
        score.score(name, out / "runs" / name)
    except (Interrupted, CardError):
        raise
    except Exception as error:  # a variant that breaks must not take the others with it
        why = error.message if isinstance(error, FacekitError) else f"{type(error).__name__}: {error}"
        report.warn(f"{name}: {why}")
        return why
    return None


def collect(
    out: Path,
    variants: Sequence[Variant],
    runs: dict[str, dict[int, dict[str, Any]]],
    failed: dict[str, dict[int, str]],
    score: Scoring,
) -> list[Row]:
    """Return the table: a row per variant, in which all figures stand beside the first's, and one of the input."""
    from .. import ablation
    from .. import card as cards

    score.score(INPUT, None)
    rows: list[Row] = []
    first: dict[str, list[float]] = {}
    for index, variant in enumerate(variants):
        by_metric: dict[str, list[float]] = {}
        parameters = None
        for number in runs[variant.name]:
            name = f"{variant.name}-s{number}"
            figures = None if number in failed[variant.name] else score.figures(name)
            if figures is None:
                continue
            made = cards.read_made(out / "runs" / name / "card.yaml")
            parameters = sum(made.get("parameters", {}).values()) or None
            steps = made["steps"] - made["last_start"]["from_step"]
            if steps:
                figures["s/step"] = made["last_start"]["seconds"] / steps
            for metric, value in figures.items():
                by_metric.setdefault(metric, []).append(value)
        found = {m: ablation.figure(v, first.get(m)) for m, v in by_metric.items()}
        rows.append(ablation.Row(variant.name, variant.changes, found, failed[variant.name], parameters))
        first = by_metric if index == 0 else first  # where it failed there is nothing to differ from
    untouched = {m: ablation.Figure((v,), v, None) for m, v in (score.figures(INPUT) or {}).items()}
    return [*rows, ablation.Row(INPUT, "the faces as they are", untouched, {})]


def write_report(
    out: Path,
    rows: Sequence[Row],
    variants: Sequence[Variant],
    runs: dict[str, dict[int, dict[str, Any]]],
    plan: Plan,
    score: Scoring,
    seeds: int,
) -> None:
    """Write table.yaml, table.md and report.html with its pictures."""
    from .. import ablation, ablation_page, files, images, report
    from .. import card as cards
    from ..folder import Folder
    from ..layout import spread

    metrics = ablation_page.metrics_of(rows)
    lines = ablation.table(rows, metrics)
    held, reference = Folder(score.faces).sources(), Folder(score.reference).sources()
    data = plan.card.data
    length = f"{plan.card.run.steps} steps" if plan.card.run.steps is not None else f"{plan.card.run.epochs} epochs"
    budget = (
        f"{length} of batch {data.batch} at {data.size} px for every run, {seeds} seed(s); "
        f"{len(held)} held-out faces translated to {score.to}, against {len(reference)} images of it"
    )
    files.write_text(out / "table.md", f"{budget}\n\n{ablation.markdown(lines)}\n{ablation_page.NOTE}\n")
    values = {"budget": budget, **score.tools, "rows": ablation.plain(rows)}
    files.write_text(out / "table.yaml", cards.dump({**values, "made": cards.provenance("torch")}))
    trained = {row.variant: out / "runs" / f"{row.variant}-s{min(runs[row.variant])}" for row in rows[:-1]}
    trained = {name: path for name, path in trained.items() if (path / "card.yaml").exists()}
    faces = [images.read(path) for path in spread([source.path for source in held], SHOWN)]
    drawn = ablation_page.draw_faces(out, trained, faces, score.to)
    swept = ablation_page.draw_sweeps(out, rows, variants, metrics)
    lost = ablation_page.draw_losses(
        out, {name: [out / "runs" / f"{name}-s{n}" for n in runs[name]] for name in trained}
    )
    shown = {**drawn, **({"sweeps": swept} if swept else {}), **({"losses over steps": lost} if lost else {})}
    ablation_page.write_page(out, f"ablation of {plan.card.recipe}", lines, shown, budget, cards.dump(plan.values))
    report.result(ablation.markdown(lines), table=ablation.plain(rows))
    report.note(f"ablate: done, look at {out}/report.html")
