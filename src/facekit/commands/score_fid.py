"""`facekit score-fid`: how far a folder of images is from another, as FID and KID."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from . import options


def score_fid(
    out: Annotated[Path, typer.Argument(help="the folder of images to score", metavar="OUT")],
    reference: Annotated[Path, typer.Argument(help="the folder of real images to compare with", metavar="REF")],
    *,
    features: Annotated[
        str, typer.Option(help="clean-fid (2048-d, downloaded on first use), or an ONNX or TorchScript file")
    ] = "clean-fid",
    allow_torchscript: Annotated[
        bool,
        typer.Option("--allow-torchscript", help="run a TorchScript file whatever it does: such files can write files"),
    ] = False,
    preprocessing: Annotated[
        Literal["inception", "symmetric", "unit", "imagenet", "bytes"],
        typer.Option(
            help="pixels for a features file: inception (v-128)/128, symmetric -1..1, unit 0..1, imagenet, bytes",
            metavar="NAME",
        ),
    ] = "inception",
    input_size: Annotated[
        Optional[int],
        typer.Option(min=8, help="input size of a features file that leaves it open, px [default: 299]", metavar="N"),
    ] = None,
    resize: Annotated[
        Optional[int], typer.Option(min=8, help="crop the middle square and resize every image to N px", metavar="N")
    ] = None,
    reading: Annotated[
        Literal["facekit", "clean-fid"],
        typer.Option(
            help="how files become pixels: facekit, or clean-fid, which ignores EXIF, profiles and transparency",
            metavar="NAME",
        ),
    ] = "facekit",
    subsets: Annotated[int, typer.Option(min=1, help="subsets that KID is averaged over", metavar="N")] = 100,
    subset_size: Annotated[int, typer.Option(min=2, help="images in a subset, at most all", metavar="N")] = 1000,
    neighbours: Annotated[
        Optional[int],
        typer.Option(min=1, help="also precision, recall, density and coverage; 5 is usual", metavar="K"),
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
        masks=masks and Path(masks),
        save=save and Path(save),
        force=force,
        dry_run=dry_run,
    )
