"""What a moving picture is read as: frames with their times, of a part of it, at a chosen rate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import CardError


@dataclass
class Frame:
    """One frame: `number` in the selection, `time` in s from the start of the file, and for how many s it `lasts`.

    Its `pixels` (uint8 HxWx3, RGB) stand upright. `native` is the frame as a film's decoder gives it, not turned.
    """

    number: int
    time: Fraction
    lasts: Fraction
    pixels: np.ndarray
    native: Any = None


@dataclass(frozen=True)
class Selection:
    """Which frames: those from `start` up to but not including `end` (s), at `fps` frames/s instead of the file's."""

    start: Fraction = Fraction(0)
    end: Fraction | None = None
    fps: Fraction | None = None


class Picture(Protocol):
    """A frame that is not decoded to RGB yet."""

    def open(self, number: int, time: Fraction, lasts: Fraction) -> Frame:
        """Return the frame."""


class Film(Protocol):
    """A moving picture on disk.

    `size` is width and height in px, upright; `rate` the mean frames/s; `tick` the unit in s that its times are
    multiples of; `length` its duration in s and `count` its number of frames, as far as its header says.
    """

    @property
    def path(self) -> Path: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def rate(self) -> Fraction: ...
    @property
    def tick(self) -> Fraction: ...
    @property
    def length(self) -> Fraction | None: ...
    @property
    def count(self) -> int | None: ...

    def pictures(self, since: Fraction) -> Iterator[tuple[Fraction, Fraction, Picture]]:
        """Yield time (s), duration (s) and picture, in order, from one that is not later than `since`."""


def select(film: Film, selection: Selection, number: int = 0, time: Fraction | None = None) -> Iterator[Frame]:
    """Yield the frames of a selection, from the one of this `number`, which is at `time`, on."""
    since = selection.start if time is None else time
    end = selection.end
    if not selection.fps:
        for at, lasts, picture in film.pictures(since):
            if end is not None and at >= end:
                return
            if at >= since:
                yield picture.open(number, at, lasts)
                number += 1
        return
    shown: Picture | None = None
    each = 1 / selection.fps
    stop = since
    wanted = selection.start + number * each
    for at, lasts, picture in film.pictures(since):
        while shown and wanted < at and (end is None or wanted < end):
            yield shown.open(number, wanted, each)
            number += 1
            wanted = selection.start + number * each
        if end is not None and wanted >= end:
            return
        shown, stop = picture, at + lasts
    while shown and wanted < stop and (end is None or wanted < end):
        yield shown.open(number, wanted, each)
        number += 1
        wanted = selection.start + number * each


def estimate(film: Film, selection: Selection) -> int:
    """Return about how many frames a selection has; 0 where the header does not say."""
    if film.length is None:
        return film.count or 0
    end = film.length if selection.end is None else min(film.length, selection.end)
    whole = not selection.fps and selection.start == 0 and selection.end is None
    if whole and film.count:
        return film.count
    return max(0, round((end - selection.start) * (selection.fps or film.rate)))


def tick_of(film: Film, selection: Selection) -> Fraction:
    """Return the unit in s that the times of a selection are multiples of, from its first frame on."""
    return 1 / selection.fps if selection.fps else film.tick


def parse_time(text: str, flag: str) -> Fraction:
    """Return seconds: `90`, `1:30`, `1:02:03.5`. Raises CardError for anything else."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text.strip()):
        raise CardError(f"{flag} {text!r} is not a time", "write seconds or h:mm:ss, such as 90, 1:30 or 1:02:03.5")
    seconds = Fraction(0)
    for part in text.strip().split(":"):
        seconds = seconds * 60 + Fraction(part)
    return seconds
