"""FID and KID of two sets of features, in float64: numbers in, numbers out.

FID is of Heusel et al. 2017 (arXiv 1706.08500), KID of Binkowski et al. 2018 (arXiv 1801.01401). On the same features
both equal what clean-fid and torch-fidelity compute; KID draws the very subsets that torch-fidelity draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import CardError, InputError

SEED = 2020  # torch-fidelity's
SUBSETS = 100
SUBSET_SIZE = 1000
BLOCK = 512  # rows of a kernel matrix at a time


def compare(
    out_features: np.ndarray,
    reference_features: np.ndarray,
    unit: str,
    seed: int = SEED,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
) -> dict[str, float]:
    """Return FID and KID of output features [n, d] against reference features [m, d].

    `unit` says what the features are and ends every name, such as 768 or clean: "FID-768", "KID-768" (x1, the plain
    squared distance, not x100 or x1000) and "KID-768 std", its spread over subsets. `subset_sizes` tells how many
    images a subset has. Fewer than four images have no spread. Raises InputError as `fid` does.
    """
    x, y = _checked(out_features, reference_features)
    size, spread_size = subset_sizes(len(x), len(y), subset_size)
    scores = {f"FID-{unit}": fid(x, y)}
    mean, std = kid(x, y, subsets, spread_size, seed) if spread_size else (None, None)
    scores[f"KID-{unit}"] = kid_full(x, y) if mean is None or size != spread_size else mean
    return scores if std is None else {**scores, f"KID-{unit} std": std}


def subset_sizes(n: int, m: int, subset_size: int = SUBSET_SIZE) -> tuple[int, int]:
    """Return the images in a subset for KID's mean, and for its spread (0 where there is none).

    They are one number, at most the smaller set. But where that is both sets whole, all subsets are one and the same:
    then KID is that one number, and its spread is that of halves, which is wider than the number's own.
    """
    if subset_size < 2:
        raise CardError(f"a subset of {subset_size} has no pairs", "at least 2 images")
    size = min(subset_size, n, m)
    if size < n or size < m:
        return size, size
    return size, size // 2 if size >= 4 else 0


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """Return the Frechet distance of Gaussians fitted to features [n, d] and [m, d]; covariances divide by n - 1.

    |mean x - mean y|^2 + Tr(A + B - 2 (A B)^(1/2)) for covariances A = F'F and B = G'G: the trace of the root is the
    sum of the singular values of F G', exact also where there are fewer images than dimensions.
    Raises InputError for fewer than two images, features that differ in dimension, or numbers that are not finite.
    """
    x, y = _checked(x, y)
    shift = x.mean(0) - y.mean(0)
    f, g = _factor(x), _factor(y)
    cross = _finite(f @ g.T)
    root = np.linalg.svd(cross, compute_uv=False).sum()
    return float(_finite(shift @ shift + (f**2).sum() + (g**2).sum() - 2 * root))


def _factor(x: np.ndarray) -> np.ndarray:
    """Return F [min(n, d), d] with F'F the covariance of x [n, d]."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    return centred if len(x) <= x.shape[1] else np.asarray(np.linalg.qr(_finite(centred), mode="r"))


def kid(
    x: np.ndarray, y: np.ndarray, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = SEED
) -> tuple[float, float]:
    """Return mean and standard deviation of KID (x1) over seeded subsets of both sets, drawn without replacement.

    Raises InputError where a set is smaller than a subset, and as `fid` does.
    """
    x, y = _checked(x, y)
    if subset_size > min(len(x), len(y)):
        raise InputError(
            f"{min(len(x), len(y))} images do not fill a subset of {subset_size}", "more images, or smaller subsets"
        )
    draw = np.random.RandomState(seed)  # the generator of clean-fid and torch-fidelity
    drawn = [[draw.choice(len(z), subset_size, replace=False) for z in (x, y)] for _ in range(subsets)]
    if (len(x) + len(y)) ** 2 <= 4 * subsets * subset_size**2:  # fewer kernel entries than those of all subsets
        in_x, in_y = _members([a for a, _ in drawn], len(x)), _members([b for _, b in drawn], len(y))
        values = _mmd(x, y, in_x, in_y)
    else:
        values = np.concatenate([_mmd(x[a], y[b]) for a, b in drawn])
    return float(np.mean(values)), float(np.std(values))


def _members(chosen: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return [subsets, count]: 1 where an image is in a subset, else 0."""
    found = np.zeros((len(chosen), count))
    for row, indices in zip(found, chosen, strict=True):
        row[indices] = 1
    return found


def kid_full(x: np.ndarray, y: np.ndarray) -> float:
    """Return KID (x1) over all pairs of both whole sets, an unbiased estimate; raises InputError as `fid` does."""
    return float(_mmd(*_checked(x, y))[0])


def _mmd(x: np.ndarray, y: np.ndarray, in_x: np.ndarray | None = None, in_y: np.ndarray | None = None) -> np.ndarray:
    """Return the unbiased squared maximum mean discrepancy of each subset under the kernel k(x, y) = (x.y / d + 1)^3.

    `in_x` [subsets, n] and `in_y` [subsets, m] are 1 for the members of a subset, else 0; absent: one of all. For
    such rows s and t the sum of a subset's kernel is s K t', so every entry of K is computed once for all subsets.
    """
    in_x, in_y = (np.ones((1, len(z))) if s is None else s for z, s in ((x, in_x), (y, in_y)))
    n, m = in_x.sum(1), in_y.sum(1)
    within_x, within_y = (_within(z, s) for z, s in ((x, in_x), (y, in_y)))
    parts = ((in_x[:, i : i + BLOCK] @ _kernel(x[i : i + BLOCK], y) * in_y).sum(1) for i in range(0, len(x), BLOCK))
    return np.asarray(_finite(within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * sum(parts) / (n * m)))


def _within(x: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return for each subset the sum of the kernel over its pairs of two images."""
    total = -members @ ((x * x).sum(1) / x.shape[1] + 1) ** 3  # an image with itself
    for i in range(0, len(x), BLOCK):
        part = _kernel(x[i : i + BLOCK], x[i:])
        part[:, BLOCK:] *= 2  # the kernel is symmetric: what is left of the diagonal is not computed
        total += (members[:, i : i + BLOCK] @ part * members[:, i:]).sum(1)
    return total


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found = x @ y.T
    found /= x.shape[1]
    found += 1
    found *= found * found
    return found


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(f"features of shape {x.shape} and {y.shape} cannot be compared", "use one extractor for both")
    if min(len(x), len(y)) < 2:
        raise InputError(
            f"{len(x)} images against {len(y)}: a score compares sets", "at least 2 images each; thousands say more"
        )
    return _finite(x), _finite(y)


def _finite(values: Any) -> Any:
    if not np.isfinite(values).all():
        raise InputError(
            "the features or their statistics are not finite", "the features file is damaged, or wants other pixels"
        )
    return values
