"""The only training loop: it knows phases and terms, and no method."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CardError, Diverged, MissingError
from ..ops.cpu_conv import QuickConvolution
from ..recipe_api import checkpoint
from ..recipe_api.base import Phase, Progress, Recipe, Scene, Term
from ..runtime import distributed
from ..runtime.memory import Heap
from ..storage.card import Optim, TrainCard, suggest
from . import cuda_graphs as graphs
from .activation_checkpointing import recompute
from .optimizer import Adam

Batch = Mapping[str, Tensor]


@dataclass
class TrainState:
    """Everything that changes while a method learns."""

    recipe: Recipe
    terms: dict[str, Term]
    nets: nn.ModuleDict
    helpers: nn.ModuleDict
    optims: dict[str, Adam]
    ema: nn.ModuleDict | None
    card: TrainCard
    device: torch.device
    step: int = 0
    pending: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)
    heap: Heap = field(default_factory=Heap)
    graphs: graphs.Graphs | None = None

    @property
    def exports(self) -> nn.ModuleDict:
        """The nets that translating needs: the averaged ones if there is an average."""
        return self.ema if self.ema is not None else chosen(self.nets, self.recipe.exports)

    def restart_average(self) -> None:
        """Set the averaged weights to the present ones."""
        if self.ema is not None:
            self.ema.load_state_dict({key: self.nets.state_dict()[key] for key in self.ema.state_dict()})

    def state(self) -> dict[str, Any]:
        """Return all that an exact resume needs."""
        return {
            "step": self.step,
            "nets": self.nets.state_dict(),
            "optims": {name: optim.state_dict() for name, optim in self.optims.items()},
            "ema": self.ema.state_dict() if self.ema is not None else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        self.nets.load_state_dict(state["nets"])
        for name, optim in self.optims.items():
            optim.load_state_dict(state["optims"][name])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step = state["step"]
        if self.graphs is not None:
            self.graphs.forget()


def chosen(nets: nn.ModuleDict, names: Iterable[str]) -> nn.ModuleDict:
    """Return some of the nets, as they are."""
    return nn.ModuleDict({name: nets[name] for name in names})


def weighted_terms(recipe: type[Recipe], losses: Mapping[str, Any]) -> dict[str, Term]:
    """Return the recipe's terms with the card's weights; raises CardError for a term that it does not have."""
    terms = recipe.terms()
    for name, value in losses.items():
        if name not in terms:
            raise CardError(f"no loss term {name!r}{suggest(name, terms)}", "mend `losses`")
        changes = {"weight": value} if isinstance(value, (int, float)) else value.model_dump(exclude_none=True)
        terms[name] = replace(terms[name], **changes)
    return terms


def make_learner(recipe: Recipe, terms: dict[str, Term], card: TrainCard, device: torch.device) -> TrainState:
    """Build and place the nets, their frozen helpers, one Adam per phase, and the weight average."""
    torch.manual_seed(card.seed)
    dtype = torch.float64 if card.run.precision == "fp64" else torch.float32
    nets = nn.ModuleDict(recipe.nets()).to(device, dtype)
    for net in nets.values():
        net.to(memory_format=getattr(net, "memory_format", torch.channels_last))
    weighted = [term.name for term in terms.values() if term.weight]
    frozen = nn.ModuleDict(recipe.helpers(checkpoint.load_model, weighted))
    helpers = frozen.to(device, dtype).to(memory_format=torch.channels_last)
    helpers.requires_grad_(False).eval()
    recorder = graphs.recorder_for(device) if card.run.graphs else None
    optims = {phase.name: make_optimiser(nets, phase, card.optim, recorder is not None) for phase in recipe.phases}
    ema = None
    if card.run.ema:
        ema = copy.deepcopy(chosen(nets, recipe.exports)).requires_grad_(False)
    if card.run.compile:
        compile_nets(chosen(nets, recipe.exports), device)
    learner = TrainState(recipe, terms, nets, helpers, optims, ema, card, device)
    if recorder is not None:
        learner.graphs = graphs.Graphs(recorder, lambda: [*nets.parameters(), *nets.buffers()])
    return learner


def compile_nets(nets: nn.ModuleDict, device: torch.device) -> None:
    """Let torch compile nets when they are first called; raises MissingError without the compiler that this takes.

    Only those that translate: compiled nets have no second derivative, which gradient penalties take of discriminators.
    """
    compilers = (os.environ.get("CXX", "g++"), "clang++", "cl")
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise MissingError("run.compile needs a C++ compiler", "install g++, or --set run.compile=false")
    for net in nets.values():
        net.compile(dynamic=False)


def make_optimiser(nets: nn.ModuleDict, phase: Phase, optim: Optim, recorded: bool = False) -> Adam:
    """Make the Adam of a phase; its weight decay is the coupled L2 term.

    Where its steps are recorded, the learning rate is a tensor: a record would hold a number for ever.
    """
    own = optim.phases.get(phase.name)
    values = {k: v for k, v in own.model_dump().items() if v is not None} if own else {}
    values = {"lr": optim.lr, "betas": optim.betas, "weight_decay": optim.weight_decay, **values}
    parameters = [p for name in phase.nets for p in nets[name].parameters()]
    made = Adam(parameters, fused=parameters[0].device.type in ("cpu", "cuda"), **values)
    for group in made.param_groups:
        group["initial_lr"] = group["lr"]
        if recorded:
            group["lr"], group["capturable"] = torch.tensor(group["lr"], device=parameters[0].device), True
    made._warned_capturable_if_run_uncaptured = recorded  # type: ignore[attr-defined]  # the first steps are not
    return made


def fit(
    learner: TrainState,
    batches: Iterable[Sequence[Batch]],
    clock: Progress,
    on_losses: Callable[[int, dict[str, float]], None],
    on_save: Callable[[TrainState], None],
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Train from `learner.step` to `clock.steps`; returns False when `stopped` asked to end early.

    `batches` yields the batches of each step from `learner.step` on. `on_losses` gets the mean of every term since the
    last time, each `run.log_every` steps; `on_save` is called each `run.save_every` steps, at the end and on a stop.
    Raises Diverged with the term and the step at the first loss that is not finite: nothing is saved after it.
    """
    run = learner.card.run
    for batch in batches:
        train_step(learner, batch, Progress(learner.step, clock.steps, clock.epoch_steps))
        learner.step += 1
        stop = distributed.any_of(stopped(), learner.device)
        save = stop or learner.step == clock.steps or learner.step % run.save_every == 0
        if save or learner.step % run.log_every == 0:
            on_losses(learner.step, _flush(learner))
        if save:
            on_save(learner)
        if stop:
            return learner.step == clock.steps
    return True


