"""Films that tests make: a face that moves, in any container, codec, size and time."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

av = pytest.importorskip("av")
PORTRAIT = Image.fromarray(astronaut()[20:220, 110:340])  # one face, about 95 px, in the middle
GREY = (96, 112, 128)


def portrait(number: int, size: tuple[int, int] = (160, 140), step: float = 2) -> Image.Image:
    """Return the frame of this number: a face that moves to the right by `step` px a frame."""
    frame = Image.new("RGB", size, GREY)
    frame.paste(PORTRAIT.resize((138, 120)), (round(number * step) - 4, 10))
    return frame


def write(
    path: Path,
    picture: Callable[[int], Image.Image] = portrait,
    times: Sequence[int] = range(8),
    tick: Fraction = Fraction(1, 10),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sound: str | None = None,
    turn: int = 0,
    **tags: int,
) -> Path:
    """Encode a film: `times` of its frames in ticks, a tone if `sound` names a codec, `tags` of its colours."""
    with av.open(str(path), "w") as container:
        quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=1 / tick, options={"crf": "12", **quiet})
        stream.width, stream.height = picture(0).size
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, tick
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        if turn:
            stream.set_display_rotation(turn)
        tone = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.asarray(picture(number)), format="rgb24")
            frame.pts, frame.time_base = time, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone:
            for number in range(int(48000 * tick * times[-1] / 1024) + 1):
                wave = np.sin(np.arange(number * 1024, (number + 1) * 1024) / 20).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 48000, number * 1024
                container.mux(tone.encode(samples))
            container.mux(tone.encode(None))
    return path


def frames(path: Path | str) -> list[np.ndarray]:
    """Return the frames of a film as arrays, not turned."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def times(path: Path | str) -> list[float]:
    """Return the times of a film's frames in s."""
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
