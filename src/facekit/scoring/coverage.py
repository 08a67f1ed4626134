"""How real and how varied a set is: precision, recall, density and coverage of its features.

Precision and recall: Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019,
section 2. Density and coverage: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020,
equations 4 and 6. A set's manifold is the union of balls around its features, each reaching to its k-th neighbour.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from . import bootstrap

BLOCK = 512  # rows of a distance matrix at a time


def compare(
    out: np.ndarray,
    reference: np.ndarray,
    unit: str,
    neighbours: int = 5,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Return the means of `values` as "precision-UNIT" and so on, each with a "std".

    The standard error is that of a mean over images, with the manifolds fixed; `resamples` adds "low" and "high", the
    95 % interval likewise. Raises InputError as `values` does.
    """
    found = {}
    for name, each in values(out, reference, neighbours).items():
        found[f"{name}-{unit}"] = float(np.mean(each))
        found[f"{name}-{unit} std"] = float(np.std(each) / np.sqrt(len(each)))
        if resamples:
            found |= bootstrap.named(f"{name}-{unit}", each, resamples, seed)
    return found


def values(out: np.ndarray, reference: np.ndarray, neighbours: int = 5) -> dict[str, np.ndarray]:
    """Return what each image adds to the four measures of output features [n, d] against reference features [m, d].

    "precision" [n]: whether an output is inside the reference's manifold. "recall" [m]: whether a reference is inside
    the outputs' manifold. "density" [n]: how many reference balls an output lies in, over `neighbours`; may exceed 1.
    "coverage" [m]: whether a reference's ball holds an output. Raises InputError for sets of at most `neighbours`
    images.
    """
    out, reference = np.asarray(out), np.asarray(reference)
    if min(len(out), len(reference)) <= neighbours:
        raise InputError(
            f"{len(out)} against {len(reference)} images have no {neighbours} neighbours each",
            "give more images, or fewer --neighbours",
        )
    out_radii, reference_radii = _radii(out, neighbours), _radii(reference, neighbours)
    inside, covered = np.zeros(len(out)), np.zeros(len(reference), bool)
    recalled = np.zeros(len(reference), bool)
    for start in range(0, len(out), BLOCK):
        part = slice(start, start + BLOCK)
        apart = _distances(out[part], reference)
        in_reference = apart <= reference_radii
        inside[part] = in_reference.sum(1)
        covered |= in_reference.any(0)
        recalled |= (apart <= out_radii[part, None]).any(0)
    return {"precision": inside > 0, "recall": recalled, "density": inside / neighbours, "coverage": covered}


def _radii(x: np.ndarray, neighbours: int) -> np.ndarray:
    """Return the squared distance [n] of each row to its k-th nearest other row."""
    found = np.empty(len(x))
    for start in range(0, len(x), BLOCK):
        apart = _distances(x[start : start + BLOCK], x)
        rows = np.arange(len(apart))
        apart[rows, start + rows] = -1  # a row is not its own neighbour
        found[start : start + BLOCK] = np.partition(apart, neighbours, axis=1)[:, neighbours]
    return found


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return squared Euclidean distances [n, m] in float64."""
    x = np.asarray(x, np.float64)
    found = np.empty((len(x), len(y)))
    for start in range(0, len(y), BLOCK):
        z = np.asarray(y[start : start + BLOCK], np.float64)
        part = (x * x).sum(1)[:, None] + (z * z).sum(1) - 2 * x @ z.T
        found[:, start : start + BLOCK] = np.maximum(part, 0)
    return found
