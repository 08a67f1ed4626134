"""FID and KID of two sets of features, in float64: numbers in, numbers out.

FID: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017, eq. 6.
KID: Binkowski et al., "Demystifying MMD GANs", 2018, section 4. On the same features both equal what clean-fid and
torch-fidelity compute; KID draws the subsets that torch-fidelity draws. Features may be memory-mapped: they are read in
blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import CardError, InputError
from ..runtime.memory import let_go
from . import mmd

SEED = 2020  # torch-fidelity's
SUBSETS = 100
SUBSET_SIZE = 1000
BLOCK = 512  # rows of features at a time


def compare(
    out_features: np.ndarray,
    reference_features: np.ndarray,
    unit: str,
    seed: int = SEED,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
) -> dict[str, float]:
    """Return FID and KID of output features [n, d] against reference features [m, d].

    `unit` names the features and ends every name, such as 768 or clean: "FID-768", "KID-768" (x1, the plain squared
    distance, not x100 or x1000) and "KID-768 std", its standard deviation over subsets. See `subset_sizes` for how many
    images a subset has; fewer than four images have no deviation. Raises InputError as `fid` does.
    """
    x, y = _checked(out_features, reference_features)
    size, spread_size = subset_sizes(len(x), len(y), subset_size)
    scores = {f"FID-{unit}": fid(x, y)}
    mean, std = kid(x, y, subsets, spread_size, seed) if spread_size else (None, None)
    scores[f"KID-{unit}"] = kid_full(x, y) if mean is None or size != spread_size else mean
    return scores if std is None else {**scores, f"KID-{unit} std": std}


def subset_sizes(n: int, m: int, subset_size: int = SUBSET_SIZE) -> tuple[int, int]:
    """Return the number of images in a subset for KID's mean, and for its deviation (0 if there is none).

    Both are `subset_size`, at most the smaller set. If that takes both sets whole, all subsets are equal: KID is then
    computed once from all images, and its deviation from halves, which overstates the deviation of the mean.
    """
    if subset_size < 2:
        raise CardError(f"a subset of {subset_size} has no pairs", "at least 2 images")
    size = min(subset_size, n, m)
    if size < n or size < m:
        return size, size
    return size, size // 2 if size >= 4 else 0


def describe(n: int, m: int, subsets: int, subset_size: int, seed: int) -> dict[str, Any]:
    """Return how KID of `n` and `m` images is estimated; a `spread_size` of 0: too few images for a deviation."""
    size, spread_size = subset_sizes(n, m, subset_size)
    return {
        "unit": "x1",
        "subsets": subsets if size == spread_size else 1,
        "subset_size": size,
        "spread_subsets": subsets if spread_size else 0,
        "spread_size": spread_size,
        "seed": seed,
    }


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """Return the Frechet distance of Gaussians fitted to features [n, d] and [m, d]; covariances divide by n - 1.

    |mean x - mean y|^2 + Tr(A + B - 2 (A B)^(1/2)) for covariances A = F'F and B = G'G: the trace of the root is the
    sum of the singular values of F G', exact also for fewer images than dimensions. Never negative.
    Raises InputError for fewer than two images, features that differ in dimension, or numbers that are not finite.
    """
    x, y = _checked(x, y)
    means = [_mean(z) for z in (x, y)]
    f, g = (_factor(z, mean) for z, mean in zip((x, y), means, strict=True))
    shift = means[0] - means[1]
    root = np.linalg.svd(_finite(f @ g.T), compute_uv=False).sum()
    return max(0.0, float(_finite(shift @ shift + (f**2).sum() + (g**2).sum() - 2 * root)))


def _mean(x: np.ndarray) -> np.ndarray:
    return sum(part.sum(0) for part in _parts(x)) / len(x)


def _factor(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return F [min(n, d), d] with F'F the covariance of x [n, d], from a QR decomposition in blocks of rows."""
    n, d = x.shape
    if n <= d:
        return _finite((x - mean) / np.sqrt(n - 1))
    found = np.empty((0, d))
    for part in _parts(x, max(BLOCK, 2 * d)):
        rows = np.concatenate([found, (part - mean) / np.sqrt(n - 1)])
        found = np.asarray(np.linalg.qr(_finite(rows), mode="r"))
    return found


def _parts(x: np.ndarray, rows: int = BLOCK) -> Iterator[np.ndarray]:
    """Yield the rows of x as float64, some at a time: x may be larger than memory."""
    for start in range(0, len(x), rows):
        yield np.asarray(x[start : start + rows], np.float64)
        let_go(x)


def kid(
    x: np.ndarray, y: np.ndarray, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = SEED
) -> tuple[float, float]:
    """Return mean and standard deviation of KID (x1) over seeded subsets of both sets, drawn without replacement.

    Raises InputError if a set is smaller than a subset, and as `fid` does.
    """
    x, y = _checked(x, y)
    if subset_size > min(len(x), len(y)):
        raise InputError(
            f"{min(len(x), len(y))} images do not fill a subset of {subset_size}",
            "give more images or a smaller --subset-size",
        )
    draw = np.random.RandomState(seed)  # the generator of clean-fid and torch-fidelity
    drawn = [[_draw(draw, len(z), subset_size) for z in (x, y)] for _ in range(subsets)]
    if (len(x) + len(y)) ** 2 <= 4 * subsets * subset_size**2:  # fewer kernel entries than those of all subsets
        in_x, in_y = _members([a for a, _ in drawn], len(x)), _members([b for _, b in drawn], len(y))
        values = mmd.unbiased(x, y, in_x, in_y)
    else:
        values = np.concatenate([mmd.unbiased(_rows(x, a), _rows(y, b)) for a, b in drawn])
    return float(_finite(np.mean(values))), float(np.std(values))


def _draw(draw: np.random.RandomState, count: int, size: int) -> np.ndarray:
    """Return `size` of `count` indices; numpy's own result would keep all of them in memory."""
    return draw.choice(count, size, replace=False).copy()


def _rows(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    found = x[indices]
    let_go(x)
    return found


def _members(chosen: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return [subsets, count]: 1 where an image is in a subset, else 0."""
    found = np.zeros((len(chosen), count))
    for row, indices in zip(found, chosen, strict=True):
        row[indices] = 1
    return found


def kid_full(x: np.ndarray, y: np.ndarray) -> float:
    """Return KID (x1) over all pairs of both whole sets, an unbiased estimate; raises InputError as `fid` does."""
    return float(_finite(mmd.unbiased(*_checked(x, y))[0]))


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(f"features of shape {x.shape} and {y.shape} cannot be compared", "use one extractor for both")
    if min(len(x), len(y)) < 2:
        raise InputError(
            f"{len(x)} images against {len(y)}: a score compares sets", "at least 2 images each; thousands say more"
        )
    for z in (x, y):
        for part in _parts(z):
            _finite(part)
    return x, y


def _finite(values: Any) -> Any:
    if not np.isfinite(values).all():
        raise InputError(
            "the features or their statistics are not finite",
            "the features file is damaged, or needs another --preprocessing",
        )
    return values
