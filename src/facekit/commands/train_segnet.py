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
    out: options.RunFolder = None,
    card: options.TrainCard = None,
    set: options.Set = None,
    trunk: Annotated[Optional[str], typer.Option(help="unet, vgg16 or vgg19")] = None,
    weights: Annotated[Optional[str], typer.Option(help="VGG's first weights: none, download or a file")] = None,
    size: options.Size = None,
    batch: options.Batch = None,
    steps: options.Steps = None,
    lr: options.LearningRate = None,
    precision: options.Precision = None,
    init: options.Init = None,
    tensorboard: options.TensorBoard = False,
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
        set=[*(set or []), *given],
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
