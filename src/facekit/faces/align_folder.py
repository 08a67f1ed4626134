"""`facekit align` without its flags: a folder of photos in, upright square faces out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CardError, FacekitError, SomeFailed
from ..runtime import console
from ..runtime.engine import LOCAL, Engine
from ..storage import card, files, images, provenance
from ..storage.folder import Source, open_source, output_names
from ..storage.folder_map import folder_map
from ..storage.manifest import Output, failures
from . import report
from .alignment import MARGIN, MEAN_FACE, Aligned, cut_face
from .detectors import find_detector, find_faces
from .framing import face_warp
from .types import Detector, Face

UNSUITED = "another --detector may suit them better (docs/commands/align.md); faces that are cut already need no align"

Cut = tuple[bytes, dict[str, Any]]
"""A face image as PNG, and its manifest entry."""


@dataclass(frozen=True)
class AlignOptions:
    """How faces are cut; see the flags of `facekit align`."""

    size: int = 256
    margin: float | None = None
    every: bool = False
    detector: str = "auto"
    model_root: Path | None = None
    template: str = "portrait"


def align_folder(
    source: Path,
    out: Path,
    options: AlignOptions,
    workers: int | None = None,
    dry_run: bool = False,
    engine: Engine = LOCAL,
    **run: Any,
) -> None:
    """Cut the faces out of the photos of `source` into `out`; `run` goes to `folder_map` (limit, shard, force, ...).

    Raises CardError for a size or margin that makes no crop, InputError without photos, MissingError without the
    detector, SomeFailed where some photos have no face.
    """
    face_warp(MEAN_FACE, options.size, options.margin, options.template)
    found = open_source(source, out)
    detector = _name(options, out)
    given = {
        "source": str(source),
        "out": str(out),
        "size": options.size,
        "margin": MARGIN if options.margin is None and options.template == "portrait" else options.margin or 0.0,
        "faces": "all" if options.every else "largest",
        "detector": detector,
    }
    if options.template != "portrait":  # so that folders of older versions stay what they are
        given["template"] = options.template
    if options.model_root:
        given["model_root"] = str(options.model_root)
    if dry_run:
        count = len(found[: run.get("limit")])
        console.result(f"align: {count} photos with {detector} into {out}", sources=count, options=given)
        return
    names = output_names(found)
    taken = {name for name in names.values() if ".face" in name}
    ours = any((out / name).exists() for name in (card.NAME, card.UNFINISHED))
    if not ours and not run.get("force") and os.path.lexists(out / report.NAME):
        raise CardError(f"{out / report.NAME} already exists and was not created by facekit", "choose another output")
    in_threads = detector.startswith("facekit")  # PyTorch hangs in processes that were forked after it had run
    try:
        with _single_threaded() if in_threads else contextlib.nullcontext():
            folder_map(
                "align",
                found,
                out,
                {"facekit": 1, "command": "align", "options": given, "inputs": _inputs(detector)},
                partial(align_photo, options=options, detector=detector),
                partial(name_cuts, names=names, taken=taken),
                names=names,
                workers=engine.workers(workers, len(found)),
                processes=not in_threads,
                engine=engine.seeing(options.model_root, detector.partition(":")[2]),
                ready=partial(_detector, detector, options.model_root),
                made=partial(_outcome, out),
                **run,
            )
    except SomeFailed as error:
        without = sum(reason.startswith("no face found") for reason in failures(out).values())
        if 2 * without > len(found[: run.get("limit")]):
            error.hint = f"{detector} finds no face in most images: {UNSUITED}. {error.hint}"
        raise


def _single_threaded() -> contextlib.AbstractContextManager[None]:
    """Let PyTorch use one thread in each worker: the faces are then the same for any number of workers."""
    import torch

    from ..runtime.device import share_threads

    return share_threads(torch.get_num_threads())


def _name(options: AlignOptions, out: Path) -> str:
    """Return the name of the detector that `auto` stands for: that of the faces in `out`, else today's.

    A folder that an older version has cut with another default is continued as it was begun, with a note.
    """
    name = find_detector(options.detector, options.model_root).name
    if options.detector != "auto":
        return name
    for file in (out / card.NAME, out / card.UNFINISHED):
        with contextlib.suppress(FacekitError):
            before = card.load(file)
            used = before.get("options", {}).get("detector", name) if before.get("command") == "align" else name
            if used != name:
                console.note(f"align: {out} was begun with the detector {used} and goes on with it")
                console.note(f"align: --detector {name} --force cuts all faces again with today's default")
                return used
    return name


def name_cuts(
    group: list[tuple[Source, list[Cut]]], names: Mapping[str, str], taken: Collection[str]
) -> list[list[Output] | Exception]:
    """Return the images of each photo of a group, under the names that its faces have in the output folder."""
    return [
        [Output(face_name(names[photo.name], index, taken), *cut) for index, cut in enumerate(cuts)]
        for photo, cuts in group
    ]


def face_name(name: str, index: int, taken: Collection[str]) -> str:
    """Return the file name of a photo's face: `name` for the first, then `.face2` and so on, but none of `taken`."""
    if index == 0:
        return name
    stem = name.removesuffix(".png")
    while f"{stem}.face{index + 1}.png" in taken:
        stem += "_"
    return f"{stem}.face{index + 1}.png"


def align_photo(source: Source, options: AlignOptions, detector: str) -> list[Cut]:
    """Cut the largest face, or every face from left to right, out of a photo; raises InputError where there is none."""
    photo = np.asarray(images.read(source.path))
    faces = find_faces(_detector(detector, options.model_root), photo, options.every, "crop the photo by hand")
    cuts = []
    for face in faces:
        matrix = face_warp(face.landmarks, options.size, options.margin, options.template)
        cut = cut_face(photo, face, matrix, options.size)
        cuts.append((images.encode(cut.image), manifest_entry(face, cut, photo.shape, len(faces))))
    return cuts


def manifest_entry(face: Face, cut: Aligned, shape: tuple[int, ...], count: int) -> dict[str, Any]:
    """Return a face's manifest entry: px in the photo, degrees, and the 2 x 3 warp from photo to face image."""
    entry = {
        "photo_size": [shape[1], shape[0]],
        "faces_in_photo": count,
        "box": [round(float(v), 2) for v in face.box],
        "score": round(float(face.score), 4),
        "landmarks": [[round(float(v), 2) for v in point] for point in face.landmarks],
        "landmarks_measured": face.measured,
        "roll": round(float(cut.roll), 3),
        "warp": [[round(float(v), 6) for v in row] for row in cut.matrix],
    }
    return entry if face.kind == "photo" else {**entry, "kind": face.kind}


def _inputs(detector: str) -> dict[str, str]:
    """Return the digest of a cascade file: another file of the same name is another run."""
    kind, _, file = detector.partition(":")
    return {"detector": files.digest(Path(file).expanduser())} if kind == "cascade" and file else {}


def _outcome(out: Path) -> dict[str, Any]:
    """Write the page of faces; returns what the card notes of the run."""
    return {**provenance.collect("scikit-image", "insightface"), "faces": report.write_page(out)}


@lru_cache(maxsize=4)
def _detector(name: str, root: Path | None) -> Detector:
    """Return a detector, loaded once in each process."""
    return find_detector(name, root)
