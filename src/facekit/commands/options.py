"""The flags that mean the same in every command."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TypeVar

import typer

from . import completion

Command = TypeVar("Command", bound=Callable[..., Any])

COMPUTING, FACES, RUNNING = "Computing", "Faces", "Running"

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps", rich_help_panel=COMPUTING)]
Threads = Annotated[
    Optional[int], typer.Option(min=1, help="processor threads (default: the free cores)", rich_help_panel=COMPUTING)
]
Workers = Annotated[
    Optional[int], typer.Option(min=1, help="parallel workers (default: all cores)", rich_help_panel=COMPUTING)
]
EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="who does the work: this machine, or a Ray cluster", rich_help_panel=COMPUTING),
]
Address = Annotated[
    Optional[str],
    typer.Option(
        help="the cluster's head, or auto (default: RAY_ADDRESS, else a Ray on this machine)",
        metavar="HOST:PORT",
        rich_help_panel=COMPUTING,
    ),
]
GpuShare = Annotated[
    Optional[float],
    typer.Option(
        min=0, help="GPUs that each worker of a cluster takes, 0.5 for half of one", rich_help_panel=COMPUTING
    ),
]
Seed = Annotated[Optional[int], typer.Option(help="seed of all random numbers", rich_help_panel=RUNNING)]
Limit = Annotated[Optional[int], typer.Option(min=1, help="only the first N images", rich_help_panel=RUNNING)]
Shard = Annotated[
    Optional[str],
    typer.Option(help="every N-th image, starting with the I-th", metavar="I/N", rich_help_panel=RUNNING),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="retry images that failed before", rich_help_panel=RUNNING)
]
Force = Annotated[bool, typer.Option("--force", help="overwrite a previous run's output", rich_help_panel=RUNNING)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="show what would be done and exit", rich_help_panel=RUNNING)]
ModelRoot = Annotated[
    Optional[Path], typer.Option(help="folder with insightface's models/PACK/", rich_help_panel=FACES)
]
RecipeFile = Annotated[
    Optional[str],
    typer.Option("--recipe", help="the recipe file that the weights were trained with, FILE.py; its code is run"),
]
Detector = Annotated[
    str,
    typer.Option(
        help="auto, facekit, facekit:RUN, cascade, cascade:FILE, insightface or insightface:PACK",
        rich_help_panel=FACES,
    ),
]

# of commands that serve
ServedWeights = Annotated[
    Optional[list[str]],
    typer.Argument(
        help="run folders, .safetensors files or shipped names (default: anime, cartoon and game)",
        metavar="WEIGHTS ...",
        autocompletion=completion.weights,
    ),
]
Host = Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 for all of this machine's")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0 takes a free one")]

# what people may set for a translation: Recipe.controls
CONTROLS = "Controls"
Strength = Annotated[
    Optional[float],
    typer.Option(help="0 the face, 1 the translation; some methods go beyond 1", rich_help_panel=CONTROLS),
]
Keep = Annotated[
    Optional[Literal["nothing", "colours"]],
    typer.Option(help="colours: hair and skin keep the photo's", rich_help_panel=CONTROLS),
]
Background = Annotated[
    Optional[Literal["paint", "keep"]],
    typer.Option(help="keep: what is around head and neck stays as in the photo", rich_help_panel=CONTROLS),
]
SwapAt = Annotated[
    Optional[int],
    typer.Option(help="StyleGAN2: draw from this many px on only", metavar="PX", rich_help_panel=CONTROLS),
]
Controls = Annotated[
    Optional[list[str]],
    typer.Option("--control", help="any other control of the method", metavar="NAME=VALUE", rich_help_panel=CONTROLS),
]

# of commands that train
DATA, LENGTH = "Data", "Training"
DomainA = Annotated[Optional[Path], typer.Option("--a", help="images of the first domain", rich_help_panel=DATA)]
DomainB = Annotated[Optional[Path], typer.Option("--b", help="images of the second domain", rich_help_panel=DATA)]
RunFolder = Annotated[
    Optional[Path], typer.Option(help="run folder (default: that of the card, or runs/RECIPE)", rich_help_panel=RUNNING)
]
TrainCard = Annotated[
    Optional[Path], typer.Option(help="a YAML card to start from; flags override it", rich_help_panel=RUNNING)
]
Set = Annotated[
    Optional[list[str]],
    typer.Option("--set", help="change a value of the card", metavar="KEY=VALUE", rich_help_panel=LENGTH),
]
Size = Annotated[Optional[int], typer.Option(help="edge of a training image, px", rich_help_panel=DATA)]
Batch = Annotated[Optional[int], typer.Option(help="images per domain and step", rich_help_panel=LENGTH)]
Steps = Annotated[
    Optional[int], typer.Option(help="length of the run; a larger one continues a run", rich_help_panel=LENGTH)
]
LearningRate = Annotated[Optional[float], typer.Option(help="learning rate", rich_help_panel=LENGTH)]
Precision = Annotated[Optional[str], typer.Option(help="fp32 or bf16", rich_help_panel=COMPUTING)]
Init = Annotated[
    Optional[str],
    typer.Option(
        help="weights to start from: a run folder, a file or a name",
        autocompletion=completion.weights,
        rich_help_panel=LENGTH,
    ),
]
Report = Annotated[
    Optional[list[str]],
    typer.Option(
        "--report",
        help="also report losses, scores and previews to tensorboard, wandb, mlflow or a package's own",
        metavar="NAME",
        rich_help_panel=RUNNING,
    ),
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="the same as --report tensorboard", rich_help_panel=RUNNING)
]


def with_flags_of(other: Callable[..., Any], without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command, in place of its `**flags`, the flags of `other` that it lacks, but for those in `without`."""

    def extend(command: Command) -> Command:
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {p.name for p in own} | set(without)
        more = [p for p in inspect.signature(other).parameters.values() if p.name not in names]
        hints = {
            **typing.get_type_hints(other, include_extras=True),
            **typing.get_type_hints(command, include_extras=True),
        }
        taken = [*own, *(p.replace(kind=p.KEYWORD_ONLY) for p in more)]
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p.replace(annotation=hints[p.name]) for p in taken], return_annotation=hints["return"]
        )
        command.__annotations__ = {p.name: hints[p.name] for p in taken} | {"return": hints["return"]}
        return command

    return extend
