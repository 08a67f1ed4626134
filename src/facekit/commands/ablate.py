"""`facekit ablate`: a method without its parts, its weights swept, other methods beside it, on equal terms."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from . import options

if TYPE_CHECKING:
    from ..ablation.variants import Row, Variant
    from ..training.plan import Plan
    from .scoring import Scoring

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
    a: options.DomainA = None,
    b: options.DomainB = None,
    set: options.Set = None,
    to: Annotated[Optional[str], typer.Option(help="the domain that is scored; else the second")] = None,
    features: Annotated[
        str, typer.Option(help="of FID and KID: clean-fid, or an ONNX or TorchScript file")
    ] = "clean-fid",
    segnet: Annotated[str, typer.Option(help="weights that label face parts")] = "segnet",
    face: Annotated[str, typer.Option(help="weights that embed faces")] = "facefeat",
    classifier: Annotated[
        Optional[str], typer.Option(help="of labelled methods: weights that say whether a face has the label")
    ] = None,
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
    from ..ablation import variants as ablation
    from ..runtime import console
    from ..scoring import extractors
    from ..storage import card as cards
    from .scoring import open_scoring

    out = Path(out)
    given = [cards.assignment(text) for text in set or []]
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
        console.result("\n".join(lines), variants={v.name: v.changes for v in variants}, seeds=seeds)
        return out
    write_cards(out, runs, force)
    if plan:
        console.note(f"ablate: {len(variants)} variants x {seeds} seeds; train them with: make -j 2 -f {out}/Makefile")
        return out
    extractor = extractors.load(features, device=device)  # what is missing is missed before hours of training
    tools = {"features": features, "segnet": segnet, "face": face, **({"classifier": classifier} if classifier else {})}
    score = open_scoring(out, first, to, tools, device)
    score.lay_out(first, force)
    console.note(f"ablate: {len(variants)} variants x {seeds} seeds; features {extractor.name}")
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
    from ..recipe_api.registry import find_entry
    from ..storage import card as cards

    if Path(name).suffix in (".yaml", ".yml"):
        values = cards.load(Path(name))
    else:
        values = {"recipe": find_entry(name).name if not name.endswith(".py") else name}
    if elsewhere:
        values = {**values, "data": {k: v for k, v in values.get("data", {}).items() if k not in ("root", "a", "b")}}
    return values


def quiet_plan(values: dict[str, Any], where: str) -> Plan:
    """Return the plan of a variant; raises CardError for a term, key or value that it does not have."""
    from ..runtime import console
    from ..training.plan import make_plan

    with console.silenced():
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
    from ..ablation import variants as ablation
    from ..errors import CardError
    from ..storage import card as cards
    from ..storage import files

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


def attempt(out: Path, name: str, score: Scoring, device: str, force: bool) -> str | None:
    """Train, translate and score one run, whatever of it is missing; returns why it failed, None if it did not.

    Raises Interrupted, and CardError where the run folder holds another run: those concern the whole ablation.
    """
    from ..errors import CardError, FacekitError, Interrupted
    from ..runtime import console
    from .train import train

    try:
        train(card=out / "cards" / f"{name}.yaml", out=out / "runs" / name, device=device, force=force)
        score.score(name, out / "runs" / name)
    except (Interrupted, CardError):
        raise
    except Exception as error:  # a variant that breaks must not take the others with it
        why = error.message if isinstance(error, FacekitError) else f"{type(error).__name__}: {error}"
        console.warn(f"{name}: {why}")
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
    from ..ablation import variants as ablation
    from ..storage import card as cards

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
    from ..ablation import report as ablation_page
    from ..ablation import variants as ablation
    from ..runtime import console
    from ..storage import card as cards
    from ..storage import files, provenance

    metrics = ablation_page.metrics_of(rows)
    lines = ablation.table(rows, metrics)
    data = plan.card.data
    length = f"{plan.card.run.steps} steps" if plan.card.run.steps is not None else f"{plan.card.run.epochs} epochs"
    budget = f"{length} of batch {data.batch} at {data.size} px for every run, {seeds} seed(s); {score.budget()}"
    files.write_text(out / "table.md", f"{budget}\n\n{ablation.markdown(lines)}\n{ablation_page.NOTE}\n")
    values = {"budget": budget, **score.tools, "rows": ablation.plain(rows)}
    files.write_text(out / "table.yaml", cards.dump({**values, "made": provenance.collect("torch")}))
    trained = {row.variant: out / "runs" / f"{row.variant}-s{min(runs[row.variant])}" for row in rows[:-1]}
    trained = {name: path for name, path in trained.items() if (path / "card.yaml").exists()}
    drawn = score.faces_shown(trained, SHOWN)
    swept = ablation_page.draw_sweeps(out, rows, variants, metrics)
    lost = ablation_page.draw_losses(
        out, {name: [out / "runs" / f"{name}-s{n}" for n in runs[name]] for name in trained}
    )
    shown = {**drawn, **({"sweeps": swept} if swept else {}), **({"losses over steps": lost} if lost else {})}
    ablation_page.write_page(out, f"ablation of {plan.card.recipe}", lines, shown, budget, cards.dump(plan.values))
    console.result(ablation.markdown(lines), table=ablation.plain(rows))
    console.note(f"ablate: done, look at {out}/report.html")
