"""`facekit serve`: translations over HTTP, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import options

LIMITS = "Limits"


def serve(
    weights: options.ServedWeights = None,
    *,
    recipe: options.RecipeFile = None,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8000,
    queue: Annotated[
        int, typer.Option(min=0, help="requests that may wait; further ones get status 429", rich_help_panel=LIMITS)
    ] = 32,
    max_mb: Annotated[float, typer.Option(min=0.001, help="largest image, MB", rich_help_panel=LIMITS)] = 20.0,
    max_pixels: Annotated[
        float, typer.Option(min=0.0001, help="largest image, millions of px", rich_help_panel=LIMITS)
    ] = 40.0,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="seconds for an image to arrive, and for its answer", rich_help_panel=LIMITS)
    ] = 60.0,
    detector: options.Detector = "auto",
    model_root: options.ModelRoot = None,
    device: options.Device = "auto",
    workers: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            help="images at a time (default: one on a GPU, else one for each core, at most 4)",
            rich_help_panel=options.COMPUTING,
        ),
    ] = None,
) -> None:
    """Translate faces over HTTP: POST /translate takes a photo and answers with an image.

    The page at / explains the interface and has a form to try it. Nothing is stored, no file of this machine can be
    asked for, and no address is fetched. SIGTERM and ctrl-C end it once the requests that it has are answered.
    """
    from ..recipe_api.default_weights import GENERATORS
    from ..runtime.optional import needs

    with needs("serve"):
        from ..serving.server import Limits, ServeOptions
        from ..serving.server import serve as run
    from ..serving.studio import Studio

    limits = Limits(round(max_mb * 1e6), round(max_pixels * 1e6), timeout)
    studio = Studio(weights or GENERATORS, device, recipe, detector, model_root and Path(model_root))
    run(studio, ServeOptions(host, port, workers, queue, limits))
