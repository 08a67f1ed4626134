"""Features of a folder's images: read, resized as clean-fid does it, run through an extractor, and cached.

Each channel is resized as floats with Pillow's bicubic filter and not rounded to bytes again (Parmar, Zhang and Zhu,
"On Aliased Resizing and Surprising Subtleties in GAN Evaluation", 2022).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError, OutputError
from ..runtime import console
from ..runtime.engine import LOCAL, Engine
from ..runtime.memory import let_go
from ..runtime.workers import in_order, pool_of
from ..storage import files, images
from ..storage.cache import cache_folder
from ..storage.folder import Source
from .extractors import Extractor, default_workers
from .image_set import ImageSet, describe_sizes, read, shortest_edge

FORMAT = 2  # of the cache
IN_MEMORY = 2**26  # bytes of features; larger sets are kept in a temporary file
ROWS = 4096  # of features at a time
Batch = tuple[dict[str, Exception], "np.ndarray | None"]


def extract(
    folder: str | Path | ImageSet,
    extractor: Extractor,
    *,
    resize: int | None = None,
    limit: int | None = None,
    cache: bool = False,
    workers: int | None = None,
    engine: Engine = LOCAL,
) -> np.ndarray:
    """Return the features [n, dim] of a folder's images, in the order of their names, as float32.

    `resize` crops the middle square and resizes it to so many px first. With `cache` the features are kept on disk
    under a digest of all they depend on. Images that cannot be read are skipped with a warning (and noted in an
    ImageSet). The net runs in `workers` threads, or by those of a cluster. Features of more than IN_MEMORY bytes are
    memory-mapped from a temporary file.
    Raises InputError if no image can be read, and for images of several sizes without `resize`.
    """
    found = folder if isinstance(folder, ImageSet) else ImageSet(folder, limit)
    if len(found.sizes) > 1 and not resize:
        raise InputError(
            describe_sizes([found]), f"--resize {shortest_edge([found])} crops squares and resizes them to one size"
        )
    path = cache_folder() / "features" / f"{_key(found, extractor, resize)}.npy"
    kept = _cached(path, len(found), extractor.dim) if cache else None
    if kept is not None:
        console.note(f"features of {found.path}: read from the cache")
        return kept
    features = _run(found, extractor, resize, (workers or 0) if engine.remote else workers or default_workers(), engine)
    if cache and not found.failed:
        _keep(path, features)
    return features


@dataclass(frozen=True)
class Work:
    """Takes a batch of images from its files to its features."""

    extractor: Extractor
    reading: str
    resize: int | None

    def __call__(self, group: Sequence[Source]) -> Batch:
        """Return the errors by name of those that cannot be read, and the features of the others, if any."""
        read = [_pixels(source, self.reading, self.extractor.edge, self.resize) for source in group]
        failed = {s.name: value for s, value in zip(group, read, strict=True) if isinstance(value, Exception)}
        good = [value for value in read if isinstance(value, np.ndarray)]
        return failed, self.extractor.run(np.stack(good)) if good else None


def _run(found: ImageSet, extractor: Extractor, resize: int | None, workers: int, engine: Engine) -> np.ndarray:
    todo = found.good
    groups = [todo[start : start + extractor.batch] for start in range(0, len(todo), extractor.batch)]
    rows = _allocate(len(todo), extractor.dim)
    count = 0
    with (
        console.progress(f"features of {found.path.name}", len(todo)) as bar,
        extractor.shared(max(workers, 1)),
        pool_of(workers, False, engine.seeing(*(source.path for source in todo[:1])), len(groups)) as pool,
    ):
        work = Work(extractor, found.reading, resize)
        for group, (failed, features) in in_order(pool, work, groups, 2 * workers):
            for source in group:
                if source.name in failed:
                    found.fail(source, failed[source.name])
            if features is not None:
                rows[count : count + len(features)] = features
                count += len(features)
                let_go(rows)
            bar.advance(len(group))
    if not count:
        raise InputError(f"no image in {found.path} can be read", "the warnings say why")
    return rows[:count]


def _allocate(count: int, dim: int) -> np.ndarray:
    """Return room for float32 features [count, dim], in a temporary file if there are many."""
    if count * dim * 4 <= IN_MEMORY:
        return np.empty((count, dim), np.float32)
    with tempfile.TemporaryFile() as file:  # the mapping outlives the name
        return np.memmap(file, np.float32, "w+", shape=(count, dim))


def _pixels(source: Source, reading: str, edge: int, resize: int | None) -> np.ndarray | Exception:
    try:
        image = read(source.path, reading)
        return pixels(images.resize(images.square(image), resize) if resize else image, edge)
    except (InputError, OSError) as error:
        return error


def pixels(image: Image.Image, edge: int) -> np.ndarray:
    """Return an RGB image as floats [3, edge, edge] in 0..255, resized as clean-fid resizes."""
    channels = [c.convert("F").resize((edge, edge), Image.Resampling.BICUBIC) for c in image.split()]
    return np.stack([np.asarray(channel) for channel in channels]).clip(0, 255)


def _key(found: ImageSet, extractor: Extractor, resize: int | None) -> str:
    """Return a digest of all that a set's features depend on."""
    values = [FORMAT, found.digest, found.reading, extractor.digest, extractor.preprocessing, resize]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def _cached(path: Path, count: int, dim: int) -> np.ndarray | None:
    """Return cached features, memory-mapped if they are large; None if there are none, or none that are whole."""
    if not path.exists():
        return None
    try:
        found = np.load(path, mmap_mode="r" if path.stat().st_size > IN_MEMORY else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        console.note(f"{path} is damaged ({error}); computing the features again")
        return None
    return found if found.shape == (count, dim) and _is_finite(found) else None


def _is_finite(features: np.ndarray) -> bool:
    for start in range(0, len(features), ROWS):
        if not np.isfinite(features[start : start + ROWS]).all():
            return False
        let_go(features)
    return True


def _keep(path: Path, features: np.ndarray) -> None:
    try:
        with files.replacing(path) as part, part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(features))
            for start in range(0, len(features), ROWS):  # all at once, a mapped array would be in memory whole
                features[start : start + ROWS].tofile(file)
                let_go(features)
    except OutputError as error:
        console.warn(f"the features are not cached: {error.message}")
