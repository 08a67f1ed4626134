"""Controls of a translation: what people may set for a picture, as a flag or a slider."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CardError
from ..storage.card import suggest


@dataclass(frozen=True)
class Control:
    """A number from `low` to `high`, or one of `choices`; `default` is the translation as it was learned."""

    name: str
    default: float | str
    help: str
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()

    @property
    def takes(self) -> str:
        """What it takes, for people."""
        return " or ".join(self.choices) or f"{self.low:g} to {self.high:g}"

    def read(self, value: Any) -> float | str:
        """Return a value, given as text or number; raises CardError for one that the control does not take."""
        if self.choices:
            if value not in self.choices:
                raise CardError(f"{self.name} {value!r} is not known", " or ".join(self.choices))
            return str(value)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not self.low <= number <= self.high:  # also NaN
            raise CardError(f"{self.name} {value} is not from {self.low:g} to {self.high:g}", f"like {self.default:g}")
        return int(number) if number.is_integer() and isinstance(self.default, int) else number


STRENGTH = Control("strength", 1.0, "how far the translation goes: 0 is the face, 1 the translation")
KEEP = Control("keep", "nothing", "what stays of the photo: colours of hair and skin", choices=("nothing", "colours"))
BACKGROUND = Control(
    "background", "paint", "what is around head and neck: painted, or kept as in the photo", choices=("paint", "keep")
)
GENERAL = (STRENGTH, KEEP, BACKGROUND)
"""Controls that work on the images of any method."""

BEYOND = Control("strength", 1.0, "strength of the change: 1 as learned, more exaggerates, less than 0 reverses", -5, 5)
"""Strength of a method that scales the change itself."""


def read_controls(known: Sequence[Control], given: Mapping[str, Any], method: str) -> dict[str, float | str]:
    """Return the values of the controls that are given; None is not given.

    Raises CardError for one that `method` does not have, and for a value that it does not take.
    """
    by_name = {control.name: control for control in known}
    found = {}
    for name, value in given.items():
        if value is None:
            continue
        if name not in by_name:
            have = f"it has {', '.join(by_name)}" if by_name else "it has none"
            raise CardError(f"{method} has no control {name}{suggest(name, by_name)}", f"leave it out: {have}")
        found[name] = by_name[name].read(value)
    return found


def split_pairs(texts: Sequence[str]) -> dict[str, str]:
    """Return `NAME=VALUE` texts as a dictionary; raises CardError for one without a value."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise CardError(f"--control {text} has no value", f"--control {name}=VALUE")
        found[name.replace("-", "_")] = value
    return found
