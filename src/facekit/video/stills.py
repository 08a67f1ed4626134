"""Moving pictures that Pillow reads: GIF, animated WebP, APNG and AVIF, and folders of numbered frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from ..errors import InputError
from ..runtime import console
from ..storage import images
from ..storage.folder import Source
from .frames import Frame, Selection

ANIMATIONS = (".gif", ".webp", ".apng")
RATE = 25  # frames/s of a folder, where --fps does not say
UNTIMED = 100  # ms that a frame without a duration is shown, as browsers do


@dataclass
class Still:
    """A frame that is an image."""

    image: Image.Image

    def open(self, number: int, time: Fraction, lasts: Fraction) -> Frame:
        """Return the frame in sRGB."""
        return Frame(number, time, lasts, np.asarray(images.to_rgb(self.image)))


class Animation:
    """An animated image file, see `Film`; a file that is cut short ends at its last whole frame, with a warning."""

    tick = Fraction(1, 1000)

    def __init__(self, path: Path):
        self.path = path
        with open_image(path) as image:
            self.size, self.count = image.size, getattr(image, "n_frames", 1)
        self.length = None
        self.rate = Fraction(1000, UNTIMED)
        for _, lasts, _ in self.pictures(Fraction(0)):
            self.rate = 1 / lasts
            break

    def pictures(self, since: Fraction) -> Iterator[tuple[Fraction, Fraction, Still]]:
        """Yield every frame from the first on: an animation cannot be entered in the middle."""
        at = Fraction(0)
        with open_image(self.path) as image:
            frames = iter(ImageSequence.Iterator(image))
            for number in range(self.count):
                try:
                    frame = next(frames)
                    frame.load()
                except Exception as error:  # Pillow raises many kinds of errors on broken data
                    if number == 0:
                        raise InputError(f"{self.path} cannot be decoded: {error}", "fetch it again") from error
                    console.warn(f"{self.path} is cut short: frame {number + 1} of {self.count} cannot be decoded")
                    return
                lasts = Fraction(round(frame.info.get("duration") or UNTIMED), 1000)
                yield at, lasts, Still(frame.copy())
                at += lasts


def open_image(path: Path) -> Image.Image:
    """Open an image file with Pillow; raises InputError where it cannot be."""
    try:
        return Image.open(path)
    except Exception as error:  # Pillow raises many kinds of errors on broken data
        raise InputError(f"{path} cannot be read: {error}", "fetch it again") from error


def is_animated(path: Path) -> bool:
    """Whether an image file has several frames."""
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:  # no image, or a broken one
        return False


@dataclass
class StillFile:
    """A frame that is an image file."""

    path: Path

    def open(self, number: int, time: Fraction, lasts: Fraction) -> Frame:
        """Read the frame."""
        return Frame(number, time, lasts, np.asarray(images.read(self.path)))


class FrameFolder:
    """Images of one size as a film, see `Film`: in the order of the numbers in their names."""

    def __init__(self, path: Path, sources: Sequence[Source], selection: Selection):
        self.path, self.sources = path, in_order_of_numbers(sources)
        self.rate = selection.fps or Fraction(RATE)
        self.tick = 1 / self.rate
        self.count = len(self.sources)
        self.length = self.count * self.tick
        self.size = images.size_of(self.sources[0].path)

    def pictures(self, since: Fraction) -> Iterator[tuple[Fraction, Fraction, StillFile]]:
        """Yield the images from that at `since` on; raises InputError for one of another size."""
        for number in range(int(since / self.tick), self.count):
            path = self.sources[number].path
            if images.size_of(path) != self.size:
                width, height = self.size
                raise InputError(f"{path} does not have {width} x {height} px as the first frame has", "take it out")
            yield number * self.tick, self.tick, StillFile(path)


def in_order_of_numbers(sources: Sequence[Source]) -> list[Source]:
    """Sort by name, numbers by value: frame2 comes before frame10."""

    def key(source: Source) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", source.name)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return sorted(sources, key=key)