def train_step(learner: TrainState, batch: Sequence[Batch], clock: Progress) -> dict[str, Tensor]:
    """Take one step: every live phase its turn. Returns the terms' values, detached."""
    torch.manual_seed((learner.card.seed << 32) + clock.step)  # random choices are a function of the step
    turns: dict[Phase, list[Term]] = {}
    if learner.recipe.begins_stage(clock):
        for optim in learner.optims.values():
            optim.state.clear()
        if learner.graphs is not None:
            learner.graphs.forget()
    for phase in learner.recipe.phases:
        active = [t for t in learner.terms.values() if t.phase == phase.name and t.active(clock.step)]
        if active and phase.live(clock.step):
            turns[phase] = active
            _set_rate(learner.optims[phase.name], learner.recipe.lr_factor(clock))
    take = functools.partial(_take_turns, learner, turns, clock)
    if learner.graphs is not None and turns:
        kind = tuple((phase.name, *(term.name for term in active)) for phase, active in turns.items())
        values = learner.graphs.take(kind, batch, take)
    else:
        values = take(batch)
    _average(learner)
    learner.pending.append((clock.step, values))
    return values


def _set_rate(optim: Adam, factor: float) -> None:
    for group in optim.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _take_turns(
    learner: TrainState, phases: Mapping[Phase, list[Term]], clock: Progress, batch: Sequence[Batch]
) -> dict[str, Tensor]:
    """Let each phase take its turn with its terms; returns their values, detached."""
    values: dict[str, Tensor] = {}
    turns = [Turn(learner, phase, active, batch, clock) for phase, active in phases.items()]
    carried: list[dict[str, Any]] = [{} for _ in batch]
    for turn in turns[1:]:
        carried = turn.lend() if turn.phase.lend and len(batch) == 1 else carried
    before = None
    while turns:
        turn = turns.pop(0)
        values.update(turn.take(before.carry(turn.phase.reuse) if before else carried))
        before = turn
    return values


