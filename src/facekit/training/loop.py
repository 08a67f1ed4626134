"""The training loop: it runs the phases and loss terms of any recipe."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import Diverged
from ..recipe_api.base import Phase, Progress, Scene, Term
from ..runtime import distributed
from .state import TrainState, chosen, kernels

Batch = Mapping[str, Tensor]


def fit(
    state: TrainState,
    batches: Iterable[Sequence[Batch]],
    clock: Progress,
    on_losses: Callable[[int, dict[str, float]], None],
    on_save: Callable[[TrainState], bool],
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Train from `state.step` to `clock.steps`; returns False if `stopped` ended training early.

    `batches` yields the batches of each step from `state.step` on. Every `run.log_every` steps, `on_losses` gets the
    mean of each term since the last call. `on_save` is called every `run.save_every` and `run.validate_every` steps, at
    the end and on a stop; where it returns true in any process, training is complete.
    With several processes, `stopped` is checked every tenth step and whenever losses are logged or the run is saved.
    Raises Diverged with the term and the step at the first loss that is not finite; nothing is saved after it.
    """
    run = state.card.run
    for batch in batches:
        train_step(state, batch, Progress(state.step, clock.steps, clock.epoch_steps))
        state.step += 1
        save = state.step == clock.steps or any(n and state.step % n == 0 for n in (run.save_every, run.validate_every))
        log = save or state.step % run.log_every == 0
        check = log or distributed.size() == 1 or state.step % 10 == 0
        stop = check and distributed.any_of(stopped(), state.device)
        if log or stop:
            on_losses(state.step, _flush(state))
        enough = bool(save or stop) and distributed.any_of(on_save(state), state.device)
        if stop or enough:
            return enough or state.step == clock.steps
    return True


def train_step(state: TrainState, batch: Sequence[Batch], clock: Progress) -> dict[str, Tensor]:
    """Take one step, which is an optimiser step of every live phase. Returns the values of the terms, detached.

    Random numbers are a function of the card's seed, the step and the rank of the process.
    """
    torch.manual_seed(seed_of(state.card.seed, clock.step, distributed.rank()))
    if state.recipe.begins_stage(clock):
        for optim in state.optims.values():
            optim.state.clear()
    steps = []
    for phase in state.recipe.phases:
        active = [t for t in state.terms.values() if t.phase == phase.name and t.active(clock.step)]
        if active and phase.live(clock.step):
            steps.append(PhaseStep(state, phase, active, batch, clock))
            for group in state.optims[phase.name].param_groups:
                group["lr"] = group["initial_lr"] * state.recipe.lr_factor(clock)
    shared: list[dict[str, Any]] = [{} for _ in batch]
    if len(batch) == 1:  # with accumulation the graphs of all batches would stay in memory
        for later in steps[1:]:
            shared = later.precompute() if later.phase.precompute else shared
    values: dict[str, Tensor] = {}
    previous: PhaseStep | None = None
    while steps:
        current = steps.pop(0)  # popped, so that the graph of a finished phase is freed
        values |= current.take(previous.views(current.phase.reuse) if previous else shared)
        previous = current
    update_average(state)
    state.pending.append((clock.step, values))
    return values


def seed_of(seed: int, step: int, rank: int = 0) -> int:
    """Return the seed of a step; each rank has its own, so that noise is independent across processes."""
    common = (seed << 32) + step
    if not rank:
        return common
    return int.from_bytes(hashlib.blake2b(f"{common} {rank}".encode(), digest_size=8).digest(), "big") >> 1


@dataclass
class PhaseStep:
    """One phase's part of a training step: its active terms, and a scene for each of the step's batches."""

    state: TrainState
    phase: Phase
    active: list[Term]
    batch: Sequence[Batch]
    clock: Progress
    scenes: list[Scene] = field(default_factory=list)

    def precompute(self) -> list[dict[str, Any]]:
        """Compute the views named in `phase.precompute` for this phase's own use, and return them detached."""
        self.unfreeze()
        self.open([{} for _ in self.batch])
        with self.arithmetic():
            for scene, name in itertools.product(self.scenes, self.phase.precompute):
                getattr(scene, name)
        return self.views(self.phase.precompute)

    def views(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return, for each batch, those of the views `names` that have been computed, detached."""
        return [scene.carry(names) for scene in self.scenes]

    def take(self, views: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Take an optimiser step on the weighted sum of the active terms; returns their values, detached.

        `views` holds, for each batch, the views that another phase has already computed.
        """
        state, optim = self.state, self.state.optims[self.phase.name]
        state.heap.give_back(self.phase.name)
        self.unfreeze()
        if not self.scenes:
            self.open(views)
        values: dict[str, Tensor] = {}
        for scene in self.scenes:
            with self.arithmetic():
                parts = {t.name: t.fn(scene) for t in self.active}
            total = sum(t.weight * t.every * parts[t.name] for t in self.active) / len(self.batch)
            state.heap.give_back(f"{self.phase.name} backward")
            if isinstance(total, Tensor) and total.requires_grad:
                total.backward()
            for name, part in parts.items():
                values[name] = values.get(name, 0) + part.detach() / len(self.batch)
        distributed.average_gradients(p for group in optim.param_groups for p in group["params"])
        optim.step()
        state.recipe.after(state.nets, self.phase.name)
        optim.zero_grad(set_to_none=True)  # frees memory for the next phase
        return values

    def unfreeze(self) -> None:
        """Unfreeze the phase's nets and freeze all others."""
        for name, net in self.state.nets.items():
            net.requires_grad_(name in self.phase.nets)

    def open(self, views: Sequence[dict[str, Any]]) -> None:
        """Make a scene of each batch, with the views that are already computed."""
        state, clock, names = self.state, self.clock, [t.name for t in self.active]
        seed = seed_of(state.card.seed, clock.step)
        self.scenes = [
            state.recipe.Scene(
                state.recipe, state.nets, one, clock.step, known, state.helpers, names, clock.progress, seed
            )
            for one, known in zip(self.batch, views, strict=True)
        ]

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Compute in the card's precision and with the CPU kernels that the card chooses."""
        run, device = self.state.card.run, self.state.device
        with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16"), kernels(run, device):
            yield


@torch.no_grad()
def update_average(state: TrainState) -> None:
    """Move the weight average towards the weights, faster in the first steps so that initial weights fade quickly."""
    if state.ema is None:
        return
    decay = min(state.card.run.ema, (1 + state.step) / (10 + state.step))
    source = chosen(state.nets, state.recipe.exports)
    for average, weight in zip(state.ema.parameters(), source.parameters(), strict=True):
        average.lerp_(weight, 1 - decay)
    for kept, buffer in zip(state.ema.buffers(), source.buffers(), strict=True):
        kept.copy_(buffer)


def _flush(state: TrainState) -> dict[str, float]:
    """Return the mean of every term since the last call; losses are copied from the device only here."""
    sums: dict[str, list[float]] = {}
    names = [(step, name) for step, values in state.pending for name in values]
    flat = [value.double() for _, values in state.pending for value in values.values()]
    state.pending = []
    if not flat:
        return {}
    stacked = distributed.gather(torch.stack(flat)[None]).mean(0)
    for (step, name), value in zip(names, stacked.tolist(), strict=True):
        if value != value or abs(value) == float("inf"):
            raise Diverged(
                f"loss term {name!r} became {value} at step {step}",
                "lower optim.lr or the term's weight, or use precision fp32; the last save is untouched",
            )
        sums.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in sums.items()}
