"""`facekit train`: one method, two folders of images, one run folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from . import completion, options

if TYPE_CHECKING:
    import torch

    from ..data.loader import Batches
    from ..recipe_api.base import Progress
    from ..training.loop import TrainState
    from ..training.plan import Plan


def train(
    recipe: Annotated[
        Optional[str],
        typer.Argument(help="a recipe's name, or FILE.py; see `facekit recipes`", autocompletion=completion.recipes),
    ] = None,
    *,
    data: Annotated[
        Optional[Path], typer.Option(help="folder with trainA/ trainB/, or a/ b/, or one per label")
    ] = None,
    labels: Annotated[
        Optional[Path], typer.Option(help="labels of the images in --data: CSV, JSON Lines, CelebA's list")
    ] = None,
    a: options.DomainA = None,
    b: options.DomainB = None,
    smooth: Annotated[
        Optional[Path], typer.Option(help="what smooth-edges made of the second domain; else it is smoothed as read")
    ] = None,
    out: options.RunFolder = None,
    card: options.TrainCard = None,
    set: options.Set = None,
    domains: Annotated[Optional[str], typer.Option(help="names of the two domains: photo,anime")] = None,
    size: options.Size = None,
    batch: options.Batch = None,
    steps: options.Steps = None,
    lr: options.LearningRate = None,
    precision: options.Precision = None,
    init: options.Init = None,
    tensorboard: options.TensorBoard = False,
    device: options.Device = "auto",
    seed: options.Seed = None,
    limit: options.Limit = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Train a face translator.

    Leaves a run folder: model.safetensors for `facekit translate`, index.html with previews to look at, log.jsonl and
    card.yaml. Stopped at any moment, the same command goes on from the last save. Several GPUs: torchrun.
    """
    from ..runtime import console
    from ..runtime.device import find_device
    from ..storage import card as cards
    from ..training import memory_estimate
    from ..training.plan import make_plan

    sources = {"root": data, "a": a, "b": b}
    flags = {
        "recipe": recipe,
        "seed": seed,
        "data": {**sources, "labels": labels, "size": size, "batch": batch, "limit": limit},
        "domains": _two_names(domains),
        "params": {"smooth": smooth},
        "optim": {"lr": lr},
        "run": {"steps": steps, "precision": precision, "init": init},
    }
    layers = [cards.load(card)] if card else []
    if any(sources.values()) and layers:  # folders named on the command line take the place of the card's
        old = layers[0].get("data", {})
        layers[0] = {**layers[0], "data": {k: v for k, v in old.items() if k not in (*sources, "labels")}}
    layers += [cards.assignment(text) for text in set or []] + [_given(flags)]
    plan = make_plan(layers, str(card) if card else "these flags")
    guess = memory_estimate.estimate(plan.recipe, plan.terms, plan.card)
    console.note(f"{plan.card.recipe}: {guess}")
    console.fact("estimate", parameters=guess.parameters, bytes=guess.total_bytes)
    folder = Path(out) if out else Path("runs") / Path(plan.card.recipe).stem
    if dry_run:
        console.result(cards.dump(plan.values), card=plan.values)
    else:
        with memory_estimate.guarded(guess):
            run_plan(plan, folder, find_device(device), force, tensorboard)
    return folder


