"""`facekit recipes`: what `train` can train."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from . import completion


def recipes(
    name: Annotated[
        Optional[str],
        typer.Argument(help="describe this recipe (default: list all)", autocompletion=completion.recipes),
    ] = None,
) -> list[dict[str, Any]]:
    """List the methods that `train` knows, or describe one: losses and weights, parameters, defaults, paper."""
    from ..recipe_api import overview
    from ..runtime import console

    if name is None:
        rows = overview.overview()
        console.result(overview.overview_text(rows), recipes=rows)
        return rows
    found = overview.describe(name)
    console.result(overview.as_text(found), **found)
    return [found]
