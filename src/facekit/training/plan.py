"""What a training run will do, decided before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.dataset import Layout, open_layout
from ..errors import CardError
from ..recipe_api.base import Recipe, Term
from ..recipe_api.registry import find
from ..storage import card
from .loop import weighted_terms


@dataclass(frozen=True)
class Plan:
    """A checked card, with the recipe, the weighted terms and the images that it stands for."""

    card: card.TrainCard
    recipe: Recipe
    terms: dict[str, Term]
    layout: Layout

    @property
    def values(self) -> dict[str, Any]:
        """The card as plain data, every default written out."""
        return card.plain(self.card)

    @property
    def load_size(self) -> int:
        """The edge in px that images have before the random crop."""
        return self.card.data.load_size or self.recipe.load_size(self.card.data.size)

    def steps(self, epoch_steps: int) -> int:
        """Return the length of the run; raises CardError where the card gives none."""
        run = self.card.run
        if run.steps is not None:
            return run.steps
        if run.epochs:
            return run.epochs * epoch_steps
        raise CardError("the run has no length", "give --steps N")


def make_plan(layers: Sequence[Mapping[str, Any]], where: str) -> Plan:
    """Decide a run from layers of card values, the later over the earlier, all over the recipe's own defaults.

    Raises CardError for values that do not fit, InputError where the images are not there.
    """
    chosen = card.merge(*layers)
    if not chosen.get("recipe"):
        raise CardError("no recipe", "name one: facekit train RECIPE …; `facekit recipes` lists them")
    kind, preset = find(chosen["recipe"])
    merged = card.merge(kind.defaults, preset, *layers)
    run = merged.get("run")
    if isinstance(run, dict) and "steps" in run and "epochs" in run:  # the later layer's length counts
        every = (kind.defaults, preset, *layers)
        last = next(layer["run"] for layer in reversed(every) if {"steps", "epochs"} & set(layer.get("run") or ()))
        run.pop("epochs" if "steps" in last else "steps")
    checked = card.validate(card.TrainCard, merged, where)
    params = card.validate(kind.Params, checked.params, f"{where}, params")
    recipe = kind(params.model_dump(), checked.data.size)
    recipe.check(checked.data.size)
    terms = weighted_terms(kind, checked.losses)
    phases = [phase.name for phase in kind.phases]
    for name in checked.optim.phases:
        if name not in phases:
            raise CardError(f"no phase {name!r}{card.suggest(name, phases)}", "mend optim.phases")
    layout = recipe.open(checked.data) or open_layout(checked.data)
    if layout.params:  # what only the data can tell, as the number of classes
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
    return plan
