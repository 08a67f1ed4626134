"""`facekit align` without its flags: a folder of photos in, upright square faces out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import console
from ..runtime.cores import usable_cores
from ..storage import files, images, provenance
from ..storage.folder import Source, open_source, output_names
from ..storage.folder_map import folder_map
from ..storage.manifest import Output
from . import report
from .alignment import MARGIN, Aligned, align_face, template
from .detectors import find_detector, find_faces
from .types import Detector, Face

FEW = 32  # photos; for fewer, processes take longer to start than they save

Cut = tuple[bytes, dict[str, Any]]
"""A face image as PNG, and its manifest entry."""


@dataclass(frozen=True)
class AlignOptions:
    """How faces are cut; see the flags of `facekit align`."""

    size: int = 256
    margin: float = MARGIN
    every: bool = False
    detector: str = "auto"
    model_root: Path | None = None


def align_folder(
    source: Path, out: Path, options: AlignOptions, workers: int | None = None, dry_run: bool = False, **run: Any
) -> None:
    """Cut the faces out of the photos of `source` into `out`; `run` goes to `folder_map` (limit, shard, force, ...).

    Raises CardError for a size or margin that makes no crop, InputError without photos, MissingError without the
    detector, SomeFailed where some photos have no face.
    """
    template(options.size, options.margin)
    found = open_source(source, out)
    detector = find_detector(options.detector, options.model_root).name  # what `auto` stands for here
    given = {
        "source": str(source),
        "out": str(out),
        "size": options.size,
        "margin": options.margin,
        "faces": "all" if options.every else "largest",
        "detector": detector,
    }
    if options.model_root:
        given["model_root"] = str(options.model_root)
    if dry_run:
        count = len(found[: run.get("limit")])
        console.result(f"align: {count} photos with {detector} into {out}", sources=count, options=given)
        return
    names = output_names(found)
    taken = set(names.values())

    def together(group: list[tuple[Source, list[Cut]]]) -> list[list[Output] | Exception]:
        return [
            [Output(face_name(names[photo.name], index, taken), *cut) for index, cut in enumerate(cuts)]
            for photo, cuts in group
        ]

    cores = min(workers or usable_cores(), len(found))
    folder_map(
        "align",
        found,
        out,
        {"facekit": 1, "command": "align", "options": given, "inputs": _inputs(detector)},
        partial(align_photo, options=options, detector=detector),
        together,
        names=names,
        workers=cores if len(found) >= FEW or workers else 1,
        processes=True,
        made=partial(_outcome, out),
        **run,
    )


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
        cut = align_face(photo, face, options.size, options.margin)
        cuts.append((images.encode(cut.image), manifest_entry(face, cut, photo.shape, len(faces))))
    return cuts


def manifest_entry(face: Face, cut: Aligned, shape: tuple[int, ...], count: int) -> dict[str, Any]:
    """Return a face's manifest entry: px in the photo, degrees, and the 2 x 3 warp from photo to face image."""
    return {
        "photo_size": [shape[1], shape[0]],
        "faces_in_photo": count,
        "box": [round(float(v), 2) for v in face.box],
        "score": round(float(face.score), 4),
        "landmarks": [[round(float(v), 2) for v in point] for point in face.landmarks],
        "landmarks_measured": face.measured,
        "roll": round(float(cut.roll), 3),
        "warp": [[round(float(v), 6) for v in row] for row in cut.matrix],
    }


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
