"""Strengths from choices between two: the Bradley-Terry model, with intervals.

Bradley and Terry 1952, "Rank analysis of incomplete block designs"; fitted by the iteration of Hunter 2004, "MM
algorithms for generalized Bradley-Terry models", eq. 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PRIOR = 0.5  # ties added between each two: without them one that never loses would have no bounded strength
ROUNDS = 1000


@dataclass(frozen=True)
class Choice:
    """One vote about one item: `winner` and `loser` are numbers of contestants; a tie counts half for each."""

    item: str
    winner: int
    loser: int
    tie: bool = False


@dataclass(frozen=True)
class Strength:
    """A contestant's share of wins against an average one, its 95 % interval, and how often it was shown."""

    share: float
    low: float
    high: float
    votes: int


def wins_of(choices: Sequence[Choice], count: int) -> np.ndarray:
    """Return how often each contestant won against each other: [count, count]."""
    wins = np.zeros((count, count))
    for choice in choices:
        if choice.tie:
            wins[choice.winner, choice.loser] += 0.5
            wins[choice.loser, choice.winner] += 0.5
        else:
            wins[choice.winner, choice.loser] += 1
    return wins


def fit(wins: np.ndarray) -> np.ndarray:
    """Return log strengths [K] of mean 0 for wins [K, K]; the probability that i wins over j is 1 / (1 + e^(j - i))."""
    count = len(wins)
    wins = wins + PRIOR / 2 * (1 - np.eye(count))
    games = wins + wins.T
    strength = np.ones(count)
    for _ in range(ROUNDS):
        before = strength
        strength = wins.sum(1) / (games / (strength[:, None] + strength[None])).sum(1)
        strength = strength / np.exp(np.log(strength).mean())
        if np.abs(np.log(strength / before)).max() < 1e-9:
            break
    return np.log(strength)


def strengths(choices: Sequence[Choice], count: int, resamplings: int = 1000, seed: int = 0) -> list[Strength]:
    """Return each contestant's strength; intervals by resampling the items, which several votes may be about."""
    items = sorted({choice.item for choice in choices})
    by_item = np.stack([wins_of([c for c in choices if c.item == item], count) for item in items])
    found = _share(fit(by_item.sum(0)))
    random = np.random.default_rng(seed)
    weights = random.multinomial(len(items), np.full(len(items), 1 / len(items)), size=resamplings)
    resampled = np.stack([_share(fit(np.tensordot(weight, by_item, 1))) for weight in weights])
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    shown = by_item.sum(0)
    votes = (shown + shown.T).sum(1).round().astype(int)
    rows = zip(found, low, high, votes, strict=True)
    return [Strength(float(a), float(b), float(c), int(d)) for a, b, c, d in rows]


def _share(logs: np.ndarray) -> np.ndarray:
    """Return the probability of winning against a contestant of mean strength."""
    return 1 / (1 + np.exp(-logs))
