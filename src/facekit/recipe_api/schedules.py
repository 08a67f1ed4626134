"""Learning-rate schedules that several recipes share, as factors of the learning rate."""

from __future__ import annotations

import math

from .base import Progress


def flat_then_linear(progress: float) -> float:
    """Return 1 for the first half of a run, then a line down to 0 at its end; `progress` is the share that is done."""
    return min(1.0, 2 - 2 * progress)


def warmup_flat_linear(clock: Progress) -> float:
    """Rise in a line over 100 steps, stay at 1, and fall in a line to a hundredth over the last half of the run."""
    return min(1.0, (clock.step + 1) / 100, max(0.01, (clock.steps - clock.step) / (0.5 * clock.steps)))


def warmup_cosine(clock: Progress, warmup: float = 0.05) -> float:
    """Rise in a line over the first `warmup` of the run, then fall along a cosine to 0 (Loshchilov and Hutter 2017)."""
    rise = max(1.0, warmup * clock.steps)
    if clock.step < rise:
        return (clock.step + 1) / (rise + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (clock.step - rise) / max(1.0, clock.steps - rise))
