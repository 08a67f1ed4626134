"""`facekit demo`: a page on which people drop a photo and see their face translated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import completion, options


def demo(
    weights: Annotated[
        Optional[list[str]],
        typer.Argument(
            help="run folders, .safetensors files or shipped names (default: anime)",
            metavar="WEIGHTS ...",
            autocompletion=completion.weights,
        ),
    ] = None,
    *,
    recipe: options.RecipeFile = None,
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 for all of this machine's")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0 takes a free one")] = 7860,
    open_: Annotated[bool, typer.Option("--open", help="open the page in your browser")] = False,
    detector: options.Detector = "auto",
    model_root: options.ModelRoot = None,
    device: options.Device = "auto",
) -> None:
    """Show a page on which people drop a photo, or take one, and see their face translated.

    It shows the photo, its faces before and after, and the result, with the controls that the weights have; several
    labels become a grid. Result and card can be downloaded. The page loads nothing from other hosts, and photos stay
    on this machine. Ctrl-C ends it.
    """
    from ..runtime.optional import needs

    with needs("demo"):
        from ..serving.demo import show
    from ..serving.studio import Studio

    studio = Studio(weights or ["anime"], device, recipe, detector, model_root and Path(model_root))
    show(studio, host, port, open_)
