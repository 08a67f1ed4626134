"""`facekit smooth-edges`: drawings in, the same drawings with blurred contours out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from . import options, outputs


@outputs.may_be_urls("out")
def smooth_edges(
    source: Annotated[Path, typer.Argument(help="a folder of drawings, or one drawing")],
    out: Annotated[Path, typer.Argument(help="folder for the smoothed drawings")],
    *,
    backend: Annotated[
        Literal["opencv", "skimage"], typer.Option(help="opencv: the published numbers; skimage: as ArtifyGAN does it")
    ] = "opencv",
    size: Annotated[
        Optional[int],
        typer.Option(min=16, help="first crop the central square and resize it to N px (default: keep the size)"),
    ] = None,
    workers: options.Workers = None,
    engine: options.EngineName = "local",
    address: options.Address = None,
    limit: options.Limit = None,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Blur drawings along their edges and nowhere else, for the discriminators of CartoonGAN and AnimeGAN.

    Every drawing becomes a PNG of the same name. Drawings that cannot be read are listed in failed.jsonl.
    """
    from ..data.smooth_folder import smooth_folder
    from ..runtime import console
    from ..runtime.engine import Engine
    from ..storage.folder import open_source

    source, out = Path(source), Path(out)
    found = open_source(source, out)
    given: dict[str, Any] = {"source": str(source), "out": str(out), "backend": backend}
    if size:
        given["size"] = size
    if dry_run:
        console.result(f"smooth-edges: {len(found)} images into {out}", sources=len(found), options=given)
        return out
    run = {"limit": limit, "shard": shard, "force": force, "retry_failed": retry_failed}
    smooth_folder(found, out, given, backend, size, workers, Engine(engine, address), **run)
    return out
