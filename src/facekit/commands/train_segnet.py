"""`facekit train-segnet`: a segmenter of face parts, from photos with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import options
from .train import train


@options.with_flags_of(train, without=("labels", "a", "b", "smooth", "domains"))
def train_segnet(
    recipe: Annotated[str, typer.Argument(help="segnet, segnet-vgg or segnet-paper")] = "segnet",
    *,
    data: Annotated[
        Optional[Path],
        typer.Option(help="CelebAMask-HQ, or a folder with images/ masks/ classes.txt (or train/ test/)"),
    ] = None,
    trunk: Annotated[Optional[str], typer.Option(help="unet, vgg16 or vgg19")] = None,
    weights: Annotated[Optional[str], typer.Option(help="VGG's initial weights: none, download or a file")] = None,
    set: options.Set = None,
    **flags: Any,
) -> Path:
    """Train a segmenter of face parts.

    A run like any other: model.safetensors, previews, card.yaml; and overlays.png with the IoU of every class on the
    test photos. `facekit train ugatit-face --set params.segnet=runs/segnet` and `facekit score-fid --segnet` take it.
    """
    chosen = {"params.trunk": trunk, "params.weights": weights}
    given = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    return train(recipe, data=data, set=[*(set or []), *given], **flags)
