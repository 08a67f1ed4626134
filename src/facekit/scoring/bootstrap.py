"""Intervals of means by resampling (Efron, "Bootstrap methods: another look at the jackknife", 1979)."""

from __future__ import annotations

import numpy as np

BLOCK = 64  # resamples at a time


def interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values [n]: percentiles of the means of `resamples` draws of n."""
    values, draw = np.asarray(values, np.float64), np.random.default_rng(seed)
    sizes = [min(BLOCK, resamples - start) for start in range(0, resamples, BLOCK)]
    means = [values[draw.integers(len(values), size=(size, len(values)))].mean(1) for size in sizes]
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(low), float(high)


def named(name: str, values: np.ndarray, resamples: int, seed: int) -> dict[str, float]:
    """Return the interval of the mean of values [n] as "NAME low" and "NAME high"."""
    low, high = interval(values, resamples, seed)
    return {f"{name} low": low, f"{name} high": high}
