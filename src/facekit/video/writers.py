"""What a moving picture is written to, piece by piece: a film, or an animation."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageSequence

from ..errors import CardError
from ..runtime import console
from ..storage import files, image_files
from ..storage.folder import output_names
from .colours import LIMITED, Colours, to_native
from .encoder import CONTAINERS, QUALITY, Encoding, choose, write_piece
from .film import FilmFile
from .frames import Film, Frame, Selection, tick_of
from .joining import Sound, join, sound_problem, tags_of
from .pyav import load
from .stills import ANIMATIONS, FrameFolder

SUFFIXES = (*CONTAINERS, *ANIMATIONS)


class Writer(Protocol):
    """Writes a moving picture piece by piece; pieces are files of any name, which `join` makes one."""

    def prepare(self, frame: Frame, pixels: np.ndarray) -> Any:
        """Return a frame with its new pixels (uint8 HxWx3 RGB) as `piece` takes it; may be called from any thread."""

    def piece(self, path: Path, frames: Iterable[tuple[Fraction, Any]]) -> None:
        """Write a piece of frames, each with its time in s from the first one of the piece."""

    def join(self, path: Path, pieces: Sequence[Path], starts: Sequence[Fraction], times: Sequence[Fraction]) -> None:
        """Write the whole to the file or empty folder `path`.

        The `starts` of pieces are in s from the first frame; `times` are those of all frames and of the end.
        """


def open_writer(film: Film, suffix: str, selection: Selection, quality: int | None, tags: bool, gps: bool) -> Writer:
    """Return what writes files of type `suffix` of the frames of `film`, with `quality` from 0 to 100.

    `tags` keeps title, date and camera of a film, `gps` its place. Raises CardError for a type that cannot be written,
    MissingError without PyAV where it is needed.
    """
    if suffix in ANIMATIONS:
        return AnimationWriter(suffix, quality)
    if suffix not in CONTAINERS:
        raise CardError(f"films of type {suffix!r} cannot be written", f"end OUT in one of {', '.join(SUFFIXES)}")
    return FilmWriter(film, suffix, selection, quality, tags, gps)


class FilmWriter:
    """Writes a film: colours, pixel shape, turn and sound are those of its source; see `Writer`."""

    def __init__(self, film: Film, suffix: str, selection: Selection, quality: int | None, tags: bool, gps: bool):
        load()
        self.suffix, self.tick = suffix, tick_of(film, selection)
        self.source = film if isinstance(film, FilmFile) else None
        if self.source:
            self.quarters, self.colours = self.source.quarters, self.source.colours
            pix_fmt, size, aspect = self.source.pix_fmt, self.source.native_size, self.source.aspect
        else:
            self.quarters, self.colours = 0, Colours(1, LIMITED, 1, 1, 720)
            pix_fmt, size, aspect = "rgb24", film.size, Fraction(1)
        codec, self.pix_fmt, self.size = choose(suffix, pix_fmt, size)
        if self.size != size:
            console.note(f"translate: {size[0]} x {size[1]} px is odd, which {suffix[1:]} cannot hold: the edge is cut")
        if self.colours.hdr:
            console.note("translate: the film is HDR and stays so; faces are translated from its colours as they are")
        self.tags = tags_of(self.source, gps) if self.source and tags else {}
        if self.source and (name := sound_problem(self.source, suffix)):
            console.note(f"translate: {suffix[1:]} cannot hold {name} sound: it is encoded anew (.mkv holds it)")
        rate = (selection.fps or film.rate).limit_denominator(1001)
        quality = QUALITY if quality is None else quality
        self.encoding = Encoding(codec, self.pix_fmt, self.size, self.tick, rate, self.colours, aspect, quality)

    def prepare(self, frame: Frame, pixels: np.ndarray) -> Any:
        """Return a frame of PyAV; what the translation left as it was keeps its values."""
        before, after = (np.rot90(each, -self.quarters) for each in (frame.pixels, pixels))
        if pixels is frame.pixels:
            after = before
        native = frame.native
        if native is None:
            native = load().VideoFrame.from_ndarray(np.ascontiguousarray(after), format="rgb24")
            before = after
        return to_native(native, before, after, self.colours, self.pix_fmt, self.size)

    def piece(self, path: Path, frames: Iterable[tuple[Fraction, Any]]) -> None:
        """Encode a piece."""
        write_piece(path, ((round(time / self.tick), frame) for time, frame in frames), self.encoding)

    def join(self, path: Path, pieces: Sequence[Path], starts: Sequence[Fraction], times: Sequence[Fraction]) -> None:
        """Write the film with its sound."""
        *whole, end = times
        begun = [(piece, round(start / self.tick)) for piece, start in zip(pieces, starts, strict=True)]
        sound = Sound(self.source, whole[0], end) if self.source else None
        join(path, self.suffix, begun, self.tick, self.quarters, end - whole[-1], sound, self.tags)


class StillsWriter:
    """Keeps pieces as TIFF files of many pages; see `Writer`."""

    def prepare(self, frame: Frame, pixels: np.ndarray) -> Image.Image:
        """Return the frame as an image."""
        return Image.fromarray(pixels)

    def piece(self, path: Path, frames: Iterable[tuple[Fraction, Image.Image]]) -> None:
        """Write a piece."""
        first, *rest = (image for _, image in frames)
        first.save(path, "TIFF", save_all=True, append_images=rest, compression="tiff_lzw")


class AnimationWriter(StillsWriter):
    """Writes a GIF, WebP or APNG that repeats for ever; see `Writer`."""

    def __init__(self, suffix: str, quality: int | None):
        self.suffix, self.quality = suffix, 90 if quality is None else quality

    def join(self, path: Path, pieces: Sequence[Path], starts: Sequence[Fraction], times: Sequence[Fraction]) -> None:
        """Write the animation; its times are rounded to 1/1000 s, in a GIF to 1/100 s, without drift."""
        step = 10 if self.suffix == ".gif" else 1
        at = [round((time - times[0]) * 1000 / step) * step for time in times]
        durations = [max(step, after - before) for before, after in itertools.pairwise(at)]
        pages = Pages(pieces)
        first = next(iter(pages))
        kinds: dict[str, dict[str, Any]] = {
            ".gif": {"format": "GIF", "disposal": 1},
            ".webp": {"format": "WEBP", "quality": self.quality, "method": 4},
            ".apng": {"format": "PNG"},
        }
        first.save(path, save_all=True, append_images=pages.after(1), duration=durations, loop=0, **kinds[self.suffix])


class FolderWriter(StillsWriter):
    """Writes a folder of images, named as the frames of `film` where it is one of images; see `Writer`."""

    def __init__(self, film: Film, suffix: str, quality: int | None):
        self.suffix, self.quality = suffix, quality
        self.names: list[str] | None = None
        if isinstance(film, FrameFolder):
            names = output_names(film.sources, suffix)
            self.names = [names[source.name] for source in film.sources]

    def join(self, path: Path, pieces: Sequence[Path], starts: Sequence[Fraction], times: Sequence[Fraction]) -> None:
        """Write the images into the folder `path`."""
        count = len(times) - 1
        for number, image in enumerate(Pages(pieces)):
            name = f"{number + 1:06d}{self.suffix}"
            if self.names is not None and count == len(self.names):
                name = self.names[number]
            files.write_bytes(path / name, image_files.encode(image, self.suffix, self.quality))


class Pages:
    """The pages of TIFF files as images, read anew each time."""

    def __init__(self, pieces: Sequence[Path], first: int = 0):
        self.pieces, self.first = pieces, first

    def __iter__(self) -> Iterator[Image.Image]:
        return itertools.islice(self._pages(), self.first, None)

    def _pages(self) -> Iterator[Image.Image]:
        for piece in self.pieces:
            with Image.open(piece) as image:
                for page in ImageSequence.Iterator(image):
                    yield page.convert("RGB")

    def after(self, first: int) -> Pages:
        """Return the pages from the one of this number on."""
        return Pages(self.pieces, first)
