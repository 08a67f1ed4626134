"""`facekit import`: weights of the authors' code as weights of facekit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import completion, options


def import_weights(
    source: Annotated[Path, typer.Argument(help="a checkpoint of the authors' code, or a folder of those of one run")],
    out: Annotated[Path, typer.Argument(help="NAME.safetensors to translate with, or a folder with all nets")],
    *,
    recipe: Annotated[
        str, typer.Option("--as", help="recipe that the weights are of", autocompletion=completion.recipes)
    ],
    side: Annotated[
        Optional[str], typer.Option(help="what one CycleGAN or CUT file holds: g_ab or g_ba; else by its name")
    ] = None,
    labels: Annotated[Optional[str], typer.Option(help="StarGAN, ComboGAN: labels in their order, a,b,c")] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="card value that overrides what the file says: data.size=128")
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Read weights that the authors' code has written: U-GAT-IT, CycleGAN, CUT, StarGAN, UNIT, ComboGAN, CartoonGAN.

    The generator of AnimeGANv2's PyTorch port is read, too. No code in a file is run. What does not fit is said by
    name and shape. `translate`, `export` and `train --init` take the result.
    """
    from ..inference import import_weights as body
    from ..runtime import console
    from ..storage import card

    settings = card.merge(*(card.assignment(text) for text in set_ or ()))
    names = [label.strip() for label in labels.split(",")] if labels else []
    found = body.read_official(source, recipe, side, names, settings)
    left = body.write(found, out, force, dry_run)
    if left and not dry_run:
        console.note(f"import: {', '.join(left)} left out; give a folder as OUT to keep them for train --init")
    text = f"import: {', '.join(found.nets)} of {found.values['recipe']} from {', '.join(found.sources)}"
    console.result(f"{text} to {out}", path=str(out), nets=list(found.nets), sources=found.sources, card=found.values)
    return out
