"""The sizes of images, remembered between runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import images, remembered
from .folder import Source

KIND = np.dtype([("size", np.int32, 2)])


def read_sizes(folder: Path, sources: Sequence[Source]) -> tuple[np.ndarray, dict[int, InputError]]:
    """Return the width and height of each image (int32 [N, 2], px), and the errors of those that cannot be read.

    Errors are by position; their sizes are 0. The second time, files that have not changed are not opened.
    """
    rows, errors = remembered.read("headers", folder, sources, KIND, lambda source: (images.size_of(source.path),))
    return rows["size"], errors
