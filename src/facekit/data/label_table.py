"""Which labels many images have: an index or a few for each, not a row of one number per label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np


class LabelTable(Mapping[Path, np.ndarray]):
    """The labels of images as indices into `labels`; `table[path]` is float32 [K], 1 for each label of the image.

    An image takes as many indices as it has labels, in the smallest type that holds K (one byte up to 256 labels). The
    row of K numbers is made when it is asked for.
    """

    def __init__(self, labels: Sequence[str], has: Mapping[Path, Sequence[str]]):
        self.labels = tuple(labels)
        number = {label: index for index, label in enumerate(self.labels)}
        self._row = {path: row for row, path in enumerate(has)}
        self._starts = np.zeros(len(has) + 1, np.int64)
        counts = (sum(label in number for label in own) for own in has.values())
        np.cumsum(np.fromiter(counts, np.int64, len(has)), out=self._starts[1:])
        codes = (number[label] for own in has.values() for label in own if label in number)
        self._codes = np.fromiter(codes, np.min_scalar_type(max(len(labels) - 1, 0)), int(self._starts[-1]))

    def __getitem__(self, path: Path) -> np.ndarray:
        row = np.zeros(len(self.labels), np.float32)
        row[self.indices(path)] = 1
        return row

    def __iter__(self) -> Iterator[Path]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, path: object) -> bool:
        return path in self._row

    @property
    def nbytes(self) -> int:
        """Bytes of the indices of all images."""
        return self._starts.nbytes + self._codes.nbytes

    def indices(self, path: Path) -> np.ndarray:
        """Return the indices of an image's labels; raises KeyError for an image that is not in the table."""
        row = self._row[path]
        return self._codes[self._starts[row] : self._starts[row + 1]]

    def by_label(self, paths: Sequence[Path]) -> dict[str, list[Path]]:
        """Return those of `paths` that have each label, in their order; one with several labels stands in several."""
        found: dict[str, list[Path]] = {label: [] for label in self.labels}
        for path in paths:
            for index in self.indices(path).tolist():
                found[self.labels[index]].append(path)
        return found

    def counts(self, paths: Sequence[Path]) -> dict[str, int]:
        """Return how many of `paths` have each label."""
        return {label: len(found) for label, found in self.by_label(paths).items()}
