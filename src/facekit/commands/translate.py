"""`facekit translate`: faces or photos in, faces of another domain out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from . import options

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..folder import Made, Source
    from ..translator import Translator


def translate(
    source: Annotated[Path, typer.Argument(help="a folder of faces or photos, or one image")],
    out: Annotated[Path, typer.Argument(help="output folder, or an image file for one image")],
    *,
    to: Annotated[Optional[str], typer.Option(help="domain to translate to, by its name: anime")] = None,
    weights: Annotated[str, typer.Option(help="a run folder, a .safetensors file, or a shipped name")] = "anime",
    size: Annotated[Optional[int], typer.Option(min=16, help="edge to translate at, px; else the model's own")] = None,
    align: Annotated[bool, typer.Option("--align/--no-align", help="cut the face out of photos first")] = True,
    paste: Annotated[bool, typer.Option("--paste", help="put the face back into its photo")] = False,
    sheet: Annotated[bool, typer.Option("--sheet", help="also write a contact sheet, OUT-sheet.png")] = False,
    suffix: Annotated[Literal["png", "jpg", "webp"], typer.Option(help="file type of the output")] = "png",
    batch: Annotated[Optional[int], typer.Option(min=1, help="images at a time", rich_help_panel="Computing")] = None,
    margin: Annotated[Optional[float], typer.Option(help="space around the face", rich_help_panel="Faces")] = None,
    detector: options.Detector = "auto",
    model_root: options.ModelRoot = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    limit: options.Limit = None,
    shard: options.Shard = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Translate faces with trained weights.

    Photos are aligned first; folders that `facekit align` made are taken as they are, as is everything with --no-align.
    Names and sub-folders stay. Images that fail are lines of failed.jsonl.
    """
    from .. import report, zoo
    from ..errors import CardError
    from ..folder import Folder, folder_map, open_source, output_names
    from ..translator import Translator

    if out.is_file() and not source.is_file():
        raise CardError(f"{out} is a file, {source} a folder", "give a folder for the output")
    found = open_source(source)
    aligned = source.is_dir() and Folder(source).aligned
    if paste and not aligned and not align:
        raise CardError("--paste needs to know where the face was", "leave out --no-align, or give a folder of `align`")
    place = options.parse_device(device)
    model = zoo.load_model(weights, place)
    translator = Translator(model, to, size)
    side = zoo.direction(model, to)
    name = getattr(model.card.domains, side)
    given = {"source": str(source), "out": str(out), "to": name, "weights": weights, "align": align, "paste": paste}
    given |= {"suffix": suffix, "detector": detector}
    given |= {k: v for k, v in {"size": size, "margin": margin, "model_root": model_root}.items() if v is not None}
    given = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
    digest = hashlib.sha256(model.path.read_bytes()).hexdigest()[:16]
    values = {"facekit": 1, "command": "translate", "options": given, "inputs": {"weights": digest}}
    if dry_run:
        report.result(f"translate: {len(found)} images to {name} with {model.path}", sources=len(found), options=given)
        return out
    if aligned:
        read: Callable[[Source], Job] = AlignedReader(source, paste)
    elif align:
        read = PhotoReader(detector, model_root, margin, translator.size, paste)
    else:
        read = read_plain
    alone = source.is_file() and bool(out.suffix)
    names = {found[0].name: out.name} if alone else output_names(found, f".{suffix}")

    def together(group: list[tuple[Source, Job]]) -> list[list[Made] | Exception]:
        return finish_batch(group, translator, names)

    if alone:
        _one(found[0], out, values, read, together, force)
    else:
        folder_map(
            "translate",
            found,
            out,
            values,
            read,
            together,
            batch=batch or (32 if place.startswith("cuda") else 4),
            workers=workers or 2,
            limit=limit,
            shard=shard,
            force=force,
            made=_provenance,
        )
    if sheet and not alone:
        report.note(f"translate: contact sheet in {write_sheet(source, out, name)}")
    return out


@dataclass
class Job:
    """A face to translate; with `matrix` and `photo`, where it goes back to."""

    face: Image.Image
    photo: Image.Image | None = None
    matrix: np.ndarray | None = None
    edge: int = 0  # of the face image that the matrix leads to, px


def read_plain(source: Source) -> Job:
    """Read an image that is a face already."""
    from .. import images

    return Job(images.read(source.path))


