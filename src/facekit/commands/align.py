"""`facekit align`: photos in, upright square faces out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from . import options, outputs


@outputs.may_be_urls("out")
def align(
    source: Annotated[Path, typer.Argument(help="a folder of photos, or one photo")],
    out: Annotated[Path, typer.Argument(help="folder for the faces")],
    *,
    size: Annotated[int, typer.Option(min=16, help="edge of a face image, px")] = 256,
    margin: Annotated[Optional[float], typer.Option(help="space around the face; the template's if absent")] = None,
    template: Annotated[
        Literal["portrait", "ffhq", "arcface", "anime"],
        typer.Option(help="how the face is framed: anime keeps hair and chin of drawings"),
    ] = "portrait",
    faces: Annotated[
        Literal["largest", "all"], typer.Option(help="which faces of a photo", rich_help_panel="Faces")
    ] = ("largest"),
    detector: options.Detector = "auto",
    model_root: options.ModelRoot = None,
    workers: options.Workers = None,
    engine: options.EngineName = "local",
    address: options.Address = None,
    limit: options.Limit = None,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Find the faces in photos and drawings, level the eyes and cut out squares.

    manifest.jsonl notes for every face its photo, box, five landmarks, roll angle and the warp, with which
    `translate --paste` puts the face back. Photos without a face are lines of failed.jsonl. index.html shows the faces,
    those that the detector is least sure of first.
    """
    from ..faces.align_folder import AlignOptions, align_folder
    from ..runtime.engine import Engine

    wanted = AlignOptions(size, margin, faces == "all", detector, model_root, template)
    run = {"limit": limit, "shard": shard, "force": force, "retry_failed": retry_failed}
    align_folder(Path(source), Path(out), wanted, workers, dry_run, Engine(engine, address), **run)
    return Path(out)
