"""A method as data: the networks it trains, its phases, the losses of each phase, and how it translates.

A recipe file holds one Scene (a batch seen through the nets: views and terms) and one Recipe (nets, phases, presets).
Nothing here or in a recipe loops, logs, saves or moves devices: `training.loop.fit` does, for all of them.
"""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from ..errors import CardError
from .controls import BEYOND, GENERAL, STRENGTH, Control

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.dataset import Layout
    from ..storage.card import Data, Domains

view = functools.cached_property
"""Marks a tensor of a Scene that is computed once, on first use. Whatever draws random numbers must be a view."""


@dataclass(frozen=True)
class Term:
    """One loss of a method: which phase minimises it, with which weight, at which steps."""

    name: str
    phase: str
    weight: float
    every: int
    start: int
    stop: int | None
    fn: Callable[[Any], Tensor]

    @property
    def doc(self) -> str:
        """The first paragraph of the term's docstring."""
        return " ".join((self.fn.__doc__ or "").strip().split("\n\n")[0].split())

    def active(self, step: int) -> bool:
        """Whether the term is computed at `step` (from 0), with `every=n` at the last of each n steps.

        A weight of 0 skips the loss and all its forward passes.
        """
        in_time = self.start <= step and (self.stop is None or step < self.stop)
        return bool(self.weight) and in_time and (step + 1) % self.every == 0


def term(
    phase: str, weight: float = 1.0, every: int = 1, start: int = 0, stop: int | None = None
) -> Callable[[Callable], Callable]:
    """Mark a method of a Scene as a loss of `phase`; the card's `losses` can change every argument.

    The method returns a scalar tensor. It is called at most once per phase and step, and never while its weight is 0.
    A term with `every=n` counts n times when it is computed (a lazy regulariser).
    """

    def mark(fn: Callable) -> Callable:
        fn.term = Term(fn.__name__, phase, weight, every, start, stop, fn)  # type: ignore[attr-defined]
        return fn

    return mark


@dataclass(frozen=True)
class Phase:
    """One optimiser's part of a training step: its `nets` learn, everything else is frozen meanwhile.

    `reuse` names views of the previous phase that are passed on, detached, instead of being computed again.
    `precompute` names views that a later phase computes before the step's first phase and shares with it, detached;
    they must not depend on what the first phase learns, and only one phase may precompute. `optimizer` makes the
    phase's optimiser from its parameters, with the learning rate that `lr_factor` multiplies; without it the phase
    uses Adam with the card's `optim`.
    """

    name: str
    nets: tuple[str, ...]
    every: int = 1
    start: int = 0
    stop: int | None = None
    reuse: tuple[str, ...] = ()
    precompute: tuple[str, ...] = ()
    optimizer: Callable[[list[Any]], Any] | None = None

    def live(self, step: int) -> bool:
        """Return whether the phase takes an optimiser step at `step` (from 0): with `every=n` the last of each n."""
        return self.start <= step and (self.stop is None or step < self.stop) and (step + 1) % self.every == 0