def run_plan(plan: Plan, folder: Path, device_name: str, force: bool, tensorboard: bool) -> None:
    """Train what a plan says into a run folder, from where an earlier start left it.

    Raises CardError where the folder holds another run, Interrupted after a signal, Diverged.
    """
    from ..errors import Interrupted
    from ..recipe_api.base import Progress
    from ..runtime import console, distributed
    from ..storage import claim as folder_claim
    from ..training.loop import fit, make_learner
    from ..training.run_folder import RunFolder, claim, stop_signals

    device = distributed.start(device_name)
    finished = distributed.rank() == 0 and claim(folder, plan.values, force) == "finished"
    if distributed.any_of(finished, device):
        console.note(f"train: nothing to do, {folder} is complete (--force trains it again)")
        return
    batches = _batches(plan, device)
    clock = Progress(0, plan.steps(batches.epoch_steps), batches.epoch_steps)
    run = RunFolder(folder, plan.values, plan.layout.held, tensorboard)
    inputs = _inputs(plan)
    began = time.monotonic()
    with stop_signals() as received:
        learner = make_learner(plan.recipe, plan.terms, plan.card, device)
        resumed = run.resume(learner)
        if not resumed and plan.card.run.init:
            run.start_from(learner, plan.card.run.init)
        first = learner.step
        start = f"going on from step {first}" if resumed else "starting"
        console.note(f"train: {start}, {clock.steps} steps of {plan.card.data.batch} images per domain on {device}")
        with console.progress("train", clock.steps, first) as bar:

            def on_losses(step: int, losses: dict[str, float]) -> None:
                run.log(step, losses)
                bar.advance(step - bar.done, **losses)

            stream = batches.stream(first, clock.steps)
            whole = fit(learner, stream, clock, on_losses, run.save, lambda: bool(received))
    run.close()
    if not whole:
        raise Interrupted(f"train: stopped at step {learner.step}, saved", "run the same command again to go on")
    if clock.steps == first:  # killed between the last save and the card, or a run of no steps
        run.save(learner)
    if distributed.rank() == 0:
        made = _made(learner, plan, clock, first, time.monotonic() - began)
        scores = run.score(learner, plan.layout)
        if scores:
            made["scores"] = scores
            console.note(f"train: {', '.join(f'{name} {value}' for name, value in scores.items())}")
        folder_claim.finish(folder, plan.values, {**made, "inputs": inputs})
    console.note(f"train: done, {folder}/model.safetensors; previews in {folder}/index.html")


def _batches(plan: Plan, device: torch.device) -> Batches:
    import torch

    from ..data.loader import Batches

    return Batches.of(
        plan.layout.train,
        plan.load_size,
        plan.layout.readers,
        seed=plan.card.seed,
        batch=plan.card.data.batch,
        size=plan.card.data.size,
        flip=plan.card.data.flip,
        accumulate=plan.card.run.accumulate,
        device=device,
        dtype=torch.float64 if plan.card.run.precision == "fp64" else torch.float32,
    )


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that were given, as card values."""
    out: dict[str, Any] = {}
    for key, value in flags.items():
        if isinstance(value, dict):
            value = _given(value) or None
        if value is not None:
            out[key] = str(value) if isinstance(value, Path) else value
    return out


def _two_names(text: str | None) -> dict[str, str] | None:
    from ..errors import CardError

    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise CardError(f"--domains {text!r} is not two different names", "for example --domains photo,anime")
    return dict(zip("ab", names, strict=True))


def _made(learner: TrainState, plan: Plan, clock: Progress, first: int, seconds: float) -> dict[str, Any]:
    """Return what the card notes of a finished run."""
    import torch

    from ..runtime import distributed
    from ..storage import provenance

    count = {name: sum(p.numel() for p in net.parameters()) for name, net in learner.nets.items()}
    per_step = plan.card.data.batch * plan.card.run.accumulate * distributed.size()
    cuda = learner.device.type == "cuda"
    return {
        **provenance.collect("torch"),
        "device": torch.cuda.get_device_name(learner.device) if cuda else learner.device.type,
        "processes": distributed.size(),
        "steps": clock.steps,
        "images_per_domain": clock.steps * per_step,
        "last_start": {"from_step": first, "seconds": round(seconds, 1)},
        "parameters": {name: number for name, number in count.items() if number},
    }


def _inputs(plan: Plan) -> dict[str, Any]:
    """Return what the card notes of the training images, as they are now."""
    from ..storage import card as cards

    files = {side: [[p.name, p.stat().st_size] for p in paths] for side, paths in plan.layout.train.items()}
    return {s: {"images": len(rows), "digest": cards.digest({"files": rows})} for s, rows in files.items()}
