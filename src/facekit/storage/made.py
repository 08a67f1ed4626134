"""Which images an output folder has of each source, in columns: as objects those of a million take half a gigabyte."""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence

Image = tuple[str, int | None, int | None]  # file, and bytes and mtime of its source
NONE = -1  # bytes of a source whose images are not the expected ones


class Made:
    """The images of each source. `sources` are those of the run; there may be images of others.

    `names` gives sources an output name of their own; an image of that name is expected in each of the folders `tops`
    (such as "a/"). Where a source has exactly these images, only its stamp is kept: 16 bytes.
    """

    def __init__(self, sources: Iterable[str], names: Mapping[str, str], tops: Sequence[str] = ("",)):
        self.names, self.tops = names, sorted(tops)
        self._sources = [name for name, _ in itertools.groupby(sorted(sources))]
        self._place = 0  # of the source that was looked up last
        self.clear()

    def clear(self) -> None:
        """Forget all images."""
        self._bytes, self._mtime = (array("q", [NONE]) * len(self._sources) for _ in range(2))
        self._odd: dict[str, tuple[Image, ...]] = {}  # images that are not the expected ones
        self._files: set[str] | None = None  # of all images, once `has` needs them

    def of(self, source: str) -> tuple[Image, ...]:
        """Return the images of a source; none where it has none."""
        place = self._find(source)
        if place is None or self._bytes[place] == NONE:
            return self._odd.get(source, ())
        stamp = self._bytes[place], self._mtime[place]
        return tuple((file, *stamp) for file in self.expected(source))

    def put(self, source: str, images: tuple[Image, ...]) -> None:
        """Set the images of a source."""
        if self._files is not None:
            self._files.difference_update(file for file, *_ in self.of(source))
            self._files.update(file for file, *_ in images)
        self._odd.pop(source, None)
        place = self._find(source)
        if place is not None:
            self._bytes[place] = NONE
            source = self._sources[place]  # the one text of its name
        if images and (place is None or not self._in_columns(place, images)):
            self._odd[source] = images

    def _in_columns(self, place: int, images: tuple[Image, ...]) -> bool:
        """Note the stamp of a source if its images are the expected ones; returns whether they are."""
        stamps = [image[1:] for image in images]
        alike = stamps == stamps[:1] * len(self.tops)
        if alike and sorted([image[0] for image in images]) == self.expected(self._sources[place]):
            try:
                self._bytes[place], self._mtime[place] = stamps[0]  # type: ignore[assignment]
            except (TypeError, OverflowError):  # no numbers, or none of a file
                self._bytes[place] = NONE
        return self._bytes[place] != NONE

    def expected(self, source: str) -> list[str]:
        """Return the files that a source is expected to have, sorted; none where their names are not known."""
        name = self.names.get(source)
        return [] if name is None else [top + name for top in self.tops]

    def all_expected(self) -> Iterator[tuple[str, str]]:
        """Yield the files that all sources are expected to have, each with its source."""
        return ((source, top + name) for top in self.tops for source, name in self.names.items())

    def items(self) -> Iterator[tuple[str, tuple[Image, ...]]]:
        """Yield each source that has images, with these."""
        for place, source in enumerate(self._sources):
            if self._bytes[place] != NONE:
                yield source, self.of(source)
        yield from self._odd.items()

    def is_source(self, name: str) -> bool:
        """Whether a source of this name is one of the run."""
        return self._find(name) is not None

    def is_whole(self, source: str) -> bool:
        """Whether the images of a source are exactly the expected ones."""
        place = self._find(source)
        return place is not None and self._bytes[place] != NONE

    def has(self, file: str, source: str = "") -> bool:
        """Whether a file is an image of any source; where it is none of `source`, all names are gathered once."""
        if any(image[0] == file for image in self.of(source)):
            return True
        if self._files is None:
            self._files = {image[0] for _, images in self.items() for image in images}
        return file in self._files

    @property
    def count(self) -> int:
        """The number of images; a file that two sources have counts once."""
        odd = {image[0] for images in self._odd.values() for image in images}
        plain = (source for place, source in enumerate(self._sources) if self._bytes[place] != NONE)
        both = sum(file in odd for source in plain for file in self.expected(source)) if odd else 0
        return len(odd) + len(self.tops) * (len(self._bytes) - self._bytes.count(NONE)) - both

    def _find(self, source: str) -> int | None:
        """Return the place of a source of the run, which most often is the last one or the next."""
        near = self._sources[self._place : self._place + 2]
        place = self._place + near.index(source) if source in near else bisect.bisect_left(self._sources, source)
        if place == len(self._sources) or self._sources[place] != source:
            return None
        self._place = place
        return place
