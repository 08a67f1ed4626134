"""How one file of a domain becomes a sample of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..storage import images

Sample = dict[str, np.ndarray]
"""What a file gives a batch, by entry: images uint8 [S, S, 3], label maps uint8 [S, S], anything else without edges."""


@dataclass(frozen=True)
class Reader:
    """How the files of a domain become samples; a subclass may add entries that belong to the image."""

    name: str

    def read(self, path: Path, size: int) -> Sample:
        """Decode a file to a square of `size` px; raises InputError where that cannot be done."""
        return {self.name: np.asarray(images.resize(images.square(images.read(path)), size))}

    def looked_up(self, path: Path) -> Sample:
        """Return the entries of `read` that cost no decoding: the cache of decoded samples does not hold them."""
        return {}

    def mirror(self, sample: Sample) -> Sample:
        """Return the sample as a mirror shows it."""
        return {name: entry[:, ::-1] if entry.ndim > 1 else entry for name, entry in sample.items()}

    def present(
        self, sample: Sample, rng: np.random.Generator, size: int, flip: bool, draw: Callable[[], Sample]
    ) -> Sample:
        """Return what the batch gets of a sample: a random crop of `size` px, with `flip` mirrored at random.

        `draw` gives other random samples of the domain, for readers that put several into one.
        """
        edge = next(entry for entry in sample.values() if entry.ndim > 1).shape[0]  # of an image, not of what it is
        top, left = rng.integers(0, edge - size + 1, 2)
        crop = (slice(top, top + size), slice(left, left + size))
        sample = {name: entry[crop] if entry.ndim > 1 else entry for name, entry in sample.items()}
        return self.mirror(sample) if flip and rng.random() < 0.5 else sample
