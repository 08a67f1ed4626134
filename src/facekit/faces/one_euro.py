"""The one-euro filter: steady where a signal rests, quick where it moves."""

from __future__ import annotations

import numpy as np


def one_euro(
    values: np.ndarray, times: np.ndarray, cutoff: float = 1.0, beta: float = 1.0, speed_cutoff: float = 1.0
) -> np.ndarray:
    """Return `values` (n, d) at `times` (n; s, increasing) filtered forwards in time.

    A low-pass filter whose cut-off frequency is `cutoff` + `beta` * speed (Hz); the speed is filtered at
    `speed_cutoff`. Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
    Interactive Systems", 2012, algorithm 1.
    """
    out = np.array(values, dtype=np.float64)
    speed = np.zeros(out.shape[1])
    for i in range(1, len(out)):
        step = max(times[i] - times[i - 1], 1e-6)
        speed += _weight(np.full_like(speed, speed_cutoff), step) * ((values[i] - values[i - 1]) / step - speed)
        out[i] = out[i - 1] + _weight(cutoff + beta * np.abs(speed), step) * (values[i] - out[i - 1])
    return out


def both_ways(values: np.ndarray, times: np.ndarray, **settings: float) -> np.ndarray:
    """Return the mean of the filter forwards and backwards in time: it does not lag behind."""
    forwards = one_euro(values, times, **settings)
    backwards = one_euro(values[::-1], -times[::-1], **settings)[::-1]
    return (forwards + backwards) / 2


def _weight(cutoff: np.ndarray, step: float) -> np.ndarray:
    """Return the weight of a new value after `step` s in a low-pass filter of `cutoff` Hz."""
    turn = 2 * np.pi * cutoff * step
    return turn / (turn + 1)
