"""`facekit align`: photos in, level square faces out."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from . import options

if TYPE_CHECKING:
    from ..faces import Aligned, Detector, Face
    from ..storage.folder import Source

    Cut = tuple[bytes, dict[str, Any]]


def align(
    source: Annotated[Path, typer.Argument(help="a folder of photos, or one photo")],
    out: Annotated[Path, typer.Argument(help="folder for the faces")],
    *,
    size: Annotated[int, typer.Option(min=16, help="edge of a face image, px")] = 256,
    margin: Annotated[Optional[float], typer.Option(help="space around the face; a portrait's if absent")] = None,
    faces: Annotated[
        Literal["largest", "all"], typer.Option(help="which faces of a photo", rich_help_panel="Faces")
    ] = ("largest"),
    detector: options.Detector = "auto",
    model_root: options.ModelRoot = None,
    workers: options.Workers = None,
    limit: options.Limit = None,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Find the faces in photos, level the eyes and cut out squares.

    manifest.jsonl notes for every face its photo, box, five landmarks, roll angle and the warp, with which
    `translate --paste` puts the face back. Photos without a face are lines of failed.jsonl. index.html shows the faces,
    those that the detector is least sure of first.
    """
    import os

    from ..faces import MARGIN, find_detector, template
    from ..runtime import console
    from ..storage.folder import open_source, output_names
    from ..storage.folder_map import folder_map
    from ..storage.manifest import Made

    source, out = Path(source), Path(out)
    space = MARGIN if margin is None else margin
    template(size, space)  # refuses what makes no face image
    found = open_source(source, out)
    name = find_detector(detector, model_root).name  # fails early, and says what auto is
    given = {"source": str(source), "out": str(out), "size": size, "margin": space, "faces": faces, "detector": name}
    if model_root:
        given["model_root"] = str(model_root)
    if dry_run:
        console.result(f"align: {len(found)} photos with {name} into {out}", sources=len(found), options=given)
        return out
    names = output_names(found)
    taken = set(names.values())

    def together(group: list[tuple[Source, list[Cut]]]) -> list[list[Made] | Exception]:
        return [
            [Made(face_name(names[photo.name], index, taken), *cut) for index, cut in enumerate(cuts)]
            for photo, cuts in group
        ]

    cores = min(workers or os.cpu_count() or 1, len(found))
    folder_map(
        "align",
        found,
        out,
        {"facekit": 1, "command": "align", "options": given, "inputs": _inputs(name)},
        partial(align_photo, size=size, margin=space, every=faces == "all", detector=name, root=model_root),
        together,
        names=names,
        workers=cores if len(found) >= 32 or workers else 1,
        processes=True,
        limit=limit,
        shard=shard,
        force=force,
        retry_failed=retry_failed,
        made=partial(provenance, out),
    )
    return out


def _inputs(detector: str) -> dict[str, str]:
    """Return the digest of a cascade file: another one under the same name makes another run."""
    from ..storage import files

    kind, _, file = detector.partition(":")
    return {"detector": files.digest(Path(file).expanduser())} if kind == "cascade" and file else {}


def face_name(name: str, index: int, taken: Collection[str]) -> str:
    """Return the file name of a photo's face: `name` for the first, then `.face2` and so on, but none of `taken`."""
    if index == 0:
        return name
    stem = name.removesuffix(".png")
    while f"{stem}.face{index + 1}.png" in taken:
        stem += "_"
    return f"{stem}.face{index + 1}.png"


def provenance(out: Path) -> dict[str, Any]:
    """Return what the card notes of an align run, and write the page of its faces."""
    from ..faces import report as survey
    from ..storage import provenance as surroundings

    return {**surroundings.collect("scikit-image", "insightface"), "faces": survey.write_page(out)}


@lru_cache(maxsize=4)
def detector_named(name: str, root: Path | None) -> Detector:
    """Return a detector, made once in each process."""
    from ..faces import find_detector

    return find_detector(name, root)


def align_photo(source: Source, size: int, margin: float, every: bool, detector: str, root: Path | None) -> list[Cut]:
    """Cut the face or faces out of one photo: PNG and manifest entry; raises InputError where there is none."""
    import numpy as np

    from ..errors import InputError
    from ..faces import align_face
    from ..storage import images

    photo = np.asarray(images.read(source.path))
    found = detector_named(detector, root).detect(photo)
    if not found:
        error = InputError(f"no face found by {detector}", "try another --detector, or crop the photo by hand")
        error.stage = "detect"  # type: ignore[attr-defined]
        raise error
    cuts = []
    for face in found if every else found[:1]:
        cut = align_face(photo, face, size, margin)
        cuts.append((images.encode(cut.image), describe(face, cut, photo.shape, len(found))))
    return cuts


def describe(face: Face, cut: Aligned, shape: tuple[int, ...], count: int) -> dict[str, Any]:
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
