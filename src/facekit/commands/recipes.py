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
    import shutil
    import sys

    from ..recipe_api import overview
    from ..runtime import console

    def shown(text: str) -> str:
        return overview.wrapped(text, shutil.get_terminal_size().columns) if sys.stdout.isatty() else text

    if name is None:
        rows = overview.overview()
        console.result(shown(overview.overview_text(rows)), recipes=rows)
        return rows
    found = overview.describe(name)
    console.result(shown(overview.as_text(found)), **found)
    return [found]
