"""`facekit train-detector`: a face detector, from pictures with labelled faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import options
from .train import train


@options.with_flags_of(train, without=("labels", "a", "b", "smooth", "domains"))
def train_detector(
    recipe: Annotated[str, typer.Argument(help="detector or second-look")] = "detector",
    *,
    data: Annotated[
        Optional[Path],
        typer.Option(help="a folder with folders of `facekit align --faces all` or pictures with faces.jsonl"),
    ] = None,
    **flags: Any,
) -> Path:
    """Train a face detector for photos and drawings.

    Every training image is a scene composed of labelled pictures: faces of any size and roll, before any ground. A run
    like any other: model.safetensors, previews with frames around the faces, card.yaml with recall, false faces and
    landmark error on the test pictures. `facekit align --detector facekit:runs/detector` uses it.
    """
    return train(recipe, data=data, **flags)
