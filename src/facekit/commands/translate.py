"""`facekit translate`: faces or photos in, faces of another domain out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from . import options

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..folder import Folder, Made, Source
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
    tilted: Annotated[
        Optional[Literal["level", "tell"]],
        typer.Option(
            help="translate tilted faces whole, by the manifest's roll or a detected one: level them and turn them "
            "back, or tell cyclegan-angle"
        ),
    ] = None,
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
    from .. import files, report, world, zoo
    from ..errors import CardError, SomeFailed
    from ..folder import folder_map, keep_originals, open_source, output_names
    from ..translator import Translator

    source, out = Path(source), Path(out)
    alone = _is_file(source, out)
    page = _sheet_path(out, alone)
    found = [image for image in open_source(source, out) if image.path.resolve() != page]
    if out.is_file() and not source.is_file():
        raise CardError(f"{out} is a file, {source} a folder", "give a folder for the output")
    names = {found[0].name: out.name} if alone else output_names(found, f".{suffix}")
    place = world.find_device(device)
    model = zoo.load_model(weights, place)
    translator = Translator(model, to, size)
    read = open_reader(source, translator, align, paste, detector, model_root, margin, tilted)
    name = getattr(model.card.domains, translator.side)
    given = {"source": source, "out": out, "to": name, "weights": weights, "size": size, "align": align, "paste": paste}
    given |= {"suffix": suffix, "margin": margin, "model_root": model_root, "tilted": tilted}
    given["detector"] = read.detector.name if isinstance(read, PhotoReader | TiltedReader) else None
    given = {k: str(v) if isinstance(v, Path) else v for k, v in given.items() if v is not None}
    inputs = {"weights": files.digest(model.path), **({"source": files.digest(source)} if alone else {})}
    values = {"facekit": 1, "command": "translate", "options": given, "inputs": inputs}
    if dry_run:
        report.result(f"translate: {len(found)} images to {name} with {model.path}", sources=len(found), options=given)
        return out

    def together(group: list[tuple[Source, Job]]) -> list[list[Made] | Exception]:
        return finish_batch(group, translator, names)

    failed = None
    if alone:
        _one(found[0], out, values, read, together, force)
        pairs = [(source, out)]
    else:
        keep_originals(found, out, names, force)
        try:
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
        except SomeFailed as error:
            failed = error
        pairs = _pairs(source, out) if sheet else []
    if sheet and write_sheet(pairs, page, name):
        report.note(f"translate: contact sheet in {page}")
    if failed:
        raise failed
    return out


def _is_file(source: Path, out: Path) -> bool:
    """Whether the output is one image file rather than a folder."""
    return source.is_file() and (out.is_file() or (bool(out.suffix) and not out.is_dir()))


def _sheet_path(out: Path, alone: bool) -> Path:
    whole = out.resolve()
    return whole.with_name(f"{whole.stem if alone else whole.name}-sheet.png")


@dataclass
class Job:
    """A face to translate; with `matrix` and `photo`, where it goes back to; with `roll`, how far it is tilted."""

    face: Image.Image
    photo: Image.Image | None = None
    matrix: np.ndarray | None = None
    edge: int = 0  # of the face image that the matrix leads to, px
    roll: float = 0.0  # degrees clockwise that the translation is told
    back: float = 0.0  # degrees clockwise that it is turned by afterwards


def open_reader(
    source: Path,
    translator: Translator,
    align: bool,
    paste: bool,
    detector: str,
    root: Path | None,
    margin: float | None,
    tilted: Literal["level", "tell"] | None = None,
) -> Callable[[Source], Job]:
    """Return what reads an image of `source` and makes it the face that the translator takes."""
    from functools import partial

    from ..errors import CardError
    from ..folder import Folder

    home = Folder(source if source.is_dir() else source.parent)
    ours = home.aligned and (source.is_dir() or source.name in home.entries)
    if tilted:
        if ours or paste:
            raise CardError("--tilted is for faces that stay as they are", "leave it out: aligned faces are upright")
        if tilted == "tell" and not getattr(translator.model.recipe, "takes_roll", False):
            raise CardError("these weights cannot be told an angle", "--tilted level")
        return TiltedReader(home, translator, detector, root, tilted == "tell")
    if ours:
        return AlignedReader(home, translator, paste)
    if align:
        return PhotoReader(translator, detector, root, margin, paste)
    if paste:
        raise CardError("--paste needs to know where the face was", "leave out --no-align, or give a folder of `align`")
    return partial(read_plain, translator=translator)


def read_plain(source: Source, translator: Translator) -> Job:
    """Read an image that is a face already."""
    from .. import images

    return Job(translator.fit(images.read(source.path)))


class PhotoReader:
    """Reads a photo and cuts its largest face out."""

    def __init__(self, translator: Translator, detector: str, root: Path | None, margin: float | None, paste: bool):
        from ..faces import MARGIN, find_detector, template

        self.detector = find_detector(detector, root)
        self.margin = MARGIN if margin is None else margin
        self.translator, self.paste = translator, paste
        template(translator.size, self.margin)  # refuses what makes no face image

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
        size = self.translator.size
        cut = align_face(np.asarray(photo), found[0], size, self.margin)
        return Job(self.translator.fit(cut.image), photo if self.paste else None, cut.matrix, size)


class TiltedReader:
    """Reads a face that is to stay tilted; its roll is the manifest's, or that of the largest face that is found."""

    def __init__(self, folder: Folder, translator: Translator, detector: str, root: Path | None, tell: bool):
        from ..faces import find_detector
        from ..rolled import read_rolls

        self.rolls = read_rolls(folder.path, restore=False)[0]
        self.detector, self.translator, self.tell = find_detector(detector, root), translator, tell

    def __call__(self, source: Source) -> Job:
        from .. import images
        from ..rolled import tilt

        face = images.read(source.path)
        roll = self.rolls[source.path] if source.path in self.rolls else self.find(face)
        if self.tell:
            return Job(self.translator.fit(face), roll=roll)
        return Job(self.translator.fit(tilt(face, -roll)), back=roll)

    def find(self, face: Image.Image) -> float:
        """Return the roll of the largest face, in degrees clockwise; raises InputError where there is none."""
        import numpy as np

        from ..errors import InputError
        from ..faces import roll

        found = self.detector.detect(np.asarray(face))
        if not found:
            error = InputError(
                f"no face found by {self.detector.name}", "give `roll` in a manifest.jsonl, or another --detector"
            )
            error.stage = "detect"  # type: ignore[attr-defined]
            raise error
        return roll(found[0].landmarks)


