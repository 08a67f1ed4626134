"""`facekit sample`: faces drawn from noise by a StyleGAN2 run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import completion, options, outputs

DRAWING = "Drawing"


@outputs.may_be_urls("out")
def sample(
    weights: Annotated[
        str,
        typer.Argument(help="a StyleGAN2 run folder or weights file", metavar="RUN", autocompletion=completion.weights),
    ],
    out: Annotated[Path, typer.Argument(help="folder for the pictures")],
    *,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="how many seeds to draw", rich_help_panel=DRAWING)] = 64,
    seed: Annotated[int, typer.Option(min=0, help="the first seed", rich_help_panel=DRAWING)] = 0,
    truncation: Annotated[
        float, typer.Option(help="1: varied; 0: all alike; between: fewer odd faces", rich_help_panel=DRAWING)
    ] = 0.7,
    between: Annotated[
        int, typer.Option(min=0, help="interpolated pictures between each seed and the next", rich_help_panel=DRAWING)
    ] = 0,
    mix_at: Annotated[
        Optional[int],
        typer.Option(help="from this many px on, take the next seed's styles", metavar="PX", rich_help_panel=DRAWING),
    ] = None,
    with_: Annotated[
        Optional[list[str]],
        typer.Option("--with", help="draw the same latents with this run, too", metavar="RUN", rich_help_panel=DRAWING),
    ] = None,
    swap_at: Annotated[
        Optional[int],
        typer.Option(
            help="take the layers from this many px on from the run of --with", metavar="PX", rich_help_panel=DRAWING
        ),
    ] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="also write a contact sheet, OUT-sheet.png")] = False,
    device: options.Device = "auto",
    force: options.Force = False,
) -> Path:
    """Draw faces from noise.

    A picture depends on its seed alone. manifest.jsonl lists each picture's seed and latent.
    """
    from ..inference import sampling
    from ..runtime import console
    from ..runtime.device import find_device

    plan = sampling.Plan(n, seed, truncation, between, mix_at)
    out = Path(out)
    drawn = sampling.sample([weights, *(with_ or [])], out, plan, swap_at, sheet, find_device(device), force)
    console.note(f"sample: {drawn} pictures in {out}")
    return out
