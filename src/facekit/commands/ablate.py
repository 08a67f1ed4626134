"""`facekit ablate`: variants of a method trained on the same data and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import options


def ablate(
    card: Annotated[str, typer.Argument(help="the card to start from, or a recipe's name", metavar="CARD")],
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
    to: Annotated[Optional[str], typer.Option(help="the domain that is scored (default: the second)")] = None,
    features: Annotated[
        str, typer.Option(help="features for FID and KID: clean-fid, or an ONNX or TorchScript file")
    ] = "clean-fid",
    allow_torchscript: Annotated[
        bool,
        typer.Option("--allow-torchscript", help="run a TorchScript file whatever it does: such files can write files"),
    ] = False,
    segnet: Annotated[str, typer.Option(help="weights that label face parts")] = "segnet",
    face: Annotated[str, typer.Option(help="weights that embed faces")] = "facefeat",
    classifier: Annotated[
        Optional[str], typer.Option(help="classifier that checks the labels of labelled methods")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="write the cards and a Makefile of the runs, and exit")] = False,
    device: options.Device = "auto",
    engine: options.EngineName = "local",
    address: options.Address = None,
    gpu_share: options.GpuShare = None,
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
    from ..ablation import runner
    from ..runtime import console
    from ..runtime.engine import Engine
    from ..scoring.scorer import Scorer, Settings
    from ..validation.best import Validation
    from .translate import translate

    folders = {"root": data, "a": a, "b": b, "limit": limit}
    study = runner.plan_study(out, card, drop or (), sweep or (), against or (), seeds, set or (), folders, seed)
    if dry_run:
        variants = {variant.name: variant.changes for variant in study.variants}
        console.result("\n".join(map(": ".join, variants.items())), variants=variants, seeds=seeds)
        return study.out
    scorer = Scorer(
        Settings(
            features=features,
            segnet=segnet,
            face=face,
            classifier=classifier,
            allow_torchscript=allow_torchscript,
            device=device,
            engine=Engine(engine, address, gpu_share),
        )
    )
    text = runner.compare(study, to, scorer, translate, force, plan, Validation)
    console.result(text, path=study.out, rows=[] if plan else runner.saved_rows(study.out))
    return study.out
