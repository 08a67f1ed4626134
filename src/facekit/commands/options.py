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

# of commands that train
DomainA = Annotated[Optional[Path], typer.Option("--a", help="images of the first domain")]
DomainB = Annotated[Optional[Path], typer.Option("--b", help="images of the second domain")]
RunFolder = Annotated[Optional[Path], typer.Option(help="run folder; runs/RECIPE if absent")]
TrainCard = Annotated[Optional[Path], typer.Option(help="a YAML card to start from; flags win over it")]
Set = Annotated[Optional[list[str]], typer.Option("--set", help="KEY.KEY=VALUE: change a value of the card")]
Size = Annotated[Optional[int], typer.Option(help="edge of a training image, px")]
Batch = Annotated[Optional[int], typer.Option(help="images per domain and step")]
Steps = Annotated[Optional[int], typer.Option(help="length of the run")]
LearningRate = Annotated[Optional[float], typer.Option(help="learning rate")]
Precision = Annotated[Optional[str], typer.Option(help="fp32 or bf16", rich_help_panel="Computing")]
Init = Annotated[Optional[str], typer.Option(help="weights to start from: a run folder, a file or a name")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="also write TensorBoard events")]
