"""`facekit score-fid`: how far a folder of images is from another, as FID and KID."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import options, score_options


def score_fid(
    out: Annotated[Path, typer.Argument(help="the folder of images to score", metavar="OUT")],
    reference: Annotated[Path, typer.Argument(help="the folder of real images to compare with", metavar="REF")],
    *,
    features: score_options.Features = "clean-fid",
    allow_torchscript: score_options.AllowTorchScript = False,
    preprocessing: score_options.Preprocessing = "inception",
    input_size: score_options.InputSize = None,
    resize: score_options.Resize = None,
    reading: score_options.Reading = "facekit",
    subsets: Annotated[int, typer.Option(min=1, help="subsets that KID is averaged over", metavar="N")] = 100,
    subset_size: Annotated[int, typer.Option(min=2, help="images in a subset, at most all", metavar="N")] = 1000,
    neighbours: Annotated[
        Optional[int],
        typer.Option(min=1, help="also precision, recall, density and coverage; 5 is usual", metavar="K"),
    ] = None,
    patches: Annotated[
        bool, typer.Option("--patches", help="also the sliced Wasserstein distance of small patches, by size of detail")
    ] = False,
    bootstrap: Annotated[
        Optional[int], typer.Option(min=20, help="resample images N times: 95 % intervals; 1000 is usual", metavar="N")
    ] = None,
    source: Annotated[
        Optional[Path],
        typer.Option(help="the faces OUT was translated from: also score what it preserves", rich_help_panel="Source"),
    ] = None,
    segnet: Annotated[str, typer.Option(help="weights that label face parts", rich_help_panel="Source")] = "segnet",
    face: Annotated[str, typer.Option(help="weights that embed faces", rich_help_panel="Source")] = "facefeat",
    truth: Annotated[
        Optional[Path],
        typer.Option(help="the right answers, under OUT's names: also PSNR and SSIM", rich_help_panel="Right answers"),
    ] = None,
    vgg: Annotated[
        Optional[str],
        typer.Option(help="a file of VGG's layers, or download: also a distance", rich_help_panel="Right answers"),
    ] = None,
    groups: Annotated[
        Optional[Path],
        typer.Option(help="a labels file of OUT: also score each group, and the gaps", rich_help_panel="Labels"),
    ] = None,
    labels: Annotated[
        bool,
        typer.Option("--labels", help="OUT and REF hold a folder per label: score each", rich_help_panel="Labels"),
    ] = False,
    classifier: Annotated[
        Optional[str],
        typer.Option(help="weights of a classifier: how often it sees the label", rich_help_panel="Labels"),
    ] = None,
    masks: Annotated[
        Optional[Path], typer.Option(help="the output of translate --mask, by label", rich_help_panel="Labels")
    ] = None,
    save: Annotated[Optional[Path], typer.Option(help="also write the result as a card, a YAML file")] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="keep the features of REF for next time")] = True,
    device: options.Device = "auto",
    workers: options.Workers = None,
    engine: options.EngineName = "local",
    address: options.Address = None,
    gpu_share: options.GpuShare = None,
    seed: options.Seed = None,
    limit: options.Limit = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> dict[str, Any]:
    """Score a folder of images against real ones: FID and KID, and what a translation preserves.

    Lower is closer. Compare only scores of the same features, reference and number of images; below 2,048 images
    trust KID. The features of REF are cached in FACEKIT_CACHE, or else in the user's cache folder.
    --source adds what stays of the faces that were translated, --truth how near OUT is to known right answers.
    With --labels every label that both folders have is scored, and the mean over labels.
    """
    from ..runtime.engine import Engine
    from ..scoring import fid_kid
    from ..scoring.evaluate import evaluate
    from ..scoring.scorer import Settings

    settings = Settings(
        features=str(features),
        preprocessing=preprocessing,
        input_size=input_size,
        resize=resize,
        reading=reading,
        subsets=subsets,
        subset_size=subset_size,
        seed=fid_kid.SEED if seed is None else seed,
        neighbours=neighbours,
        patches=patches,
        bootstrap=bootstrap,
        limit=limit,
        segnet=str(segnet),
        face=str(face),
        vgg=None if vgg is None else str(vgg),
        classifier=None if classifier is None else str(classifier),
        allow_torchscript=allow_torchscript,
        cache=cache,
        workers=workers,
        device=device,
        engine=Engine(engine, address, gpu_share),
    )
    return evaluate(
        settings,
        Path(out),
        Path(reference),
        source=source and Path(source),
        truth=truth and Path(truth),
        labels=labels,
        groups=groups and Path(groups),
        masks=masks and Path(masks),
        save=save and Path(save),
        force=force,
        dry_run=dry_run,
    )