class AlignedReader:
    """Reads a face of an align folder, with its photo where it is to be pasted back."""

    def __init__(self, folder: Folder, translator: Translator, paste: bool):
        from .. import card
        from ..errors import InputError

        self.folder, self.translator, self.paste = folder, translator, paste
        if paste:
            self.photos = Path(card.load(folder.path / card.NAME)["options"]["source"])
            self.entries = folder.entries
            if not self.photos.exists():
                raise InputError(
                    f"{folder.path} was cut from {self.photos}, which is not here",
                    "run from the folder that `align` ran in, or translate the photos themselves",
                )

    def __call__(self, source: Source) -> Job:
        import numpy as np

        from .. import images
        from ..errors import InputError

        face = images.read(source.path)
        fitted = self.translator.fit(face)
        if not self.paste:
            return Job(fitted)
        entry = self.entries.get(source.name)
        if entry is None:
            raise InputError(f"{source.name} is not in the manifest of {self.folder.path}", "align it again")
        photo = self.photos if self.photos.is_file() else self.photos / entry["source"]
        return Job(fitted, images.read(photo), np.array(entry["warp"]), face.width)


def finish_batch(group: list[tuple[Source, Job]], translator: Translator, names: dict[str, str]) -> list[Any]:
    """Translate a batch and say what files it becomes; encoding waits until they are written."""
    from functools import partial

    from .. import images
    from ..folder import Made

    out: list[list[Made] | Exception] = []
    rolls = [job.roll for _, job in group]
    faces = translator.fitted([job.face for _, job in group], rolls=rolls if any(rolls) else None)
    for (source, job), picture in zip(group, faces, strict=True):
        if job.back:
            from ..rolled import tilt

            picture = tilt(picture, job.back)
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
    name = f"{out.name}.{card.NAME}"
    if not force and (out.parent / name).exists():
        card.claim(out.parent, values, name)  # refuses another card
        if out.exists():
            report.note(f"translate: nothing to do, {out} is complete")
            return
    elif not force and out.exists():
        raise CardError(f"{out} is there already, and facekit has not made it", "choose another name, or --force")
    (made,) = together([(source, read(source))])[0]
    card.claim(out.parent, values, name, force)
    files.write_bytes(out, made.data())
    card.finish(out.parent, values, _provenance(), name)
    report.note(f"translate: {out}")


def _pairs(source: Path, out: Path) -> list[tuple[Path, Path]]:
    """Return the inputs and outputs of a folder that are both there."""
    from ..folder import Folder

    rows = sorted(Folder(out).entries.items())
    pairs = [(source if source.is_file() else source / entry["source"], out / name) for name, entry in rows]
    return [pair for pair in pairs if all(path.exists() for path in pair)]


def write_sheet(pairs: list[tuple[Path, Path]], path: Path, title: str, most: int = 48) -> bool:
    """Write a contact sheet of the first pairs of input and output; returns whether there was anything new to show."""
    from .. import images
    from .. import sheet as sheets

    shown = pairs[:most]
    newest = max((after.stat().st_mtime_ns for _, after in shown), default=0)
    if not shown or (path.exists() and path.stat().st_mtime_ns >= newest):
        return False
    edge = 256 if len(shown) <= 6 else 128
    rows = []
    for pair in shown:
        row = [images.read(image) for image in pair]
        for image in row:
            image.thumbnail((edge, edge))  # whole photos would fill the memory
        rows.append(row)
    groups = 1 if len(rows) <= 3 else 3
    labels = [after.name for _, after in shown]
    sheets.save_sheet(path, rows, titles=["input", title], labels=labels, size=edge, groups=groups)
    return True