class PhotoReader:
    """Reads a photo and cuts its largest face out."""

    def __init__(self, detector: str, root: Path | None, margin: float | None, size: int, paste: bool):
        from ..faces import MARGIN, find_detector

        self.detector = find_detector(detector, root)
        self.margin = MARGIN if margin is None else margin
        self.size, self.paste = size, paste

    def __call__(self, source: Source) -> Job:
        import numpy as np

        from .. import images
        from ..errors import InputError
        from ..faces import align_face

        photo = images.read(source.path)
        found = self.detector.detect(np.asarray(photo))
        if not found:
            error = InputError(
                f"no face found by {self.detector.name}", "--no-align for faces already cut, or another --detector"
            )
            error.stage = "detect"  # type: ignore[attr-defined]
            raise error
        cut = align_face(np.asarray(photo), found[0], self.size, self.margin)
        return Job(cut.image, photo if self.paste else None, cut.matrix, self.size)


class AlignedReader:
    """Reads a face of an align folder, with its photo where it is to be pasted back."""

    def __init__(self, folder: Path, paste: bool):
        from .. import card
        from ..folder import Folder

        self.folder = Folder(folder)
        self.paste = paste
        if paste:
            self.photos = Path(card.load(folder / card.NAME)["options"]["source"])
            self.entries = self.folder.entries

    def __call__(self, source: Source) -> Job:
        import numpy as np

        from .. import images
        from ..errors import InputError

        face = images.read(source.path)
        if not self.paste:
            return Job(face)
        entry = self.entries.get(source.name)
        if entry is None:
            raise InputError(f"{source.name} is not in the manifest of {self.folder.path}", "align it again")
        photo = self.photos if self.photos.is_file() else self.photos / entry["source"]
        return Job(face, images.read(photo), np.array(entry["warp"]), face.width)


def finish_batch(group: list[tuple[Source, Job]], translator: Translator, names: dict[str, str]) -> list[Any]:
    """Translate a batch and say what files it becomes; encoding waits until they are written."""
    from functools import partial

    from .. import images
    from ..folder import Made

    out: list[list[Made] | Exception] = []
    for (source, job), picture in zip(group, translator.batch([job.face for _, job in group]), strict=True):
        if job.photo is not None and job.matrix is not None:
            from ..faces import paste

            picture = paste(job.photo, picture, job.matrix, job.edge)
        name = names[source.name]
        out.append([Made(name, partial(images.encode, picture, Path(name).suffix), {"size": list(picture.size)})])
    return out


def _provenance() -> dict[str, Any]:
    from .. import card

    return card.provenance("torch")


def _one(
    source: Source,
    out: Path,
    values: dict[str, Any],
    read: Callable[[Source], Job],
    together: Callable[[list[tuple[Source, Job]]], list[Any]],
    force: bool,
) -> None:
    """Translate one file to one file; its card stands beside it."""
    from .. import card, files, report
    from ..errors import CardError
    from ..folder import SUFFIXES

    if out.suffix.lower() not in SUFFIXES:
        raise CardError(f"{out} has no image type that can be written", "end it in .png, .jpg or .webp")
    name = f"{out.stem}.{card.NAME}"
    state = card.claim(out.parent, values, name, force)
    if state == "finished" and out.exists():
        report.note(f"translate: nothing to do, {out} is complete")
        return
    made = together([(source, read(source))])[0][0]
    files.write_bytes(out, made.data())
    card.finish(out.parent, values, {**_provenance(), "end": card.now()}, name)
    report.note(f"translate: {out}")


def write_sheet(source: Path, out: Path, title: str, most: int = 48) -> Path:
    """Write the contact sheet of a finished folder beside it; returns its path."""
    from .. import images
    from .. import sheet as sheets
    from ..folder import Folder

    rows, labels = [], []
    for name, entry in sorted(Folder(out).entries.items())[:most]:
        before = source if source.is_file() else source / entry["source"]
        rows.append([images.read(before), images.read(out / name)])
        labels.append(name)
    path = out.with_name(f"{out.name}-sheet.png")
    edge = 256 if len(rows) <= 6 else 128
    groups = 1 if len(rows) <= 3 else 3
    sheets.save_sheet(path, rows, titles=["input", title], labels=labels, size=edge, groups=groups)
    return path
