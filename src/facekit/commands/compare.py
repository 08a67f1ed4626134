"""`facekit compare`: a blind comparison of translations by people, and its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import options


def compare(
    folders: Annotated[
        Optional[list[Path]],
        typer.Argument(help="two or more folders of the same faces by different methods", metavar="FOLDER ..."),
    ] = None,
    *,
    page: Annotated[Path, typer.Option(help="folder for the page, or of the page that votes were cast on")],
    source: Annotated[Optional[Path], typer.Option(help="the photos, shown between the two pictures")] = None,
    votes: Annotated[
        Optional[list[Path]], typer.Option(help="count this file of votes instead of making a page", metavar="FILE")
    ] = None,
    size: Annotated[int, typer.Option(min=32, help="longest edge of a picture on the page, px")] = 256,
    seed: options.Seed = None,
    force: options.Force = False,
) -> Path:
    """Make a page on which people choose between two pictures without knowing which method drew them.

    The page is a folder that opens in any browser, without a server: arrow keys vote, "Export votes" saves a file.
    With --votes (once for each file) it prints each folder's share of wins against an average one, with 95 % intervals.
    """
    from ..errors import CardError
    from ..runtime import console
    from ..scoring import blind_comparison

    page = Path(page)
    if votes:
        if folders:
            raise CardError("votes are counted for the folders of the page", "leave the folders out")
        names, found = blind_comparison.count_votes(page, [Path(path) for path in votes])
        rows = {name: vars(row) for name, row in zip(names, found, strict=True)}
        console.result(blind_comparison.table(names, found), strengths=rows)
        return page
    trials = blind_comparison.make_page(
        [Path(folder) for folder in folders or []], page, source and Path(source), size, seed or 0, force
    )
    console.result(f"compare: {len(trials)} pairs; open {page}/index.html", trials=len(trials), page=str(page))
    return page
