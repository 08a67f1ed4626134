"""`facekit weights`: which trained weights are at hand."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from . import completion


def weights(
    name: Annotated[
        Optional[str],
        typer.Argument(
            help="show the model card of these: a name, run folder, file or URL (default: list all)",
            autocompletion=completion.weights,
        ),
    ] = None,
) -> list[dict[str, Any]]:
    """List the weights that come with facekit, those downloaded, and the runs in runs/; or show one's model card.

    A URL (`https://host/file.safetensors#sha256=HEX`) is downloaded into the cache and checked.
    """
    from ..recipe_api import weights_list
    from ..runtime import console

    if name is None:
        rows = weights_list.overview()
        console.result(weights_list.as_text(rows), weights=rows)
        return rows
    row, text = weights_list.describe(name)
    console.result(text, **row, card=text)
    return [row]
