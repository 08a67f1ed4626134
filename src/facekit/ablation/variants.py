"""The variants of an ablation: a card, and how it differs from the first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CardError
from ..storage import card


@dataclass(frozen=True)
class Variant:
    """A variant's card; `changes` says how it differs from the first, `at` is the key and value of a sweep."""

    name: str
    values: dict[str, Any]
    changes: str
    at: tuple[str, Any] | None = None


def plan_variants(
    base: Mapping[str, Any], drops: Sequence[str], sweeps: Sequence[str], against: Sequence[Mapping[str, Any]]
) -> list[Variant]:
    """Return the variants of card values `base`: itself, one per drop, one per swept value, one per other card.

    A drop names one loss term, or several joined by `+`. A sweep is `key.key=value,value`. Of other cards, recipe,
    params, losses and optim are used; data, domains, run and seed are those of `base`. Raises CardError for a sweep
    without values, and for two variants of the same name.
    """
    base = dict(base)
    found = [Variant(str(base["recipe"]).rpartition("/")[2].removesuffix(".py"), base, "the card as it is")]
    for drop in drops:
        terms = [term.strip() for term in drop.split("+")]
        without = card.merge(base, {"losses": dict.fromkeys(terms, 0)})
        found.append(Variant(f"no-{'-'.join(terms)}", without, f"without {' and '.join(terms)}"))
    for sweep in sweeps:
        key, equals, values = sweep.partition("=")
        if not equals or not values.strip():
            raise CardError(f"--sweep {sweep!r} has no values", "write --sweep losses.cycle=1,10,100")
        for text in values.split(","):
            change = card.assignment(f"{key}={text.strip()}")
            name = re.sub(r"[^\w.-]+", "-", f"{key.rpartition('.')[2]}-{text.strip()}")
            at = (key, card.assignment(f"x={text.strip()}")["x"])
            found.append(Variant(name, card.merge(base, change), f"{key} = {text.strip()}", at))
    for other in against:
        own: dict[str, Any] = {key: other[key] for key in ("recipe", "params", "losses", "optim") if key in other}
        common: dict[str, Any] = {
            key: base[key] for key in ("facekit", "command", "seed", "data", "domains", "run") if key in base
        }
        name = str(own["recipe"]).rpartition("/")[2].removesuffix(".py")
        found.append(Variant(name, {**common, **own}, "another method, same data and steps"))
    names = [variant.name for variant in found]
    for name in names:
        if names.count(name) > 1:
            raise CardError(f"two variants are called {name!r}", "leave one of them out")
    return found
