"""The state of a training run: nets, frozen helpers, optimisers, weight average and step."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import CardError, MissingError
from ..ops.cpu_kernels import CpuKernels, InputsOnly
from ..recipe_api import checkpoint
from ..recipe_api.base import Phase, Recipe, Term
from ..runtime.memory import Heap
from ..storage.card import Optim, Run, TrainCard, suggest
from .activation_checkpointing import Context, recompute


@dataclass
class TrainState:
    """Everything that a training run holds in memory; `snapshot` returns what a save stores of it."""

    recipe: Recipe
    terms: dict[str, Term]
    nets: nn.ModuleDict
    helpers: nn.ModuleDict
    optims: dict[str, Optimizer]
    ema: nn.ModuleDict | None
    card: TrainCard
    device: torch.device
    step: int = 0
    pending: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)
    heap: Heap = field(default_factory=Heap)

    @property
    def exports(self) -> nn.ModuleDict:
        """The nets that translation needs: with averaged weights if the run keeps an average."""
        return self.ema if self.ema is not None else chosen(self.nets, self.recipe.exports)

    def restart_average(self) -> None:
        """Set the averaged weights to the current weights."""
        if self.ema is not None:
            self.ema.load_state_dict({key: self.nets.state_dict()[key] for key in self.ema.state_dict()})

    def snapshot(self) -> dict[str, Any]:
        """Return everything that an exact resume needs."""
        return {
            "step": self.step,
            "nets": self.nets.state_dict(),
            "optims": {name: optim.state_dict() for name, optim in self.optims.items()},
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "threads": torch.get_num_threads(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load the result of `snapshot`. Learning rates and betas come from the card, Adam's moments from the state."""
        self.nets.load_state_dict(state["nets"])
        for name, optim in self.optims.items():
            own = optim.state_dict()["param_groups"]
            optim.load_state_dict({"state": state["optims"][name]["state"], "param_groups": own})
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step = state["step"]
        if self.card.run.threads is None and "threads" in state:  # sums are bit-identical only with equal threads
            torch.set_num_threads(state["threads"])


def chosen(nets: nn.ModuleDict, names: Iterable[str]) -> nn.ModuleDict:
    """Return some of the nets, the same objects."""
    return nn.ModuleDict({name: nets[name] for name in names})


def weighted_terms(recipe: type[Recipe], losses: Mapping[str, Any]) -> dict[str, Term]:
    """Return the recipe's terms with the card's weights; raises CardError for an unknown term."""
    terms = recipe.terms()
    for name, value in losses.items():
        if name not in terms:
            raise CardError(f"no loss term {name!r}{suggest(name, terms)}", "correct `losses` in the card")
        changes = {"weight": value} if isinstance(value, (int, float)) else value.model_dump(exclude_none=True)
        terms[name] = replace(terms[name], **changes)
    return terms


def build_state(recipe: Recipe, terms: dict[str, Term], card: TrainCard, device: torch.device) -> TrainState:
    """Build the nets, their frozen helpers, an optimiser per phase and the weight average, on a device.

    `run.recompute: auto` counts as false here; `memory_estimate.decide` replaces it beforehand.
    Raises CardError if several phases of the recipe precompute views.
    """
    precomputing = [phase.name for phase in recipe.phases if phase.precompute]
    if len(precomputing) > 1:
        names = " and ".join(precomputing)
        raise CardError(f"phases {names} both precompute views", "let only one phase of the recipe precompute")
    torch.manual_seed(card.seed)
    dtype = torch.float64 if card.run.precision == "fp64" else torch.float32
    nets = nn.ModuleDict(recipe.nets()).to(device, dtype)
    for net in nets.values():
        net.to(memory_format=getattr(net, "memory_format", torch.channels_last))
    weighted = [term.name for term in terms.values() if term.weight]
    frozen = nn.ModuleDict(recipe.helpers(checkpoint.load_model, weighted))
    helpers = frozen.to(device, dtype).to(memory_format=torch.channels_last)
    helpers.requires_grad_(False).eval()
    optims = {phase.name: make_optimizer(nets, phase, card.optim) for phase in recipe.phases}
    ema = copy.deepcopy(chosen(nets, recipe.exports)).requires_grad_(False) if card.run.ema else None
    heap = Heap(always=card.run.recompute is True)
    if card.run.compile:
        compile_nets(chosen(nets, recipe.exports), device)
    elif card.run.recompute is True:
        for part in (nets, helpers):
            recompute(part, *recomputation(card.run, device), lambda: heap.give_back("layers"))
    return TrainState(recipe, terms, nets, helpers, optims, ema, card, device, heap=heap)


def kernels(run: Run, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context manager in which a run computes: facekit's CPU kernels, if the card chooses them."""
    return CpuKernels() if _own_kernels(run, device) else contextlib.nullcontext()


def recomputation(run: Run, device: torch.device) -> tuple[Context, Context]:
    """Return in what a run computes layers again, and in what the last of them, of which only the input is needed."""
    last = InputsOnly if _own_kernels(run, device) else contextlib.nullcontext
    return lambda: kernels(run, device), last


def _own_kernels(run: Run, device: torch.device) -> bool:
    return run.cpu_kernels and device.type == "cpu" and not run.compile


def compile_nets(nets: nn.ModuleDict, device: torch.device) -> None:
    """Compile nets at their first call (`torch.compile`); raises MissingError if a C++ compiler is needed and missing.

    Use it for generators only: compiled nets have no second derivative, which gradient penalties of discriminators
    need.
    """
    compilers = (os.environ.get("CXX", "g++"), "clang++", "cl")
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise MissingError("run.compile needs a C++ compiler", "install g++, or --set run.compile=false")
    for net in nets.values():
        net.compile(dynamic=False)


def make_optimizer(nets: nn.ModuleDict, phase: Phase, optim: Optim) -> Optimizer:
    """Make the optimiser of a phase: its own (`Phase.optimizer`) or Adam (Kingma and Ba 2015).

    Adam's `weight_decay` is the coupled L2 term. `initial_lr` of each group is the rate that schedules multiply.
    """
    parameters = [p for name in phase.nets for p in nets[name].parameters()]
    if phase.optimizer is not None:
        optimizer = phase.optimizer(parameters)
    else:
        own = optim.phases.get(phase.name)
        values = {k: v for k, v in own.model_dump().items() if v is not None} if own else {}
        values = {"lr": optim.lr, "betas": optim.betas, "weight_decay": optim.weight_decay, **values}
        optimizer = torch.optim.Adam(parameters, fused=parameters[0].device.type in ("cpu", "cuda"), **values)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer
