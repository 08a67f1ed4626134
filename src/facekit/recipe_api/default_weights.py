"""Which of the shipped weights are used where none are named; it imports nothing, so that completion is quick."""

from __future__ import annotations

GENERATORS = ("anime", "cartoon", "game")  # of the shipped weights, those that translate; each is called as its domain


def default_weights(to: str | None) -> str:
    """Return the shipped weights that are called as the domain `to`, or else the first."""
    return to if to in GENERATORS else GENERATORS[0]
