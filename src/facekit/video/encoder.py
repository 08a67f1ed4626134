"""How films are encoded: which encoder fits a file ending and a pixel format, and one piece of a film."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import CardError, MissingError
from .colours import Colours
from .pyav import load

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
QUALITY = 80  # where --quality does not say: visually lossless
EVEN = ("libx264", "libx265", "libsvtav1")  # encoders that take odd sizes with whole chroma only


@dataclass(frozen=True)
class Encoding:
    """An encoder by FFmpeg's name, its pixel format, the size in px and what else it needs to know."""

    codec: str
    pix_fmt: str
    size: tuple[int, int]
    tick: Fraction
    rate: Fraction
    colours: Colours
    aspect: Fraction
    quality: int


def choose(suffix: str, pix_fmt: str, size: tuple[int, int]) -> tuple[str, str, tuple[int, int]]:
    """Return the encoder, pixel format and size that come nearest to a source's pixel format and size.

    More than 8 bits a channel become 10, other chroma layouts 4:2:0. An odd column or row is cut where the encoder
    cannot take it. Raises CardError for an unknown suffix, MissingError where PyAV has no encoder for it.
    """
    if suffix not in CONTAINERS:
        raise CardError(f"films of type {suffix!r} cannot be written", f"end OUT in one of {', '.join(CONTAINERS)}")
    chroma, deep = _layout(pix_fmt)
    webm = suffix == ".webm"
    names = ("libsvtav1", "libvpx-vp9") if deep and webm else ("libvpx-vp9", "libsvtav1") if webm else ()
    names = names or (("libx265", "libx264") if deep else ("libx264", "libx265"))
    wanted = [f"yuv{layout}p{bits}" for bits in (("10le", "") if deep else ("",)) for layout in (chroma, "420")]
    formats = {name: found for name in names if (found := _formats(name))}
    for each in wanted:
        for name, known in formats.items():
            if each in known:
                width, height = size
                if name in EVEN:
                    width -= width % 2 if "444" not in each else 0
                    height -= height % 2 if "420" in each else 0
                return name, each, (width, height)
    raise MissingError(f"this PyAV cannot encode {suffix[1:]} ({' or '.join(names)})", "pip install --upgrade av")


def _layout(pix_fmt: str) -> tuple[str, bool]:
    """Return a pixel format's chroma layout, and whether it has more than 8 bits a channel."""
    found = load().VideoFormat(pix_fmt)
    deep = max(component.bits for component in found.components) > 8
    if found.is_rgb or len(found.components) < 3:
        return "420", deep
    scale = 16 // found.chroma_width(16), 16 // found.chroma_height(16)
    return {(1, 1): "444", (2, 1): "422"}.get(scale, "420"), deep


def _formats(codec: str) -> list[str]:
    try:
        return [found.name for found in load().codec.Codec(codec, "w").video_formats or []]
    except ValueError:  # PyAV's UnknownCodecError
        return []


def options(codec: str, quality: int) -> dict[str, str]:
    """Return an encoder's options for a quality from 0 to 100; frames come out in the order in which they are shown."""
    crf = round(50 - 0.4 * quality)
    if codec == "libx264":
        return {"crf": str(crf), "preset": "medium"}
    if codec == "libx265":
        return {"crf": str(crf + 2), "preset": "medium", "x265-params": "log-level=error:bframes=0"}
    if codec == "libvpx-vp9":
        speed = {"deadline": "good", "cpu-used": "4", "row-mt": "1", "lag-in-frames": "0", "auto-alt-ref": "0"}
        return {"crf": str(crf + 8), "b": "0", **speed}
    return {"crf": str(crf + 10), "preset": "8", "svtav1-params": "pred-struct=1"}


def write_piece(path: Path, frames: Iterable[tuple[int, Any]], encoding: Encoding) -> None:
    """Encode frames of PyAV, each with its time in ticks from the first, to a film without sound at `path`."""
    av = load()
    os.environ.setdefault("SVT_LOG", "1")  # errors only; this encoder has no other way to say so
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            encoding.codec, rate=encoding.rate, options=options(encoding.codec, encoding.quality)
        )
        stream.width, stream.height = encoding.size
        stream.pix_fmt = encoding.pix_fmt
        stream.codec_context.time_base = stream.time_base = encoding.tick
        stream.codec_context.max_b_frames = 0
        stream.codec_context.sample_aspect_ratio = encoding.aspect
        encoding.colours.tag(stream.codec_context)
        for time, frame in frames:
            frame.pts, frame.dts, frame.time_base = time, None, encoding.tick
            frame.pict_type = 0  # the encoder chooses
            encoding.colours.tag(frame)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
