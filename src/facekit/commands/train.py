"""`facekit train`: one method, two folders of images, one run folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from . import options

if TYPE_CHECKING:
    from ..engine import Learner
    from ..layout import Layout
    from ..recipe import Clock


def train(
    recipe: Annotated[Optional[str], typer.Argument(help="a recipe's name, or FILE.py; see `facekit recipes`")] = None,
    *,
    data: Annotated[Optional[Path], typer.Option(help="folder with trainA/ trainB/, or a/ b/")] = None,
    a: Annotated[Optional[Path], typer.Option("--a", help="images of the first domain")] = None,
    b: Annotated[Optional[Path], typer.Option("--b", help="images of the second domain")] = None,
    out: Annotated[Optional[Path], typer.Option(help="run folder; runs/RECIPE if absent")] = None,
    card: Annotated[Optional[Path], typer.Option(help="a YAML card to start from")] = None,
    set_: Annotated[Optional[list[str]], typer.Option("--set", help="KEY.KEY=VALUE: change any value of the card")] = None,
    domains: Annotated[Optional[str], typer.Option(help="names of the two domains: photo,anime")] = None,
    size: Annotated[Optional[int], typer.Option(help="edge of a training image, px")] = None,
    batch: Annotated[Optional[int], typer.Option(help="images per domain and step")] = None,
    steps: Annotated[Optional[int], typer.Option(help="length of the run")] = None,
    lr: Annotated[Optional[float], typer.Option(help="learning rate")] = None,
    precision: Annotated[Optional[str], typer.Option(help="fp32 or bf16", rich_help_panel="Computing")] = None,
    init: Annotated[Optional[str], typer.Option(help="weights to start from: a run folder, a file or a name")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="also write TensorBoard events")] = False,
    device: options.Device = "auto",
    seed: options.Seed = None,
    limit: options.Limit = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Train a face translator.

    Leaves a run folder: model.safetensors for `facekit translate`, previews and index.html to look at, log.jsonl,
    card.yaml. Stopped at any moment, the same command goes on from the last save. Several GPUs: torchrun -m facekit train …
    """
    import torch

    from .. import card as cards
    from .. import memory, report, world
    from ..batches import Batches
    from ..engine import fit, make_learner, weighted_terms
    from ..errors import CardError, Interrupted
    from ..layout import open_layout
    from ..recipe import Clock, find
    from ..run import RunFolder, stop_signals

    flags = {
        "data": {"root": data, "a": a, "b": b, "size": size, "batch": batch, "limit": limit},
        "run": {"steps": steps, "precision": precision, "init": init},
        "optim": {"lr": lr},
        "domains": _domains(domains),
        "recipe": recipe,
        "seed": seed,
    }
    layers = [cards.load(card)] if card else []
    layers += [cards.assignment(text) for text in set_ or []] + [_given(flags)]
    chosen = cards.merge(*layers)
    if not chosen.get("recipe"):
        raise CardError("no recipe", "name one: facekit train RECIPE …; `facekit recipes` lists them")
    kind, preset = find(chosen["recipe"])
    merged = cards.merge(kind.defaults, preset, chosen)
    if data or a or b:  # a folder named on the command line takes the place of the card's
        merged["data"] = {k: v for k, v in merged["data"].items() if k not in ("root", "a", "b")}
        merged["data"] |= _given({k: v for k, v in flags["data"].items() if k in ("root", "a", "b")})  # type: ignore[attr-defined]
    if steps:
        merged["run"].pop("epochs", None)
    where = str(card) if card else f"{chosen['recipe']} with these flags"
    checked = cards.validate(cards.TrainCard, merged, where)
    checked.params = cards.validate(kind.Params, checked.params, f"{where}, params").model_dump(mode="json")
    made = kind(checked.params, checked.data.size)
    made.check(checked.data.size)
    terms = weighted_terms(kind, checked.losses)
    layout = open_layout(checked.data)
    if "domains" not in merged:
        checked.domains = cards.Domains(**layout.names)
    values = cards.plain(checked)
    folder = out or Path("runs") / Path(checked.recipe).stem

    place = torch.device(options.parse_device(device))
    world.start(place)
    if place.type == "cuda" and world.size() > 1:
        place = torch.device("cuda", world.local_rank())
        torch.cuda.set_device(place)
    load_size = checked.data.load_size or made.load_size(checked.data.size)
    if load_size < checked.data.size:
        raise CardError(f"data.load_size {load_size} is smaller than data.size {checked.data.size}", "raise it")
    batches = Batches.of(
        layout.train,
        load_size,
        seed=checked.seed,
        batch=checked.data.batch,
        size=checked.data.size,
        flip=checked.data.flip,
        accumulate=checked.run.accumulate,
        device=place,
        dtype=torch.float64 if checked.run.precision == "fp64" else torch.float32,
    )
    clock = Clock(0, _steps(checked.run, batches.epoch_steps), batches.epoch_steps)
    guess = memory.estimate(made, terms, checked)
    report.note(f"{checked.recipe}: {guess}")
    report.fact("estimate", parameters=guess.parameters, bytes=guess.total_bytes)
    if dry_run:
        report.result(cards.dump(values), card=values, steps=clock.steps)
        return folder

    state = cards.claim(folder, values, force=force) if world.rank() == 0 else "unfinished"
    world.barrier()
    if state == "finished":
        report.note(f"train: nothing to do, {folder} is complete (--force trains it again)")
        return folder
    run = RunFolder(folder, values, layout.held, tensorboard)
    if state == "new" and world.rank() == 0:
        run.clear()
    world.barrier()
    with memory.guarded(guess), stop_signals() as received:
        learner = make_learner(made, terms, checked, place)
        resumed = run.resume(learner)
        if not resumed and checked.run.init:
            _start_from(learner, checked.run.init)
        note = f"going on from step {learner.step}" if resumed else "starting"
        report.note(f"train: {note}, {clock.steps} steps of {checked.data.batch} + {checked.data.batch} images on {place}")
        began = time.monotonic()
        first = learner.step
        with report.progress("train", clock.steps, first) as bar:

            def on_losses(step: int, losses: dict[str, float]) -> None:
                run.log(step, losses)
                bar.advance(step - bar.done, **losses)

            stream = batches.stream(first, clock.steps)
            whole = fit(learner, stream, clock, on_losses, run.save, lambda: bool(received))
    if not whole:
        raise Interrupted(f"train: stopped at step {learner.step}, saved", "run the same command again to go on")
    if clock.steps == first:
        run.save(learner)
    run.close()
    if world.rank() == 0:
        seconds = time.monotonic() - began
        cards.finish(folder, values, _made(learner, layout, clock, seconds, first))
    report.note(f"train: done, {folder}/model.safetensors; previews in {folder}/index.html")
    return folder


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that were given, as card values."""
    out: dict[str, Any] = {}
    for key, value in flags.items():
        if isinstance(value, dict):
            value = _given(value) or None
        if value is not None:
            out[key] = str(value) if isinstance(value, Path) else value
    return out


def _domains(text: str | None) -> dict[str, str] | None:
    from ..errors import CardError

    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise CardError(f"--domains {text!r} is not two different names", "for example --domains photo,anime")
    return dict(zip("ab", names, strict=True))


def _steps(run: Any, epoch_steps: int) -> int:
    from ..errors import CardError

    if run.steps is not None:
        return run.steps
    if run.epochs:
        return run.epochs * epoch_steps
    raise CardError("the run has no length", "give --steps N")


def _start_from(learner: Learner, init: str) -> None:
    """Take first weights from a run folder (all its nets, as they were saved) or from a model."""
    import torch

    from .. import report, zoo
    from ..errors import CardError
    from ..run import STATE

    state = Path(init) / STATE
    if state.is_file():
        found = torch.load(state, map_location="cpu", weights_only=True)["nets"]
    else:
        found, _ = zoo.read_tensors(zoo.find_weights(init))
    own = learner.nets.state_dict()
    fitting = {key: value for key, value in found.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise CardError(f"nothing in {init} fits this recipe's nets", "start from weights of the same recipe and width")
    learner.nets.load_state_dict(fitting, strict=False)
    if learner.ema is not None:
        inner = learner.nets.state_dict()
        learner.ema.load_state_dict({key: inner[key] for key in learner.ema.state_dict()})
    report.note(f"train: first weights from {init}: {len(fitting)} of {len(own)} tensors")


def _made(learner: Learner, layout: Layout, clock: Clock, seconds: float, first: int) -> dict[str, Any]:
    import torch

    from .. import card as cards
    from .. import world

    count = {name: sum(p.numel() for p in net.parameters()) for name, net in learner.nets.items()}
    names = {d: [[p.name, p.stat().st_size] for p in paths] for d, paths in layout.train.items()}
    card = learner.card
    name = torch.cuda.get_device_name(learner.device) if learner.device.type == "cuda" else learner.device.type
    return {
        **cards.provenance("torch"),
        "end": cards.now(),
        "device": name,
        "processes": world.size(),
        "steps": clock.steps,
        "images_per_domain": clock.steps * card.data.batch * card.run.accumulate * world.size(),
        "seconds": round(seconds, 1),
        "seconds_are_of_steps": [first, clock.steps],
        "parameters": count,
        "inputs": {d: {"images": len(rows), "digest": cards.digest({"files": rows})} for d, rows in names.items()},
    }
