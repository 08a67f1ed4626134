"""Estimate of the memory that a training step needs, computed before the first step on the meta device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..errors import CardError, OutOfMemory
from ..recipe_api import checkpoint
from ..recipe_api.base import Recipe, Term
from ..runtime import console
from ..runtime.memory import available_memory
from ..storage.card import TrainCard
from .activation_checkpointing import recompute

MOST_CALLS = 50_000  # of torch while nets are built
ROOM = 1.25  # factor on the estimate, for temporary buffers of the libraries


@dataclass(frozen=True)
class Estimate:
    """Parameters by net; bytes of weights, gradients and Adam's moments; bytes of activations, None if unknown."""

    parameters: dict[str, int]
    state_bytes: int
    activation_bytes: int | None

    @property
    def total_bytes(self) -> int:
        """The sum; activations are left out if they are unknown."""
        return self.state_bytes + (self.activation_bytes or 0)

    def __str__(self) -> str:
        nets = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in self.parameters.items() if count)
        parts = f"weights, gradients and Adam {self.state_bytes / 2**30:.2f} GiB"
        if self.activation_bytes is not None:
            parts += f", activations {self.activation_bytes / 2**30:.2f} GiB"
        total = f"{sum(self.parameters.values()):,} parameters ({nets})"
        return f"{total}; about {self.total_bytes / 2**30:.2f} GiB ({parts})"


def estimate(recipe: Recipe, terms: Mapping[str, Term], card: TrainCard) -> Estimate:
    """Estimate a step's memory: a forward pass of every phase on the meta device counts what autograd saves.

    Raises CardError for nets of more layers than any method has, or larger than tensors can be.
    """
    try:
        with torch.device("meta"), checkpoint.Blueprint(MOST_CALLS):
            nets = nn.ModuleDict(recipe.nets())
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise CardError(f"the nets cannot be built: {reason}", "lower params, such as width or blocks") from error
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    width = 8 if card.run.precision == "fp64" else 4
    learning = max((sum(counts[name] for name in phase.nets) for phase in recipe.phases), default=0)
    averaged = sum(counts[name] for name in recipe.exports) if card.run.ema else 0
    state = width * (3 * sum(counts.values()) + learning + averaged)
    return Estimate(counts, state, _activations(recipe, terms, card, nets))


def decide(card: TrainCard, guess: Estimate, device: torch.device) -> TrainCard:
    """Return the card with `run.recompute: auto` replaced by whether `guess` exceeds the free memory."""
    if card.run.recompute != "auto":
        return card
    free = available_memory(str(device))
    short = free is not None and not card.run.compile and ROOM * guess.total_bytes > free
    if short and free is not None:
        console.note(
            f"train: {free / 2**30:.1f} GiB of memory are free, a step needs about {guess.total_bytes / 2**30:.1f}: "
            "activations are recomputed in the backward pass"
        )
    return card.model_copy(update={"run": card.run.model_copy(update={"recompute": short})})


def _activations(recipe: Recipe, terms: Mapping[str, Term], card: TrainCard, nets: nn.ModuleDict) -> int | None:
    """Return the bytes of activations of the phase that saves most; None if the nets do not run on the meta device."""
    size, batch = card.data.size, card.data.batch
    most = 0
    try:
        with torch.device("meta"):
            weighted = [term.name for term in terms.values() if term.weight]
            helpers = nn.ModuleDict(recipe.helpers(lambda name: checkpoint.load_model(name, "meta"), weighted))
            helpers.to("meta").requires_grad_(False)
            if card.run.recompute is True and not card.run.compile:
                recompute(nets)
                recompute(helpers)
            for phase in recipe.phases:
                for name, net in nets.items():
                    net.requires_grad_(name in phase.nets)
                kept: dict[int, Tensor] = {}

                def keep(x: Tensor, kept: dict[int, Tensor] = kept) -> Tensor:
                    if not isinstance(x, nn.Parameter):
                        kept[id(x.untyped_storage())] = x
                    return x

                active = [t for t in terms.values() if t.phase == phase.name and t.weight]
                names = [t.name for t in active]
                scene = recipe.Scene(recipe, nets, recipe.blank(batch, size), phase.start, None, helpers, names)
                with saved_tensors_hooks(keep, lambda x: x):
                    parts = [t.fn(scene) for t in active]
                most = max(most, sum(x.untyped_storage().nbytes() for x in kept.values()))
                del parts
    except (RuntimeError, TypeError, ValueError):
        return None
    return most // 2 if card.run.precision == "bf16" else most * (2 if card.run.precision == "fp64" else 1)


@contextlib.contextmanager
def guarded(guess: Estimate) -> Iterator[None]:
    """Turn an out-of-memory error into OutOfMemory, whose hint names the settings that reduce memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        named = any(
            words in str(error) for words in ("allocate memory", "out of memory", "ALLOC_FAILED", "start new thread")
        )
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or named:
            raise OutOfMemory(
                f"out of memory (the estimate was {guess.total_bytes / 2**30:.1f} GiB)",
                "lower data.batch (and raise run.accumulate to keep their product), data.size, or the recipe's width "
                "(--set params.width=32, or its light preset), or use --precision bf16",
            ) from error
        raise
