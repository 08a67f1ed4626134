"""`facekit train-segnet`: the net that tells the parts of a face, from photos with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import options
from .train import train


def train_segnet(
    recipe: Annotated[str, typer.Argument(help="segnet, segnet-vgg or segnet-paper")] = "segnet",
    *,
    data: Annotated[
        Optional[Path],
        typer.Option(help="CelebAMask-HQ, or a folder with images/ masks/ classes.txt (or train/ test/)"),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="run folder; runs/RECIPE if absent")] = None,
    card: Annotated[Optional[Path], typer.Option(help="a YAML card to start from; flags win over it")] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="KEY.KEY=VALUE: change a value of the card")
    ] = None,
    trunk: Annotated[Optional[str], typer.Option(help="unet, vgg16 or vgg19")] = None,
    weights: Annotated[Optional[str], typer.Option(help="VGG's first weights: none, download or a file")] = None,
    size: Annotated[Optional[int], typer.Option(help="edge of a training image, px")] = None,
    batch: Annotated[Optional[int], typer.Option(help="images per step")] = None,
    steps: Annotated[Optional[int], typer.Option(help="length of the run")] = None,
    lr: Annotated[Optional[float], typer.Option(help="learning rate")] = None,
    precision: Annotated[Optional[str], typer.Option(help="fp32 or bf16", rich_help_panel="Computing")] = None,
    init: Annotated[Optional[str], typer.Option(help="weights to start from: a run folder, a file or a name")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="also write TensorBoard events")] = False,
    device: options.Device = "auto",
    seed: options.Seed = None,
    limit: options.Limit = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Train a segmenter of face parts.

    A run like any other: model.safetensors, previews, card.yaml; and overlays.png with the IoU of every class on the
    test photos. `facekit train ugatit-face --set params.segnet=runs/segnet` and `facekit score-fid --segnet` take it.
    """
    chosen = {"params.trunk": trunk, "params.weights": weights}
    given = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    return train(
        recipe,
        data=data,
        out=out,
        card=card,
        set_=[*(set_ or []), *given],
        size=size,
        batch=batch,
        steps=steps,
        lr=lr,
        precision=precision,
        init=init,
        tensorboard=tensorboard,
        device=device,
        seed=seed,
        limit=limit,
        force=force,
        dry_run=dry_run,
    )
