"""`facekit train`: one method, two folders of images, one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import completion, options, outputs


@outputs.may_be_urls("out", whole=True)
def train(
    recipe: Annotated[
        Optional[str],
        typer.Argument(help="a recipe's name, or FILE.py; see `facekit recipes`", autocompletion=completion.recipes),
    ] = None,
    *,
    data: Annotated[
        Optional[Path],
        typer.Option(help="folder with trainA/ trainB/, or a/ b/, or one per label", rich_help_panel=options.DATA),
    ] = None,
    labels: Annotated[
        Optional[Path],
        typer.Option(
            help="labels of the images in --data: CSV, JSON Lines, CelebA's list", rich_help_panel=options.DATA
        ),
    ] = None,
    a: options.DomainA = None,
    b: options.DomainB = None,
    smooth: Annotated[
        Optional[Path],
        typer.Option(
            help="smoothed images of the second domain, from smooth-edges (default: smoothed on reading)",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    out: options.RunFolder = None,
    card: options.TrainCard = None,
    set: options.Set = None,
    domains: Annotated[
        Optional[str], typer.Option(help="names of the two domains: photo,anime", rich_help_panel=options.DATA)
    ] = None,
    size: options.Size = None,
    batch: options.Batch = None,
    steps: options.Steps = None,
    lr: options.LearningRate = None,
    precision: options.Precision = None,
    threads: options.Threads = None,
    init: options.Init = None,
    report: options.Report = None,
    tensorboard: options.TensorBoard = False,
    device: options.Device = "auto",
    engine: options.EngineName = "local",
    address: options.Address = None,
    workers: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            help="processes of a cluster (default: one for each of its GPUs, else one)",
            rich_help_panel=options.COMPUTING,
        ),
    ] = None,
    gpu_share: options.GpuShare = None,
    seed: options.Seed = None,
    limit: options.Limit = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Train a face translator.

    Leaves a run folder: model.safetensors for `facekit translate`, index.html with previews to look at, log.jsonl and
    card.yaml. The same command continues a stopped run from its last save; with a larger --steps it also continues
    a finished run. Several GPUs: torchrun, or --engine ray.
    """
    from ..runtime import console
    from ..runtime.engine import Engine
    from ..training import plan, ray_run, run
    from ..validation.best import Validation

    runner = ray_run.runner_of(Engine(engine, address, gpu_share), workers)

    flags = {
        "recipe": recipe,
        "seed": seed,
        "data": {"root": data, "a": a, "b": b, "labels": labels, "size": size, "batch": batch, "limit": limit},
        "domains": plan.two_names(domains),
        "params": {"smooth": smooth},
        "optim": {"lr": lr},
        "run": {"steps": steps, "precision": precision, "threads": threads, "init": init},
    }
    reporters = [*(report or []), *(["tensorboard"] if tensorboard else [])]
    done = run.train(flags, set or [], card, out, device, force, reporters, dry_run, Validation, runner)
    console.result(done.text, **done.fields)
    return done.folder
