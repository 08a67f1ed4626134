"""Films, read frame by frame with PyAV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..runtime import console
from .colours import Colours, to_rgb
from .frames import Frame
from .pyav import load

FASTEST = 1000  # frames/s; more is a mistake of the header
SHORT = Fraction(1, 2)  # s that a film may end before its header says, without a warning


@dataclass
class DecodedPicture:
    """A frame of a film as its decoder gives it."""

    native: Any
    colours: Colours
    quarters: int

    def open(self, number: int, time: Fraction, lasts: Fraction) -> Frame:
        """Return the frame, turned upright."""
        pixels = np.rot90(to_rgb(self.native, self.colours), self.quarters)
        return Frame(number, time, lasts, np.ascontiguousarray(pixels), self.native)


class FilmFile:
    """A film on disk, see `Film`. `quarters` is how often a frame is turned by 90 degrees, counterclockwise, to stand
    upright, `pix_fmt` FFmpeg's name of its pixel format, and `aspect` the shape of its pixels.

    A file that is cut short ends at its last whole frame, with a warning. Raises InputError for a file that cannot be
    read or has no frames, MissingError without PyAV.
    """

    def __init__(self, path: Path):
        self.path = path
        self._warned = False
        with self.open() as container:
            stream = self.stream(container)
            self.tick = stream.time_base
            rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate and rate <= FASTEST]
            self.rate = rates[0] if rates else Fraction(25)
            self.start = Fraction(container.start_time or 0, load().time_base)
            self.count = stream.frames or None
            length = stream.duration * stream.time_base if stream.duration else None
            if length is None and container.duration:
                length = Fraction(container.duration, load().time_base)
            self.length: Fraction | None = length
            self.aspect = stream.sample_aspect_ratio or Fraction(1)
            first = next(self._decoded(container, stream), None)
            if first is None:
                raise InputError(f"no frame of {path} can be decoded", "fetch it again")
        self.pix_fmt = first.format.name
        self.quarters = round(first.rotation / 90) % 4
        self.colours = Colours.of(first)
        self.native_size: tuple[int, int] = (first.width, first.height)
        width, height = self.native_size
        self.size: tuple[int, int] = (height, width) if self.quarters % 2 else (width, height)

    def open(self) -> Any:
        """Open the file as a container of PyAV."""
        av = load()
        try:
            return av.open(str(self.path), metadata_errors="replace")
        except FileNotFoundError as error:
            raise InputError(f"no such file: {self.path}", "check the path") from error
        except av.FFmpegError as error:
            hint = "a recording that was cut short has no index: repair it (untrunc, or ffmpeg), or record it again"
            raise InputError(f"{self.path} cannot be read as a film: {error.strerror}", hint) from error

    def stream(self, container: Any) -> Any:
        """Return the video stream: the first that is no cover picture."""
        for stream in container.streams.video:
            if "attached_pic" not in str(getattr(stream, "disposition", "")) and stream.codec_context is not None:
                stream.thread_type = "AUTO"
                return stream
        raise InputError(f"{self.path} has no video stream", "give a film")

    def pictures(self, since: Fraction) -> Iterator[tuple[Fraction, Fraction, DecodedPicture]]:
        """Yield the frames in order, from one that is not later than `since`."""
        for seek in (True, False) if since else (False,):
            frames = self._timed(since if seek else None)
            first = next(frames, None)
            if seek and (first is None or first[0] > since):  # the container's index is not right
                continue
            if first is not None:
                yield first
                yield from frames
            return

    def _timed(self, since: Fraction | None) -> Iterator[tuple[Fraction, Fraction, DecodedPicture]]:
        usual = 1 / self.rate
        before: Fraction | None = None
        stop = Fraction(0)
        with self.open() as container:
            stream = self.stream(container)
            if since is not None:
                container.seek(int((since + self.start) / self.tick), stream=stream)
            for native in self._decoded(container, stream):
                if native.pts is not None:
                    at = native.pts * self.tick - self.start
                else:
                    at = Fraction(0) if before is None else before + usual
                if before is not None and at <= before:
                    continue  # a frame that is stored twice
                lasts = (native.duration or 0) * self.tick or usual
                before, stop = at, at + lasts
                if (native.width, native.height) != self.native_size:
                    native = native.reformat(*self.native_size)
                yield at, lasts, DecodedPicture(native, self.colours, self.quarters)
        if self.length and stop < self.length - max(SHORT, 2 * usual):
            self._warn(f"{self.path} is cut short: it ends at {float(stop):.1f} s of {float(self.length):.1f} s")

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield what can be decoded; damage is a warning."""
        av = load()
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                self._warn(f"{self.path} is damaged, what follows is left out: {error.strerror}")
                with contextlib.suppress(av.FFmpegError):
                    yield from stream.decode(None)  # what the decoder still holds
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except EOFError:
                return
            except av.FFmpegError:
                self._warn(f"{self.path} is damaged: frames that cannot be decoded are left out")

    def _warn(self, text: str) -> None:
        if not self._warned:
            console.warn(text)
        self._warned = True
