"""The colours of a film: its frames as RGB, and changed RGB back into frames that are otherwise as they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .pyav import load

BT709, BT601, SMPTE240, BT2020 = 1, 5, 7, 9  # swscale's numbers of YUV matrices
MATRICES = {1: BT709, 5: BT601, 6: BT601, 7: SMPTE240, 9: BT2020, 10: BT2020}  # by H.273's number of the matrix
FULL, LIMITED = 2, 1  # FFmpeg's numbers of ranges
HD = 720  # lines from which a film without tags counts as BT.709


@dataclass(frozen=True)
class Colours:
    """What a film says of its colours, by the numbers of ITU-T H.273; 2 (range: 0) is unspecified."""

    matrix: int
    range: int
    transfer: int
    primaries: int
    lines: int

    @classmethod
    def of(cls, frame: Any) -> Colours:
        """Return the colours that a frame of PyAV is tagged with."""
        full = FULL if frame.format.name.startswith("yuvj") else frame.color_range
        return cls(frame.colorspace, int(full), int(frame.color_trc), int(frame.color_primaries), frame.height)

    @property
    def swscale(self) -> int:
        """The YUV matrix by swscale's number; players' usual guess where it is unspecified."""
        return MATRICES.get(self.matrix, BT709 if self.lines >= HD else BT601)

    @property
    def hdr(self) -> bool:
        """Whether the film is HDR: PQ or HLG."""
        return self.transfer in (16, 18)

    def tag(self, target: Any) -> None:
        """Write the tags to a frame or an encoder of PyAV."""
        target.colorspace, target.color_range = self.matrix, self.range
        target.color_trc, target.color_primaries = self.transfer, self.primaries


def to_rgb(frame: Any, colours: Colours) -> np.ndarray:
    """Return a frame of PyAV as RGB (uint8 HxWx3); its transfer function stays as it is."""
    return frame.to_ndarray(
        format="rgb24",
        src_colorspace=colours.swscale,
        src_color_range=colours.range or LIMITED,
        dst_color_range=FULL,
        threads=1,
    )


def to_native(
    frame: Any, before: np.ndarray, after: np.ndarray, colours: Colours, pix_fmt: str, size: tuple[int, int]
) -> Any:
    """Return a frame of PyAV in the planar YUV format `pix_fmt`, with the pixels that differ from `before` in `after`.

    `before` is the frame as `to_rgb` gives it, `after` what has become of it. Where they are equal, the frame's own
    values stay, to the bit where its format is `pix_fmt`. `size` (width, height) may be smaller: the rest is cut.
    """
    own = as_format(frame, colours, pix_fmt)
    same = before is after
    if same and (own.width, own.height) == size:
        return own
    width, height = size
    made = load().VideoFrame.from_ndarray(np.ascontiguousarray(after[:height, :width]), format="rgb24")
    made = made.reformat(
        format=pix_fmt,
        src_color_range=FULL,
        dst_colorspace=colours.swscale,
        dst_color_range=colours.range or LIMITED,
        threads=1,
    )
    changed: np.ndarray = np.zeros((height, width), bool) if same else (before != after).any(2)[:height, :width]
    for new, old in zip(planes(made), planes(own), strict=True):
        keep = ~_any_of(changed, new.shape)
        new[keep] = old[: new.shape[0], : new.shape[1]][keep]
    return made


def as_format(frame: Any, colours: Colours, pix_fmt: str) -> Any:
    """Return a frame of PyAV in another pixel format of the same colours."""
    if frame.format.name in (pix_fmt, pix_fmt.replace("yuv", "yuvj", 1)):
        return frame
    rgb = frame.format.is_rgb or frame.format.name == "pal8"
    found = FULL if rgb else colours.range or LIMITED
    return frame.reformat(
        format=pix_fmt,
        src_colorspace=None if rgb else colours.swscale,
        dst_colorspace=colours.swscale,
        src_color_range=found,
        dst_color_range=colours.range or LIMITED,
        threads=1,
    )


def planes(frame: Any) -> list[np.ndarray]:
    """Return the planes of a planar frame of PyAV as arrays that share its memory."""
    deep = max(component.bits for component in frame.format.components) > 8
    out = []
    for plane in frame.planes:
        values = np.frombuffer(plane, np.uint16 if deep else np.uint8)
        out.append(values.reshape(-1, plane.line_size // values.itemsize)[: plane.height, : plane.width])
    return out


def _any_of(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask of the smaller `shape`: true where any pixel below it is."""
    if mask.shape == shape:
        return mask
    down, across = round(mask.shape[0] / shape[0]), round(mask.shape[1] / shape[1])
    padded = np.pad(mask, ((0, shape[0] * down - mask.shape[0]), (0, shape[1] * across - mask.shape[1])))
    return padded.reshape(shape[0], down, shape[1], across).max((1, 3))
