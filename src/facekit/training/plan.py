"""The plan of a training run: its checked card, recipe, loss terms and images, before anything is computed."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.dataset import Layout, aligned_size, open_layout
from ..errors import CardError, InputError
from ..recipe_api import checkpoint, registry
from ..recipe_api.base import Recipe, Term
from ..recipe_api.registry import find
from ..runtime import console
from ..runtime.stand_ins import url_of
from ..storage import card, files, images
from .memory_estimate import Estimate, estimate
from .state import weighted_terms

SOURCES = {"root", "a", "b"}  # keys of a card's `data` that name folders


@dataclass(frozen=True)
class Plan:
    """A checked card with its recipe, its weighted loss terms and its images."""

    card: card.TrainCard
    recipe: Recipe
    terms: dict[str, Term]
    layout: Layout

    @property
    def values(self) -> dict[str, Any]:
        """The card as plain data, with all defaults filled in."""
        return card.plain(self.card)

    @property
    def load_size(self) -> int:
        """The edge of an image before the random crop, in px."""
        return self.card.data.load_size or self.recipe.load_size(self.card.data.size)

    @cached_property
    def estimate(self) -> Estimate:
        """The memory that a step needs; computed once, because it takes a second for large methods."""
        return estimate(self.recipe, self.terms, self.card)

    def steps(self, epoch_steps: int) -> int:
        """Return the length of the run in steps; raises CardError if the card sets none."""
        run = self.card.run
        if run.steps is not None:
            return run.steps
        if run.epochs:
            return run.epochs * epoch_steps
        raise CardError("neither run.steps nor run.epochs is set", "set a length, for example with --steps N")

    def refuse_folder(self, folder: Path) -> None:
        """Raise CardError if `folder`, meant for the run, is one of the folders of training images."""
        data, target = self.card.data, files.real(url_of(folder) or folder)
        tops = {files.real(name) for name in (data.root, data.a, data.b) if name}
        parts = (self.layout.train, self.layout.previews, self.layout.test)
        for parent in {path.parent for part in parts for paths in part.values() for path in paths}:
            above = files.real(parent)
            tops |= {above, *(p for p in above.parents if any(top in p.parents for top in tops))}
        if target in tops:
            raise CardError(f"{folder} holds the training images", "choose another output folder with --out")


def layers(path: Path | None, changes: Sequence[str], flags: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the layers of card values: the card at `path`, then `changes` (KEY.KEY=VALUE), then the flags.

    If a flag names a folder, all folders of the card are dropped. Raises CardError for what cannot be read.
    """
    given = _given(flags)
    out = [card.load(Path(path))] if path else []
    if out and not card.merge(*(card.assignment(text) for text in changes), given).get("recipe"):
        registry.refuse_code(out[0], f"facekit train {{}} --card {path}", str(path))
    if out and SOURCES & set(given.get("data", {})):
        out[0] = {**out[0], "data": {k: v for k, v in out[0].get("data", {}).items() if k not in {*SOURCES, "labels"}}}
    return [*out, *(card.assignment(text) for text in changes), given]


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that are set (not None), as card values."""
    out: dict[str, Any] = {}
    for key, value in flags.items():
        if isinstance(value, Mapping):
            value = _given(value) or None
        if value is not None:
            out[key] = str(value) if isinstance(value, Path) else value
    return out


def two_names(text: str | None) -> dict[str, str] | None:
    """Split `photo,anime` into the names of domains a and b; raises CardError unless there are two different ones."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise CardError(f"--domains {text!r} is not two different names", "for example --domains photo,anime")
    return dict(zip("ab", names, strict=True))