@dataclass(frozen=True)
class Progress:
    """Progress of a run: `step` of `steps`, with `epoch_steps` steps per pass over the larger domain."""

    step: int
    steps: int
    epoch_steps: int = 1

    @property
    def epoch(self) -> int:
        """The current pass over the data, from 0."""
        return self.step // self.epoch_steps

    @property
    def progress(self) -> float:
        """The share of the run that is done, from 0 to 1."""
        return self.step / max(self.steps, 1)

    @property
    def epochs(self) -> int:
        """The number of passes of the run; the last one may be incomplete."""
        return -(-self.steps // self.epoch_steps)


class Scene:
    """One batch seen through the nets, for one phase.

    The batch's entries are attributes (`a`, `b`: [N, 3, H, W] in [-1, 1]), as are `nets`, `helpers` (frozen nets by
    name), `params`, `step`, `progress` (the share of the run that is done) and `seed`, an integer that changes with the
    step and is the same in every process. Subclasses add views and terms.
    """

    def __init__(
        self,
        recipe: Recipe,
        nets: Any,
        batch: Mapping[str, Tensor],
        step: int,
        carried: Mapping[str, Any] | None = None,
        helpers: Any = None,
        active: Collection[str] = (),
        progress: float = 0.0,
        seed: int = 0,
    ):
        self.recipe, self.params, self.nets, self.step, self.helpers = recipe, recipe.params, nets, step, helpers
        self.active_terms, self.progress, self.seed = active, progress, seed
        self.__dict__.update(batch)
        self.__dict__.update(carried or {})

    if TYPE_CHECKING:  # whatever the batch holds

        def __getattr__(self, name: str) -> Any: ...

    def active(self, name: str) -> bool:
        """Return whether this phase computes term `name`: a view may then do the work of two terms in one pass."""
        return name in self.active_terms

    def carry(self, names: Sequence[str]) -> dict[str, Any]:
        """Return those of the views `names` that have been computed, detached from their graph."""
        return {name: _detach(self.__dict__[name]) for name in names if name in self.__dict__}


def _detach(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_detach(item) for item in value)
    if isinstance(value, dict):
        return {name: _detach(item) for name, item in value.items()}
    return value.detach()


class Params(BaseModel):
    """The parameters of a recipe, as a card's `params` may set them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(abc.ABC):
    """One method. Subclasses give nets, phases and translate; the first docstring line names the source paper.

    `presets` maps each name that the recipe answers to onto card values that the name stands for. It must be a literal:
    recipes are listed without being imported. `defaults` are card values common to all presets. `exports` names the
    nets that translating needs, `sizes` the smallest training size and what it must be a multiple of, `directions` the
    domains that the method can translate to, `combines` says whether it can be asked for several at once, `multiple`
    the number of px that an image's edges must be a multiple of (0: only the training size, square), `masks` whether
    there is a method `mask` beside `translate`, with the same arguments: where x changes, [N, 1, H, W] in [0, 1];
    `inherits` names parameters that come from the run which this one must start from (`run.init`), and with
    `starts_averaged` it takes that run's averaged weights. State that must
    survive a resume (an image pool) is a module of buffers among the nets: see `nets/image_pool.py`. `older_defaults`
    are parameters that are newer than some saved weights, with the values that those learned with. `controls` are what
    people may set for each translation; those that `translate` takes as arguments are given to it, the others, which
    must be of `controls.GENERAL`, are applied to its images.
    """

    Scene: ClassVar[type[Scene]] = Scene
    Params: ClassVar[type[Params]] = Params
    phases: ClassVar[tuple[Phase, ...]] = ()
    presets: ClassVar[dict[str, dict]] = {}
    defaults: ClassVar[dict[str, Any]] = {}
    exports: ClassVar[tuple[str, ...]] = ()
    sizes: tuple[int, int] = (8, 1)
    directions: ClassVar[tuple[str, ...]] = ("a", "b")
    combines: bool = False
    multiple: int = 4
    masks: bool = False
    older_defaults: ClassVar[dict[str, Any]] = {}
    inherits: ClassVar[tuple[str, ...]] = ()
    starts_averaged: ClassVar[bool] = False
    controls: ClassVar[tuple[Control, ...]] = GENERAL

    def __init__(self, params: Mapping[str, Any] | None = None, size: int = 256):
        self.params: Any = type(self).Params.model_validate(dict(params or {}))
        self.size = size

    @classmethod
    def inherited(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters that a run takes over from `params`, those in the card of the run that it starts from.

        The run's own card goes before them.
        """
        return {name: params[name] for name in cls.inherits if name in params}

    def check(self, size: int) -> None:
        """Raise CardError if the method does not support `size` px; the hint names the nearest supported sizes."""
        least, unit = self.sizes
        if size < least or size % unit:
            near = [edge for edge in (size // unit * unit, -(-size // unit) * unit) if edge >= least] or [least]
            raise CardError(
                f"{type(self).__name__} needs data.size of {least} or more, a multiple of {unit}; not {size}",
                " or ".join(f"--size {edge}" for edge in dict.fromkeys(near)),
            )

    def load_size(self, size: int) -> int:
        """Return the edge in px that images are resized to before a random crop of `size` px is taken."""
        return size

    @abc.abstractmethod
    def nets(self) -> dict[str, nn.Module]:
        """Build the nets by name, initialised."""

    def helpers(self, load: Callable[[str], Any], terms: Collection[str]) -> dict[str, nn.Module]:
        """Build the frozen nets that `terms` (those with a weight) use; they are neither trained nor saved.

        `load` is `checkpoint.load_model`: the model of a run folder, a weights file or a name that facekit ships.
        """
        return {}

    def open(self, data: Data) -> Layout | None:
        """Find the training images; None for two folders of images, as `data.dataset.open_layout` finds them."""
        return None

    def step_domains(self, seed: int) -> Collection[str] | None:
        """Return the layout's domains that the step with this `Scene.seed` looks at; None: all of them."""
        return None

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        """Return a batch with the shapes and types of the method's data but no content, for the memory estimate."""
        import torch

        return {name: torch.empty(batch, 3, size, size) for name in ("a", "b")}

    def from_public(self, state: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """Return the nets' tensors from a checkpoint of the method's public code; None for an unknown layout."""
        return None

    def start(self, nets: Any, layout: Layout) -> None:  # noqa: B027
        """Prepare the nets once, before step 0 of a run, after initial weights were loaded from `run.init`."""

    def finish(self, nets: Any, layout: Layout, folder: Path) -> dict[str, Any]:
        """Measure the finished `nets` (those that are saved) on `layout.test`; may write pictures into `folder`.

        The result is printed, and goes into the run's card as `made.scores`.
        """
        return {}

    def targets(self, domains: Domains) -> dict[str, str]:
        """Return what `translate` can translate to: each domain's name, and the `to` that stands for it."""
        return {getattr(domains, side): side for side in self.directions}

    def previews(self) -> dict[str, str]:
        """Return each target `to` that previews show, with the domain whose held-out images are translated."""
        return {to: "b" if to == "a" else "a" for to in self.directions}

    def lr_factor(self, clock: Progress) -> float:
        """Return the factor on the learning rate at `clock`."""
        return 1.0

    def begins_stage(self, clock: Progress) -> bool:
        """Whether a new stage of training begins at `clock`; the optimisers' moments are then reset."""
        return False

    def after(self, nets: Any, phase: str) -> None:  # noqa: B027
        """Adjust the nets after each optimiser step of `phase` (clip a parameter, for instance)."""

    @abc.abstractmethod
    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        """Translate x ([N, 3, H, W] in [-1, 1]) to domain `to`, one of `targets`; same shape and range."""

    @classmethod
    def known_controls(cls) -> tuple[Control, ...]:
        """Return `controls`; the strength of a method that scales the change itself goes beyond 1."""
        own = "strength" in inspect.signature(cls.translate).parameters
        return tuple(BEYOND if own and control is STRENGTH else control for control in cls.controls)

    def check_controls(self, values: Mapping[str, Any]) -> None:  # noqa: B027
        """Raise CardError for values of controls that nets of this size cannot follow."""

    def takes(self, name: str) -> bool:
        """Whether `translate` takes an argument beside the domain: `roll`, `source`, a control."""
        return name in inspect.signature(self.translate).parameters

    @property
    def needs_source(self) -> bool:
        """Whether `translate` needs `source`, the domain or labels of each image."""
        return self.takes("source")

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        """Return the columns of a preview row beside the input, by title; the translation comes first."""
        return {"translation": self.translate(nets, x, to)}

    @classmethod
    def terms(cls) -> dict[str, Term]:
        """Return the method's losses in the order they are written; a name set to None in a subclass is dropped."""
        found: dict[str, Term] = {}
        for owner in reversed(cls.Scene.__mro__):
            for name, member in vars(owner).items():
                if member is None:
                    found.pop(name, None)
                elif hasattr(member, "term"):
                    found[name] = member.term
        return found
