"""A training run from flags to the finished folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ..data.loader import Batches, free_workers
from ..errors import Interrupted
from ..recipe_api.base import Progress
from ..runtime import console, distributed, signals
from ..runtime.cores import choose_threads
from ..runtime.device import find_device
from ..storage import card, lock, working_copy
from . import memory_estimate, run_folder
from .loop import fit, seed_of
from .pace import Pace
from .plan import Plan, layers, make_plan
from .reporters import check
from .results import inputs, results
from .run_folder import RunFolder
from .state import TrainState, build_state

Item = TypeVar("Item")
TIMED = 20  # steps after which the remaining time is printed


class Validator(Protocol):
    """Scores what a run has saved."""

    def score(self, step: int) -> bool:
        """Score the weights that were saved at `step`, unless that is done; returns whether the run should end."""


OpenValidator = Callable[[Plan, Path, str], Validator]
"""Returns the validator of a plan, a run folder and a device."""
Runner = Callable[[Plan, Path, str, bool, Sequence[str], OpenValidator | None], None]
"""Trains a plan into a run folder, with the arguments of `run_plan`: that, or the workers of a cluster."""


@dataclass(frozen=True)
class Launch:
    """How a run was started: what collects requests to stop, how long to wait for the folder, whom to tell.

    `wait` are seconds in which another process may release the folder; `begun` is called by the first process once the
    folder belongs to this run.
    """

    requests: Callable[[], contextlib.AbstractContextManager[Sequence[int]]] = signals.collected
    wait: float = 0.0
    begun: Callable[[], None] = lambda: None


HERE = Launch()


@dataclass(frozen=True)
class Outcome:
    """The folder of a run and what to print about it: a line for people, fields for `--json`."""

    folder: Path
    text: str
    fields: dict[str, Any] = field(default_factory=dict)


def train(
    flags: Mapping[str, Any],
    changes: Sequence[str] = (),
    card_path: Path | None = None,
    out: Path | None = None,
    device: str = "auto",
    force: bool = False,
    reporters: Sequence[str] = (),
    dry_run: bool = False,
    validator: OpenValidator | None = None,
    runner: Runner | None = None,
) -> Outcome:
    """Train with the settings of a card, `changes` (KEY.KEY=VALUE) and flags; later ones win (see `plan.layers`).

    The run folder is `out`, else the run folder of the card, else runs/RECIPE. `runner` trains in place of `run_plan`.
    Raises what `run_plan` raises.
    """
    check(reporters)
    plan = make_plan(layers(card_path, changes, flags), str(card_path) if card_path else "these flags")
    folder = Path(out) if out else run_folder.find(card_path) or Path("runs") / Path(plan.card.recipe).stem
    guess = plan.estimate
    console.note(f"{plan.card.recipe}: {guess}")
    console.fact("estimate", parameters=guess.parameters, bytes=guess.total_bytes)
    if dry_run:
        return Outcome(folder, card.dump(plan.values), {"card": plan.values})
    with memory_estimate.guarded(guess):
        (runner or run_plan)(plan, folder, device, force, reporters, validator)
    model = folder / "model.safetensors"
    return Outcome(folder, str(model), {"run": str(folder), "model": str(model)})


def run_plan(
    plan: Plan,
    folder: Path,
    device_name: str = "auto",
    force: bool = False,
    reporters: Sequence[str] = (),
    validator: OpenValidator | None = None,
    launch: Launch = HERE,
) -> None:
    """Train a plan into a run folder; a run that was stopped continues from its last save.

    Where the card has `run.validate_every`, `validator` scores the saves.

    Raises CardError if the folder holds another run or the training images, OutputError if it holds foreign files or
    another process is training into it, Interrupted after a signal, Diverged if a loss or weight is not finite.
    """
    device = distributed.start(find_device(device_name))
    if device.type == "cpu":
        threads, why = choose_threads(plan.card.run.threads)
        torch.set_num_threads(threads)
        console.note(f"train: {threads} thread{'s' * (threads > 1)} ({why}); --threads N changes that")
    first = distributed.rank() == 0
    plan.refuse_folder(folder)
    holding = lock.held(folder, "facekit train", wait=launch.wait) if first else contextlib.nullcontext()
    with distributed.failing_together(), launch.requests() as received, holding:
        force = force and not (first and distributed.begun_before(str(folder)))  # what was started again goes on
        status = run_folder.check(folder, plan.values, force) if first else "finished"
        if not distributed.any_of(status != "finished", device):
            run_folder.tidy(folder)
            console.note(f"train: nothing to do, {folder} is complete (--force trains it again)")
            return
        fresh = distributed.any_of(first and status == "new", device)
        wanted = validator if first and plan.card.run.validate_every else None
        scored = wanted(plan, folder, str(device)) if wanted else None
        batches = make_batches(plan, device)
        clock = Progress(0, plan.steps(batches.epoch_steps), batches.epoch_steps)
        decided = memory_estimate.decide(plan.card, plan.estimate, device)
        state = build_state(plan.recipe, plan.terms, decided, device)
        with contextlib.closing(RunFolder(folder, plan.values, plan.layout, clock.steps, reporters)) as run:
            if not fresh:
                for copy in working_copy.of(folder):
                    copy.bring()
                run.resume(state, clock)
            else:
                if plan.card.run.init:
                    run.start_from(state, plan.card.run.init)
                plan.recipe.start(state.nets, plan.layout)
                state.restart_average()
            run.begin(status, state.step)
            if first:
                distributed.note_begun(str(folder))
                launch.begun()
            start = "starting" if fresh else f"continuing from step {state.step}"
            console.note(f"train: {start}, {clock.steps} steps of {plan.card.data.batch} images per domain on {device}")
            _train(run, state, plan, batches, clock, received, scored)
    console.note(f"train: done, look at {folder}/index.html")


def _train(
    run: RunFolder,
    state: TrainState,
    plan: Plan,
    batches: Batches,
    clock: Progress,
    received: Sequence[int],
    scored: Validator | None,
) -> None:
    """Take the remaining steps, then write the results of the finished run."""
    used, first, began = inputs(plan), state.step, time.monotonic()
    every = plan.card.run.validate_every

    def validate() -> bool:
        due = scored and state.step and (state.step == clock.steps or state.step % every == 0)
        if not due or scored is None or received:
            return False
        ended = scored.score(state.step)
        run.report_scores()
        return ended

    def on_save(state: TrainState) -> bool:
        run.save(state)
        return validate()

    enough = distributed.any_of(validate(), state.device)  # killed between the last save and its score
    with console.progress("train", clock.steps, first) as bar:

        def on_losses(step: int, losses: dict[str, float]) -> None:
            run.log(step, losses)
            bar.advance(0, **losses)

        stream = _counted(batches.stream(first, clock.steps, free_workers(state.device)), run.pace, bar)
        complete = enough or (not received and fit(state, stream, clock, on_losses, on_save, lambda: bool(received)))
    if not complete:
        raise Interrupted(f"train: stopped at step {state.step}, saved", "run the same command again to continue")
    if clock.steps == first:  # killed between the last save and the card, or a run of no steps
        on_save(state)
    if distributed.rank() == 0:
        run.pace.steps = state.step  # fewer than planned where the scores did not improve
        record = results(state, plan, state.step, first, time.monotonic() - began)
        scores = run.score(state, plan.layout)
        if scores:
            record["scores"] = scores
            console.note(f"train: {', '.join(f'{name} {value}' for name, value in scores.items())}")
        run.finish({**record, "inputs": used})


def _counted(stream: Iterable[Item], pace: Pace, bar: console.Bar) -> Iterator[Item]:
    """Yield the batches and advance the bar; after TIMED steps, print the speed and the remaining time."""
    for step, batch in enumerate(stream, pace.step + 1):
        yield batch  # the step is done when the next batch is requested
        pace.reach(step)
        bar.advance()
        if pace.timed == TIMED and pace.seconds_left:
            console.note(f"train: {pace.seconds_per_step:.3g} s per step, {console.duration(pace.seconds_left)} left")
            console.fact("pace", seconds_per_step=pace.seconds_per_step, seconds_left=pace.seconds_left)


def make_batches(plan: Plan, device: torch.device) -> Batches:
    """Return the batches of a plan as tensors on a device."""
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
        active=lambda step: plan.recipe.step_domains(seed_of(plan.card.seed, step)),
        dtype=torch.float64 if plan.card.run.precision == "fp64" else torch.float32,
    )
