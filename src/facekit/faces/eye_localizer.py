"""Eye centres in a levelled face: gradients vote for dark round spots (after Loy and Zelinsky 2003)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

PRIOR = 0.12  # standard deviation of an eye around its expected place, of the eye distance
TRUST = 1 / 3  # weight of the votes against that prior; 1 follows brows and shadows, 0 never moves
PLAUSIBLE = 8.0, 0.25  # largest change of the eye line in degrees, and of the eye distance


def find_eyes(patch: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The two eye centres (2, 2) in px of `patch` (uint8 grey, upright face), near the `expected` ones (2, 2).

    An implausible pair is replaced by the expected one.
    """
    distance = float(np.linalg.norm(expected[1] - expected[0]))
    votes = _votes(patch, distance)
    rows, columns = np.indices(patch.shape) + 0.5
    eyes = np.empty((2, 2))
    for i, (x, y) in enumerate(expected):
        log = TRUST * votes - ((columns - x) ** 2 + (rows - y) ** 2) / (2 * (PRIOR * distance) ** 2)
        belief = np.exp(log - log.max())
        eyes[i] = (belief * columns).sum() / belief.sum(), (belief * rows).sum() / belief.sum()
    dx, dy = eyes[1] - eyes[0]
    bent, stretched = abs(np.degrees(np.arctan2(dy, dx))), abs(np.hypot(dx, dy) / distance - 1)
    return expected if bent > PLAUSIBLE[0] or stretched > PLAUSIBLE[1] else eyes


def _votes(patch: np.ndarray, distance: float) -> np.ndarray:
    """How many strong edges face away from each pixel at the radius of an iris, in standard deviations; (H, W)."""
    grey = patch.astype(float)
    local = grey - gaussian_filter(grey, distance * 0.37)
    contrast = local / (np.sqrt(gaussian_filter(local**2, distance * 0.37)) + 4)
    dy, dx = np.gradient(gaussian_filter(contrast, 1))
    steep = np.hypot(dx, dy)
    y, x = np.nonzero(steep > np.percentile(steep, 70))
    weight = np.minimum(steep[y, x], np.percentile(steep, 98))
    away = np.stack([dy[y, x], dx[y, x]]) / np.maximum(steep[y, x], 1e-9)
    votes = np.zeros_like(grey)
    for radius in np.linspace(0.06, 0.22, 6) * distance:  # iris to lids
        to = np.rint(np.stack([y, x]) - radius * away).astype(int)  # edges point from dark to bright: vote backwards
        inside = (to >= 0).all(0) & (to[0] < grey.shape[0]) & (to[1] < grey.shape[1])
        np.add.at(votes, tuple(to[:, inside]), weight[inside])
    votes = gaussian_filter(votes, 1.5)
    return votes / max(float(votes.std()), 1e-9)
