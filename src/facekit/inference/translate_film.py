"""`facekit translate` of moving pictures: their faces are followed, translated and put back, piece by piece."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CardError, InputError
from ..faces import MARGIN, Detector, find_detector
from ..recipe_api import checkpoint
from ..runtime import console
from ..runtime.device import find_device, share_threads
from ..runtime.workers import in_order, pool_of, stoppable
from ..storage import card, claim, content, files, lock, provenance
from ..storage.folder import Source, open_source
from ..video.film import FilmFile
from ..video.frames import Film, Frame, Selection, select
from ..video.pyav import FILMS
from ..video.stills import Animation, FrameFolder, is_animated
from ..video.writers import SUFFIXES, FolderWriter, Writer, open_writer
from .enlarger import NONE
from .face_input import Crop, FaceInput
from .face_labels import open_known
from .film_faces import Search, TrackedFaces, places_of, search
from .translate_folder import control_flags, paint, side_by_side, translators_of
from .translate_options import FilmOptions, TranslateOptions
from .translator import Translator

PIECE = 120  # frames
SAMPLE = 1_000_000  # bytes at a film's start and end that show whether it is another

Cutter = Callable[[int, np.ndarray], FaceInput]


def is_film(source: Path, out: Path, options: FilmOptions) -> bool:
    """Whether a translation of `source` to `out` is one of a moving picture."""
    if content.is_folder(source):
        return out.suffix.lower() in FILMS or options.video
    if source.suffix.lower() in FILMS:
        return True
    moving = out.suffix.lower() in SUFFIXES or (options.video and not out.suffix)
    return moving and is_animated(source)


def translate_film(source: Path, out: Path, options: TranslateOptions, dry_run: bool = False) -> Path:
    """Translate the film, animation or folder of frames `source` to the file `out`; returns that.

    Raises CardError for options that do not fit the weights or each other, InputError for a film that cannot be read
    or shows no face, MissingError where PyAV is needed and not here.
    """
    to_folder = options.film.video and (not out.suffix or out.is_dir())
    if not to_folder and (not out.suffix or out.is_dir()):
        out = out / f"{source.stem}{source.suffix.lower()}"
    _check(source, out, options)
    selection = options.film.selection()
    film = open_film(source, out, selection)
    if to_folder:
        writer: Writer = FolderWriter(film, f".{options.suffix}", options.quality)
    else:
        writer = open_writer(film, out.suffix.lower(), selection, options.quality, options.kept.exif, options.kept.gps)
    device = find_device(options.device)
    model = checkpoint.load_model(options.weights, device, options.recipe)
    (translator,) = translators_of(model, replace(options, upscaler=options.upscaler or NONE), single=True)
    where = Source(source.parent, source.name)
    known = open_known([where], model, options.source_label, options.labels, options.classifier)
    faces = options.faces
    detector = find_detector(faces.detector, faces.model_root) if faces.align else None
    values = _card(source, out, options, translator, model, detector)
    if dry_run:
        size = f"{film.size[0]} x {film.size[1]} px"
        console.result(
            f"translate: {source} ({size}, {float(film.rate):.4g} frames/s) to {translator.name} with {model.path}",
            options=values["options"],
        )
        return out
    force = bool(options.run.get("force"))
    name = f"{out.name}.{card.NAME}"
    ours = any(path.exists() for path in claim.cards_of(out.parent, name))
    if force and to_folder and out.exists() and not ours:
        raise CardError(f"{out} already exists and was not created by facekit", "choose another name")
    parts = out.with_name(f"{out.name}.parts")

    def painter(items: list[FaceInput]) -> list[Image.Image]:
        return [picture for picture, _ in paint([(where, item) for item in items], translator, known)]

    with lock.held_file(out, "translate"), lock.held(parts, "translate"):
        complete = not force and claim.is_complete(out, values, name)
        if force:
            _empty(parts)
        if not complete:
            claim.take(parts, values)
            files.sweep(parts)
            claim.take(out.parent, values, name, force)
            try:
                Job(film, selection, writer, parts, options, device, translator, painter).run(detector, out)
            except InputError:  # nothing of it can be used again
                _empty(parts)
                files.remove(claim.cards_of(out.parent, name)[1])
                raise
            claim.finish(out.parent, values, provenance.collect("torch", "av"), name)
        _empty(parts)
    with contextlib.suppress(OSError):
        parts.rmdir()
    console.note(f"translate: nothing to do, {out} is complete" if complete else f"translate: {out}")
    return out


def open_film(source: Path, out: Path, selection: Selection) -> Film:
    """Open a film, an animation or a folder of frames."""
    if content.is_folder(source):
        return FrameFolder(source, open_source(source, out), selection)
    if source.suffix.lower() in FILMS:
        return FilmFile(source)
    return Animation(source)


@dataclass
class Job:
    """The work on one film: its faces are found first, then pieces of PIECE frames are translated, then joined."""

    film: Film
    selection: Selection
    writer: Writer
    parts: Path
    options: TranslateOptions
    device: str
    translator: Translator
    painter: Callable[[list[FaceInput]], list[Image.Image]]

    def run(self, detector: Detector | None, out: Path) -> None:
        """Do it; what an earlier run has done stays. Without `detector` whole frames are translated."""
        by_frame, workers, _ = side_by_side(self.device, self.options)
        shared = share_threads(workers) if by_frame else contextlib.nullcontext()
        done = 0
        with shared, stoppable("translate", lambda: f"{done} frames" if done else "a part of the search for faces"):
            found = search(self.film, self.selection, detector, self.options.faces.every, self.parts, workers)
            cut = self._cutter(found, detector)
            total = len(found.times) - 1
            firsts = range(0, total, PIECE)
            done = sum(min(PIECE, total - first) for first in firsts if self._piece(first).exists())
            frames: Iterator[Frame] | None = None
            with console.progress("translate", total, done) as bar, pool_of(workers, False) as pool:
                for first in firsts:
                    if self._piece(first).exists():
                        frames = None
                        continue
                    frames = frames or select(self.film, self.selection, first, found.times[first])
                    count = min(PIECE, total - first)
                    paired = self._translated(itertools.islice(frames, count), cut, pool)
                    with files.replacing(self._piece(first)) as part:
                        self.writer.piece(part, _timed(paired, found, bar))
                    done += count
            self._join(found, firsts, out)

    def _cutter(self, found: Search, detector: Detector | None) -> Cutter:
        """Return what cuts the faces out of a frame; raises InputError where no frame has one."""
        if detector is None:
            return partial(_whole, translator=self.translator)
        faces = self.options.faces
        margin = MARGIN if faces.margin is None else faces.margin
        places = places_of(found, margin, faces.every, self.options.film.smooth)
        if not any(places):
            hint = "another --detector, or --no-align to translate whole frames"
            raise InputError(f"no face found in {self.film.path} by {detector.name}", hint)
        return TrackedFaces(self.translator, places)

    def _join(self, found: Search, firsts: range, out: Path) -> None:
        """Join the pieces."""
        pieces = [self._piece(first) for first in firsts]
        starts = [found.times[first] - found.times[0] for first in firsts]
        to_folder = isinstance(self.writer, FolderWriter)
        with _replacing_folder(out, self.parts) if to_folder else files.replacing(out) as part:
            self.writer.join(part, pieces, starts, found.times)

    def _piece(self, first: int) -> Path:
        return self.parts / f"{first:08d}.piece"

    def _translated(self, frames: Iterator[Frame], cut: Cutter, pool: Any) -> Iterator[tuple[Frame, Any]]:
        """Yield frames with what the writer takes: on the processor several at once, elsewhere in batches."""
        by_frame, workers, batch = side_by_side(self.device, self.options)

        def alone(frame: Frame) -> Any:
            item = cut(frame.number, frame.pixels)
            return self._finished(frame, self.painter([item])[0] if item.crops else None)

        if by_frame:
            yield from in_order(pool, alone, frames, 2 * workers)
            return
        read = in_order(pool, lambda frame: cut(frame.number, frame.pixels), frames, 2 * workers + batch)
        while group := list(itertools.islice(read, batch)):
            items = [item for _, item in group if item.crops]
            pictures = iter(self.painter(items) if items else [])
            painted = [(frame, next(pictures) if item.crops else None) for frame, item in group]
            for (frame, _), made in in_order(pool, lambda pair: self._finished(*pair), painted, 2 * workers):
                yield frame, made

    def _finished(self, frame: Frame, picture: Image.Image | None) -> Any:
        """Return what the writer takes; without `picture` the frame is as it was."""
        if picture is None:
            return self.writer.prepare(frame, frame.pixels)
        if picture.size != self.film.size:
            picture = picture.resize(self.film.size, Image.Resampling.BICUBIC)
        return self.writer.prepare(frame, np.asarray(picture))


@contextlib.contextmanager
def _replacing_folder(out: Path, parts: Path) -> Iterator[Path]:
    """Give an empty folder in `parts` to write to; it takes the place of the folder `out` when the block ends well."""
    made, old = parts / "whole", parts / "old"
    for path in (made, old):
        shutil.rmtree(path, ignore_errors=True)
    files.make_folder(made)
    yield made
    if out.exists():
        files.move(out, old)
    files.move(made, out)


def _timed(paired: Iterator[tuple[Frame, Any]], found: Search, bar: console.Bar) -> Iterator[tuple[Fraction, Any]]:
    """Yield frames with their times from the first; raises InputError where they are not those that were searched."""
    first: Fraction | None = None
    for frame, made in paired:
        if frame.time != found.times[frame.number]:
            raise InputError("the film has changed while it was translated", "run the same command again with --force")
        first = frame.time if first is None else first
        yield frame.time - first, made
        bar.advance(1)


def _whole(number: int, pixels: np.ndarray, translator: Translator) -> FaceInput:
    """Return a whole frame as what is translated."""
    return FaceInput([Crop(translator.fit(Image.fromarray(pixels)))])


def _check(source: Path, out: Path, options: TranslateOptions) -> None:
    """Raise CardError for options that a moving picture cannot have."""
    refused = {
        "--mask": options.mask, "--rotation": options.faces.rotation, "--sheet": options.sheet,
        "--keep-alpha": options.kept.alpha,
        "--limit": options.run.get("limit"), "--shard": options.run.get("shard"),
        "--retry-failed": options.run.get("retry_failed"),
    }  # fmt: skip
    for flag, given in refused.items():
        if given:
            raise CardError(f"{flag} is for images, and {source} is a moving picture", f"leave out {flag}")
    if options.faces.every and not options.faces.align:
        raise CardError("--faces all needs to find the faces", "leave out --no-align")
    if not source.is_file() and not content.is_folder(source):
        raise InputError(f"no such file or folder: {source}", "check the path")
    if out.resolve() == source.resolve():
        raise CardError(f"{out} is both input and output", "choose another output")


def _card(
    source: Path,
    out: Path,
    options: TranslateOptions,
    translator: Translator,
    model: checkpoint.Model,
    detector: Detector | None,
) -> dict[str, Any]:
    """Return the values of the run's card."""
    faces, film = options.faces, options.film
    given: dict[str, Any] = {
        "source": str(source), "out": str(out), "to": translator.name, "weights": options.weights,
        "size": options.size, "align": faces.align, "faces": "all" if faces.every else None, "margin": faces.margin,
        "model_root": str(faces.model_root) if faces.model_root else None, "came_from": options.source_label,
        "classifier": options.classifier, **control_flags(model, options.controls),
        "start": film.start, "end": film.end, "fps": film.fps, "smooth": film.smooth,
        "video": film.video or None, "quality": options.quality,
        "keep_exif": options.kept.exif or None, "keep_gps": options.kept.gps or None,
        "upscaler": None if options.upscaler == NONE else options.upscaler,
        "detector": detector.name if detector else None,
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    inputs = translator.inputs(True) | ({} if content.is_folder(source) else {"source": _sample(source)})
    return {"facekit": 1, "command": "translate", "options": given, "inputs": inputs}


def _sample(path: Path) -> str:
    """Return a short hash of a file's size and its two ends: films are too large to be read for it."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(SAMPLE)
        file.seek(max(0, size - SAMPLE))
        return hashlib.sha256(str(size).encode() + start + file.read()).hexdigest()[:16]


def _empty(parts: Path) -> None:
    """Remove what lies in the folder of pieces, but for the lock that is held."""
    for path in parts.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != lock.NAME:
            files.remove(path)
