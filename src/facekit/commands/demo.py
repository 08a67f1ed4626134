"""`facekit demo`: a page on which people drop a photo and see their face translated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def demo(
    weights: options.ServedWeights = None,
    *,
    recipe: options.RecipeFile = None,
    host: options.Host = "127.0.0.1",
    port: options.Port = 7860,
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
    from ..recipe_api.default_weights import GENERATORS
    from ..runtime.optional import needs

    with needs("demo"):
        from ..serving.demo import show
    from ..serving.studio import Studio

    studio = Studio(weights or GENERATORS, device, recipe, detector, model_root and Path(model_root))
    show(studio, host, port, open_)