@dataclass
class Turn:
    """The turn of one phase in one step: its terms in scenes of the step's batches."""

    learner: TrainState
    phase: Phase
    active: list[Term]
    batch: Sequence[Batch]
    clock: Progress
    scenes: list[Scene] = field(default_factory=list)

    def lend(self) -> list[dict[str, Any]]:
        """Begin with the views that `phase.lend` names; they keep their graph here and are returned without it."""
        self._free()
        self._open([{} for _ in self.batch])
        with self._arithmetic():
            for scene, name in itertools.product(self.scenes, self.phase.lend):
                getattr(scene, name)
        return self.carry(self.phase.lend)

    def carry(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the views of `names` that were made, for each batch, detached."""
        return [scene.carry(names) for scene in self.scenes]

    def take(self, carried: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Take the optimiser's step on the sum of the active terms; returns their values, detached."""
        learner, recipe, optim = self.learner, self.learner.recipe, self.learner.optims[self.phase.name]
        learner.heap.give_back(self.phase.name)
        self._free()
        if not self.scenes:
            self._open(carried)
        sums: dict[str, Tensor] = {}
        for scene in self.scenes:
            with self._arithmetic():
                parts = {t.name: t.fn(scene) for t in self.active}
            total = sum(t.weight * t.every * parts[t.name] for t in self.active) / len(self.batch)
            learner.heap.give_back(f"{self.phase.name} backward")
            if isinstance(total, Tensor) and total.requires_grad:
                total.backward()
            for name, part in parts.items():
                sums[name] = sums.get(name, 0) + part.detach() / len(self.batch)
        distributed.average_gradients(p for group in optim.param_groups for p in group["params"])
        optim.step()
        recipe.after(learner.nets, self.phase.name)
        optim.zero_grad(set_to_none=True)  # the next turn needs the memory
        return sums

    def _free(self) -> None:
        """Let the phase's nets learn and freeze all others."""
        for name, net in self.learner.nets.items():
            net.requires_grad_(name in self.phase.nets)

    def _open(self, carried: Sequence[dict[str, Any]]) -> None:
        learner, clock, names = self.learner, self.clock, [t.name for t in self.active]
        recipe, nets, helpers = learner.recipe, learner.nets, learner.helpers
        self.scenes = [
            recipe.Scene(recipe, nets, micro, clock.step, views, helpers, names, clock.progress)
            for micro, views in zip(self.batch, carried, strict=True)
        ]

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Compute in the card's precision, and with less memory and fewer products where that is ours to choose."""
        run, device = self.learner.card.run, self.learner.device.type
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.autocast(device, torch.bfloat16, enabled=run.precision == "bf16"))
            if run.recompute is True and not run.compile:
                stack.enter_context(recompute())
            if device == "cpu" and not run.compile:
                stack.enter_context(QuickConvolution())
            yield


@torch.no_grad()
def _average(learner: TrainState) -> None:
    """Move the weight average towards the weights; early on it follows faster, so that the start is forgotten."""
    if learner.ema is None:
        return
    decay = min(learner.card.run.ema, (1 + learner.step) / (10 + learner.step))
    source = chosen(learner.nets, learner.recipe.exports)
    old: list[Tensor] = list(learner.ema.parameters())
    torch._foreach_lerp_(old, list[Tensor](source.parameters()), 1 - decay)
    for kept, current in zip(learner.ema.buffers(), source.buffers(), strict=True):
        kept.copy_(current)


def _flush(learner: TrainState) -> dict[str, float]:
    """Return the mean of every term since the last flush; losses are read from the device only here."""
    sums: dict[str, list[float]] = {}
    names = [(step, name) for step, values in learner.pending for name in values]
    flat = [value.double() for _, values in learner.pending for value in values.values()]
    learner.pending = []
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
