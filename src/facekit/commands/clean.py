"""`facekit clean`: the images of a folder that are worth training on, none of them twice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import options, outputs


@outputs.may_be_urls("out", "report")
def clean(
    source: Annotated[Path, typer.Argument(help="a folder of images")],
    out: Annotated[
        Optional[Path], typer.Argument(help="folder for the images that are kept; else clean in place")
    ] = None,
    *,
    apply: Annotated[bool, typer.Option("--apply", help="apply the changes; without it, only report")] = False,
    report: Annotated[
        Optional[Path], typer.Option(help="folder for report.html and its notes; else OUT, or IN-clean beside IN")
    ] = None,
    split: Annotated[
        Optional[str],
        typer.Option(help="split what is kept into OUT/train, val and test, similar images together", metavar="8:1:1"),
    ] = None,
    keep: Annotated[
        Optional[list[str]], typer.Option(help="report these but keep them: small, grey, near, ...", metavar="REASON")
    ] = None,
    distance: Annotated[
        int,
        typer.Option(
            min=0,
            max=16,
            help="bits of the perceptual hash in which near-duplicates may differ",
            rich_help_panel="Limits",
        ),
    ] = 8,
    colour: Annotated[
        float,
        typer.Option(min=0, max=255, help="mean difference in colour that they may have", rich_help_panel="Limits"),
    ] = 12,
    min_size: Annotated[int, typer.Option(min=1, help="shorter edge, px", rich_help_panel="Limits")] = 64,
    max_blur: Annotated[
        float, typer.Option(min=0, max=1, help="0 is sharp, 1 all blur", rich_help_panel="Limits")
    ] = 0.65,
    workers: options.Workers = None,
    engine: options.EngineName = "local",
    address: options.Address = None,
    seed: options.Seed = None,
    limit: options.Limit = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> dict[str, Any]:
    """Find duplicates, near-duplicates and bad images; keep the best of each group.

    Without --apply only report.html and its notes are written. With it what is kept is copied to OUT; without OUT what
    is not kept moves to IN-clean/rejected. No image of IN is ever deleted.
    """
    from ..cleaning.run import Cleaning, clean_folder
    from ..runtime import console
    from ..runtime.engine import Engine

    cleaning = Cleaning(
        Path(source),
        Path(out) if out else None,
        apply,
        Path(report) if report else None,
        split,
        keep or [],
        distance,
        colour,
        min_size,
        max_blur,
        seed,
        limit,
    )
    if dry_run:
        count = len(cleaning.images()[0])
        cleaning.weights(), cleaning.spared()
        console.result(f"clean: {count} images, report in {cleaning.place}", sources=count, options=cleaning.options)
        return {"options": cleaning.options}
    return clean_folder(cleaning, workers, force, Engine(engine, address))