def make_plan(layers: Sequence[Mapping[str, Any]], where: str) -> Plan:
    """Make the plan of a run from layers of card values: later layers win, and all win over the recipe's defaults.

    Raises CardError for invalid values, InputError if the images are missing.
    """
    chosen = card.merge(*layers)
    if not chosen.get("recipe"):
        raise CardError("no recipe", "name one: facekit train RECIPE …; `facekit recipes` lists them")
    kind, preset = find(chosen["recipe"])
    merged = card.merge(kind.defaults, preset, *layers)
    if kind.inherits:
        base = _inherited(kind, merged)
        _refuse_other_size(base, chosen, merged["run"]["init"])
        merged = card.merge(kind.defaults, preset, base, *layers)
    run = merged.get("run")
    if isinstance(run, dict) and "steps" in run and "epochs" in run:  # the later layer's length wins
        every = (kind.defaults, preset, *layers)
        last = next(layer["run"] for layer in reversed(every) if {"steps", "epochs"} & set(layer.get("run") or ()))
        run.pop("epochs" if "steps" in last else "steps")
    checked = card.validate(card.TrainCard, merged, where)
    if "size" not in (chosen.get("data") or {}) and not kind.inherits:
        checked = _sized_as_its_faces(kind, checked)
    params = card.validate(kind.Params, checked.params, f"{where}, params")
    recipe = kind(params.model_dump(), checked.data.size)
    recipe.check(checked.data.size)
    terms = weighted_terms(kind, checked.losses)
    phases = [phase.name for phase in kind.phases]
    for name in checked.optim.phases:
        if name not in phases:
            raise CardError(f"no phase {name!r}{card.suggest(name, phases)}", f"fix {name!r} in optim.phases")
    layout = recipe.open(checked.data) or open_layout(checked.data)
    if layout.params:  # parameters that depend on the data, for example the labels
        params = card.validate(kind.Params, {**params.model_dump(), **layout.params}, f"{where}, params")
        recipe = kind(params.model_dump(), checked.data.size)
    changes: dict[str, Any] = {
        "params": params.model_dump(mode="json"),
        "losses": {t.name: checked.losses.get(t.name, t.weight) for t in terms.values()},
    }
    if "domains" not in merged:
        changes["domains"] = card.Domains(**layout.names)
    plan = Plan(checked.model_copy(update=changes), recipe, terms, layout)
    if plan.load_size < checked.data.size:
        raise CardError(f"data.load_size {plan.load_size} is smaller than data.size {checked.data.size}", "raise it")
    plan.steps(1)  # raises for a run without a length
    _warn_of_small_images(plan)
    return plan


def _inherited(kind: type[Recipe], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size and the parameters that a run inherits from the run that it starts from.

    Empty for a public checkpoint, which has no card. Raises CardError if the card names no run to start from.
    """
    init = (values.get("run") or {}).get("init")
    if not init:
        raise CardError(f"{values['recipe']} starts from trained weights", "name them: --init RUN")
    if Path(str(init)).suffix in checkpoint.PICKLED:
        return {}
    base = checkpoint.saved_card(init)
    params = base.get("params") or {}
    size = (base.get("data") or {}).get("size")
    return {
        "params": kind.inherited(params),
        **({"data": {"size": size}} if size else {}),
    }


def _refuse_other_size(base: Mapping[str, Any], chosen: Mapping[str, Any], init: str) -> None:
    """Raise CardError for a card or flag with another size than that of the run that it starts from."""
    size, wanted = ((values.get("data") or {}).get("size") for values in (base, chosen))
    if size and wanted and wanted != size:
        raise CardError(
            f"{init} was trained at {size} px, data.size is {wanted}",
            f"--size {size}, or start from a run of {wanted} px",
        )


def _sized_as_its_faces(kind: type[Recipe], checked: card.TrainCard) -> card.TrainCard:
    """Return the card with the size of the aligned faces as `data.size`, if the recipe supports that size."""
    size = aligned_size(checked.data)
    if size in (None, checked.data.size):
        return checked
    try:
        data = card.validate(card.Data, {**checked.data.model_dump(), "size": size}, "data")
        kind(checked.params, data.size).check(data.size)
    except CardError as error:
        console.warn(f"the aligned faces are {size} px, training uses {checked.data.size} px: {error.message}")
        return checked
    console.note(f"data.size {size}, the size of the aligned faces (the recipe's default: {checked.data.size}; --size)")
    return checked.model_copy(update={"data": data})


def _warn_of_small_images(plan: Plan) -> None:
    size = plan.card.data.size
    for side, paths in plan.layout.train.items():
        edges = []
        for path in paths[:9]:
            with contextlib.suppress(InputError):
                edges.append(min(images.size_of(path)))
        if edges and (usual := statistics.median_low(edges)) < size:
            name = plan.layout.names.get(side, side)
            console.warn(
                f"{name}: images of {usual} px are enlarged to {size}; --size {usual} trains at their original size"
            )
