"""`facekit weights`: which trained weights are at hand."""

from __future__ import annotations

from pathlib import Path
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
    *,
    page: Annotated[
        Optional[Path], typer.Option(help="write a page with a picture by each weights too", metavar="FILE.html")
    ] = None,
    photo: Annotated[Optional[Path], typer.Option(help="show this photo's face on the page")] = None,
) -> list[dict[str, Any]]:
    """List the weights that come with facekit, those downloaded, and the runs in runs/; or show one's model card.

    With --page, a page that opens in any browser shows what each of them makes of one face.
    A URL (`https://host/file.safetensors#sha256=HEX`) is downloaded into the cache and checked.
    """
    from ..errors import CardError
    from ..recipe_api import weights_list
    from ..runtime import console

    if name is None:
        rows = weights_list.overview()
        text, values = weights_list.as_text(rows), dict[str, Any](weights=rows)
    else:
        row, text = weights_list.describe(name)
        rows, values = [row], {**row, "card": text}
    if page is not None:
        from ..inference import weights_page

        weights_page.write_page(rows, Path(page), photo and Path(photo))
        text, values = f"{text}\n\nopen {page}", {**values, "page": str(page)}
    elif photo is not None:
        raise CardError("--photo is for the page", "add --page FILE.html")
    console.result(text, **values)
    return rows
