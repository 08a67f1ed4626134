"""A film of encoded pieces and the sound of another film."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..runtime import console
from .encoder import CONTAINERS
from .film import FilmFile
from .pyav import load

PLACES = ("location", "gps", "xyz", "geo")  # parts of the names of tags that say where a film was taken


@dataclass(frozen=True)
class Sound:
    """The sound tracks of a film from `start` to `end` (s of its file)."""

    film: FilmFile
    start: Fraction
    end: Fraction


def sound_problem(film: FilmFile, suffix: str) -> str | None:
    """Return which sound track a file type cannot hold as it is; None where it holds them all."""
    with film.open() as source, load().open(io.BytesIO(), "w", format=CONTAINERS[suffix]) as target:
        for stream in source.streams.audio:
            try:
                target.add_stream_from_template(stream)
            except ValueError:
                return str(stream.codec_context.name)
    return None


def join(
    path: Path,
    suffix: str,
    pieces: Sequence[tuple[Path, int]],
    tick: Fraction,
    quarters: int,
    lasts: Fraction,
    sound: Sound | None,
    tags: dict[str, str],
) -> None:
    """Write the film `path` of type `suffix`: pieces that `write_piece` wrote, with sound.

    Each piece comes with the time of its first frame, in ticks of `tick` s. `quarters` turns the picture when it is
    shown, counterclockwise; `lasts` is how long the last frame is shown, in s. Sound is copied, and encoded anew where
    the type cannot hold it.
    """
    av = load()
    fast = {"movflags": "+faststart"} if CONTAINERS[suffix] in ("mp4", "mov") else {}
    with av.open(str(path), "w", format=CONTAINERS[suffix], container_options=fast) as target:
        with av.open(str(pieces[0][0])) as first:
            template = first.streams.video[0]
            video = target.add_stream_from_template(template, opaque=True)
            if template.codec_context.name == "hevc" and suffix != ".mkv":
                video.codec_context.codec_tag = "hvc1"  # what Apple's players ask for
            if quarters:
                video.set_display_rotation(90 * quarters)
        target.metadata.update(tags)
        streams = [_picture(pieces, tick, video, lasts)]
        if sound:
            source = sound.film.open()
            streams += [
                _track(sound, index, _sound_stream(target, stream)) for index, stream in enumerate(source.streams.audio)
            ]
            source.close()
        for _, _, packet in heapq.merge(*streams, key=lambda item: item[0]):
            target.mux(packet)


Timed = Iterator[tuple[Fraction, int, Any]]


def _picture(pieces: Sequence[tuple[Path, int]], tick: Fraction, stream: Any, lasts: Fraction) -> Timed:
    """Yield the packets of the pieces; each is shown until the next one."""
    waiting: Any = None
    for piece, start in pieces:
        with load().open(str(piece)) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.pts is None:  # the end
                    continue
                packet.pts = packet.dts = start + round(packet.pts * packet.time_base / tick)
                packet.time_base, packet.stream = tick, stream
                if waiting is not None:
                    waiting.duration = packet.pts - waiting.pts
                    yield waiting.pts * tick, 0, waiting
                waiting = packet
    waiting.duration = max(1, round(lasts / tick))
    yield waiting.pts * tick, 0, waiting


def _sound_stream(target: Any, stream: Any) -> tuple[Any, bool]:
    """Return the stream that a sound track is written to, and whether it is copied."""
    try:
        return target.add_stream_from_template(stream), True
    except ValueError:
        codec = target.default_audio_codec
        name = {"opus": "libopus"}.get(codec, codec)
        rate = 48000 if name == "libopus" else stream.codec_context.sample_rate
        return target.add_stream(name, rate=rate, layout=stream.codec_context.layout), False


def _track(sound: Sound, index: int, to: tuple[Any, bool]) -> Timed:
    """Yield the packets of a sound track.

    MP4 keeps what an encoder needs before the start of a track; other types would shift the picture for it.
    """
    stream, copied = to
    early = sound.start == 0 and stream.container.format.name in ("mp4", "mov")
    av = load()
    start, end = sound.start + sound.film.start, sound.end + sound.film.start
    with sound.film.open() as container:
        source = container.streams.audio[index]
        container.seek(int(start * av.time_base), backward=True)
        resampler = None
        try:
            for packet in container.demux(source):
                if packet.pts is None:
                    continue
                if sound.start > 0 and (packet.pts + (packet.duration or 0)) * packet.time_base <= start:
                    continue
                if packet.pts * packet.time_base >= end:
                    break
                if copied:
                    shift = round(start / packet.time_base)
                    packet.pts -= shift
                    packet.dts = packet.pts if packet.dts is None else packet.dts - shift
                    if packet.pts < 0 and not early:
                        continue
                    packet.stream = stream
                    yield packet.dts * packet.time_base, 1 + index, packet
                    continue
                for frame in packet.decode():
                    at = frame.pts * frame.time_base - start
                    if at < 0:
                        continue
                    resampler = resampler or av.AudioResampler(
                        stream.codec_context.format, stream.codec_context.layout, stream.codec_context.rate
                    )
                    frame.pts = round(at / frame.time_base)
                    for part in resampler.resample(frame):
                        yield from ((at, 1 + index, made) for made in stream.encode(part))
        except (av.FFmpegError, OSError) as error:
            console.warn(f"{sound.film.path}: its sound is damaged and ends early ({error.strerror})")
        if not copied:
            yield from ((end - start, 1 + index, made) for made in stream.encode(None))


def tags_of(film: FilmFile, gps: bool) -> dict[str, str]:
    """Return the tags of a film (title, date, camera), without those of its place unless `gps`."""
    with film.open() as container:
        return {
            key: value
            for key, value in container.metadata.items()
            if gps or not any(part in key.lower() for part in PLACES)
        }
