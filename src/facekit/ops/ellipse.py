"""The ellipse in a box, moved."""

from __future__ import annotations

import numpy as np


def moved(box: np.ndarray, linear: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return the box [4] around the ellipse in a box, moved by an affine map: `linear` [2, 2], then `shift` [2]."""
    middle, half = linear @ ((box[:2] + box[2:]) / 2) + shift, (box[2:] - box[:2]) / 2
    reach = np.sqrt(((linear * half) ** 2).sum(1))
    return np.concatenate([middle - reach, middle + reach])
