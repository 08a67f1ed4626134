"""The images of one folder as a set to score: which files, which sizes, which formats, and a digest of them all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import FacekitError, InputError
from ..runtime import console
from ..storage import content, images, remembered
from ..storage.folder import Folder, Source

READINGS = ("facekit", "clean-fid")
KIND = np.dtype([("size", np.int32, 2), ("format", "S16"), ("digest", np.uint8, 32)])  # of what is remembered of a file


class ImageSet:
    """The images of a folder, sorted by name: their `sources`, `sizes` (width, height), file `formats`, and a `digest`.

    `failed` maps the name of every image that cannot be read to the reason. Of large folders it is remembered what the
    files hold; one that has not changed is not read again. `limit` takes only the first images;
    `reading` is one of READINGS, see `read`. Raises InputError for a folder that is missing or has no images.
    """

    def __init__(self, folder: str | Path, limit: int | None = None, reading: str = "facekit"):
        self.path = Path(folder)
        self.reading = reading
        self.sources = Folder(folder).sources()[:limit]
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.formats: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        rows, errors = remembered.read(f"contents-{reading}", self.path, self.sources, KIND, self._look)
        found = hashlib.sha256()
        for index, (source, row) in enumerate(zip(self.sources, rows, strict=True)):
            if index in errors:
                self.fail(source, errors[index])
                continue
            width, height = row["size"].tolist()
            self.sizes[width, height] += 1
            self.formats[row["format"].decode()] += 1
            found.update(f"{source.name}\0{row['digest'].tobytes().hex()}\n".encode("utf-8", "backslashreplace"))
        self.digest = found.hexdigest()[:16]

    def _look(self, source: Source) -> tuple[tuple[int, int], bytes, np.ndarray]:
        try:
            data = source.read_bytes()
        except OSError as error:
            raise InputError(str(error), "check the file") from error
        digest = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        return size(source.path, self.reading), _format(data, source.name).encode("ascii", "replace"), digest

    @property
    def good(self) -> Sequence[Source]:
        """The sources that have not failed."""
        if not self.failed:
            return self.sources
        return [source for source in self.sources if source.name not in self.failed]

    def fail(self, source: Source, error: Exception) -> None:
        """Note that an image cannot be read, and warn."""
        self.failed[source.name] = error.message if isinstance(error, FacekitError) else str(error)
        console.warn(f"skipped: {self.failed[source.name]}")

    def __len__(self) -> int:
        return len(self.sources) - len(self.failed)


def read(path: Path, reading: str = "facekit") -> Image.Image:
    """Decode an image to RGB.

    "facekit" reads as every command does (`storage.images.read`: EXIF orientation, colour profile, transparency over
    white, 16 bits scaled to 8). "clean-fid" reads as clean-fid 0.1.35 does, with Pillow's plain `convert("RGB")`: none
    of these is applied. Raises InputError for a file that cannot be decoded.
    """
    if reading == "facekit":
        return images.read(path)
    images.size_of(path)  # empty, enormous or foreign files fail as everywhere
    try:
        with content.open_file(path) as file, Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise InputError(f"cannot decode {path}: {error}", "download it again") from error


def size(path: Path, reading: str = "facekit") -> tuple[int, int]:
    """Return width and height in px as `read` gives them, from the header; raises InputError as `read` does."""
    shown = images.size_of(path)
    if reading == "facekit":
        return shown
    with content.open_file(path) as file, Image.open(file) as image:
        return image.size


def describe_sizes(sets: Iterable[ImageSet]) -> str:
    """Return a sentence with the sizes in image sets, the most frequent first."""
    parts = []
    for one in sets:
        sizes = [f"{w} x {h} ({count})" for (w, h), count in one.sizes.most_common(3)]
        parts.append(f"{one.path} has {', '.join(sizes)}{' and more' if len(one.sizes) > 3 else ''}")
    return f"images of several sizes: {'; '.join(parts)}"


def shortest_edge(sets: Iterable[ImageSet]) -> int:
    """Return the shortest edge in image sets, px."""
    return min(min(size) for one in sets for size in one.sizes)


def _format(data: bytes, name: str) -> str:
    """Return a file's format by its first bytes."""
    heads = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WebP"}
    known = (kind for head, kind in heads.items() if data.startswith(head))
    return next(known, Path(name).suffix.lower().lstrip(".").upper())
