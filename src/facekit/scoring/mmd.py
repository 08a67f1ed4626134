"""The maximum mean discrepancy of two sets of features, its bootstrap interval, and CMMD.

Gretton et al., "A kernel two-sample test", 2012, lemma 6. CMMD: Jayasumana et al., "Rethinking FID", CVPR 2024,
equations 4 and 5. All in float64; kernel matrices are made in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BLOCK = 512  # rows of a kernel matrix at a time
SIGMA, SCALE = 10.0, 1000.0  # CMMD's
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (x.y / d + 1)^3 [n, m] of features [n, d] and [m, d]: KID's kernel."""
    found = x @ y.T
    found /= x.shape[1]
    found += 1
    found *= found * found
    return found


def gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return exp(-|x - y|^2 / (2 SIGMA^2)) [n, m] of features [n, d] and [m, d]: CMMD's kernel."""
    apart = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T
    return np.exp(np.maximum(apart, 0) / (-2 * SIGMA**2))


def unbiased(
    x: np.ndarray,
    y: np.ndarray,
    in_x: np.ndarray | None = None,
    in_y: np.ndarray | None = None,
    kernel: Kernel = cubic,
) -> np.ndarray:
    """Return the unbiased squared MMD [subsets] of features [n, d] and [m, d].

    `in_x` [subsets, n] and `in_y` [subsets, m] say how often an image is in a subset; absent: one subset of all. An
    image is never paired with itself, nor with a copy of itself. For such rows s and t the sum of a subset's kernel is
    s K t', so every entry of K is computed once for all subsets.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    in_x, in_y = (np.ones((1, len(z))) if s is None else s for z, s in ((x, in_x), (y, in_y)))
    within = [_within(z, s, kernel) / (s.sum(1) ** 2 - (s**2).sum(1)) for z, s in ((x, in_x), (y, in_y))]
    parts = ((in_x[:, i : i + BLOCK] @ kernel(x[i : i + BLOCK], y) * in_y).sum(1) for i in range(0, len(x), BLOCK))
    return np.asarray(sum(within) - 2 * sum(parts) / (in_x.sum(1) * in_y.sum(1)))


def interval(x: np.ndarray, y: np.ndarray, resamples: int, seed: int, kernel: Kernel = cubic) -> tuple[float, float]:
    """Return the 95 % interval of `unbiased`: percentiles over resamples of both sets' images (Efron 1979)."""
    draw = np.random.default_rng(seed)
    in_x, in_y = (draw.multinomial(len(z), np.full(len(z), 1 / len(z)), resamples).astype(float) for z in (x, y))
    low, high = np.percentile(unbiased(x, y, in_x, in_y, kernel), (2.5, 97.5))
    return float(low), float(high)


def cmmd(x: np.ndarray, y: np.ndarray, resamples: int | None = None, seed: int = 0) -> dict[str, float]:
    """Return "CMMD" of CLIP embeddings [n, d] and [m, d] of unit length: SCALE times the biased squared MMD.

    As published, every image is paired with itself, too. With `resamples` also "CMMD low" and "CMMD high", the 95 %
    interval of the unbiased estimate, moved by the bias.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    distinct = float(unbiased(x, y, kernel=gaussian)[0])
    own = [_within(z, np.ones((1, len(z))), gaussian)[0] for z in (x, y)]
    biased = distinct + sum(
        (w + len(z)) / len(z) ** 2 - w / (len(z) * (len(z) - 1)) for w, z in zip(own, (x, y), strict=True)
    )
    found = {"CMMD": SCALE * biased}
    if resamples:
        low, high = interval(x, y, resamples, seed, gaussian)
        found |= {"CMMD low": SCALE * (low + biased - distinct), "CMMD high": SCALE * (high + biased - distinct)}
    return found


def _within(x: np.ndarray, members: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Return for each subset the sum of the kernel over its pairs of two images."""
    total = np.zeros(len(members))
    for i in range(0, len(x), BLOCK):
        part = kernel(x[i : i + BLOCK], x[i:])
        rows = members[:, i : i + BLOCK]
        total -= rows**2 @ np.diagonal(part)  # an image with itself
        part[:, BLOCK:] *= 2  # the kernel is symmetric: what is left of the diagonal is not computed
        total += (rows @ part * members[:, i:]).sum(1)
    return total
