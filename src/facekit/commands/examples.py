"""`facekit examples`: the example cards, schema, Makefile and recipe, as files to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def examples(
    out: Annotated[Path, typer.Argument(help="folder to write to", metavar="[DIR]")] = Path("facekit-examples"),
    *,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Write the examples into a folder: a card for every recipe, the card schema, a Makefile and an example recipe.

    Existing files that differ are kept and listed, unless you give --force.
    """
    from ..runtime import console
    from ..storage import example_files

    out = Path(out)
    if dry_run:
        names = example_files.names()
        console.result(f"examples: {len(names)} files into {out}", path=str(out), files=names)
        return out
    written, kept = example_files.write(out, force)
    for name in kept:
        console.warn(f"{out / name} differs and was kept (--force overwrites it)")
    console.result(f"examples: {len(written)} files written to {out}", path=str(out), files=written, kept=kept)
    return out
