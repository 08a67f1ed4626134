"""What `facekit translate` is asked for, without what it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import CardError
from ..runtime.engine import LOCAL, Engine
from ..storage.image_files import Kept
from ..video.frames import Selection, parse_time
from .face_input import FaceOptions


@dataclass(frozen=True)
class FilmOptions:
    """What of a moving picture is translated, and how it is written; see the flags of `facekit translate`."""

    video: bool = False
    start: str | None = None
    end: str | None = None
    fps: float | None = None
    smooth: bool = True

    def selection(self) -> Selection:
        """Return which frames are meant; raises CardError for times that are none."""
        start = parse_time(self.start, "--start") if self.start else Fraction(0)
        end = parse_time(self.end, "--end") if self.end else None
        if end is not None and end <= start:
            raise CardError(f"--end {self.end} is not after --start {self.start or 0}", "give a later end")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise CardError(f"--fps {self.fps} is no frame rate", "give 0.1 to 1000 frames/s")
        return Selection(start, end, Fraction(str(self.fps)) if self.fps else None)


@dataclass(frozen=True)
class TranslateOptions:
    """What to translate to and with, and how; see the flags of `facekit translate`."""

    to: str | None = None
    source_label: str | None = None
    labels: Path | None = None
    classifier: str | None = None
    weights: str = "anime"
    recipe: str | None = None
    size: int | None = None
    controls: dict[str, Any] = field(default_factory=dict)
    """What `Recipe.controls` lets people set, by name; None is not given."""
    mask: bool = False
    upscaler: str | None = None
    """Weights of that recipe, or "none"; None: the shipped ones for images, none for films, which would take longer."""
    suffix: str = "png"
    quality: int | None = None
    kept: Kept = field(default_factory=Kept)
    sheet: bool = False
    batch: int | None = None
    device: str = "auto"
    workers: int | None = None
    engine: Engine = LOCAL
    faces: FaceOptions = field(default_factory=FaceOptions)
    film: FilmOptions = field(default_factory=FilmOptions)
    run: dict[str, Any] = field(default_factory=dict)
    """`limit`, `shard`, `force`, `retry_failed`, as `folder_map` takes them."""
