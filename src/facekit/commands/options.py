"""The flags that mean the same in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps", rich_help_panel="Computing")]
Workers = Annotated[Optional[int], typer.Option(help="parallel workers; else all cores", rich_help_panel="Computing")]
Seed = Annotated[Optional[int], typer.Option(help="seed of everything random")]
Limit = Annotated[Optional[int], typer.Option(min=1, help="only the first N images")]
Shard = Annotated[Optional[str], typer.Option(help="I/N: do every N-th image from the I-th on", metavar="I/N")]
Force = Annotated[bool, typer.Option("--force", help="replace what another run left in the output")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and stop")]
ModelRoot = Annotated[
    Optional[Path], typer.Option(help="folder with insightface's models/PACK/", rich_help_panel="Faces")
]
Detector = Annotated[
    str, typer.Option(help="auto, cascade, cascade:FILE, insightface or insightface:PACK", rich_help_panel="Faces")
]
