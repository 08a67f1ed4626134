"""`facekit translate`: faces or photos in, faces of another domain out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from . import completion, options

if TYPE_CHECKING:
    from ..inference.face_input import Job
    from ..inference.face_labels import Known
    from ..inference.translator import Translator
    from ..storage.folder import Source
    from ..storage.manifest import Made

SIDE_BY_SIDE = 4  # images at most, for their memory


def translate(
    source: Annotated[Path, typer.Argument(help="a folder of faces or photos, or one image")],
    out: Annotated[Path, typer.Argument(help="output folder, or an image file for one image")],
    *,
    to: Annotated[
        Optional[str],
        typer.Option(
            help="domain or label to translate to: anime; several: smile,cry; or all", autocompletion=completion.targets
        ),
    ] = None,
    from_: Annotated[
        Optional[str],
        typer.Option(
            "--from", help="what the faces are, for weights that must know: photo, Young+Male; else by folder"
        ),
    ] = None,
    labels: Annotated[
        Optional[Path],
        typer.Option(help="labels file that says which attributes the faces have", rich_help_panel="Labels"),
    ] = None,
    classifier: Annotated[
        Optional[str],
        typer.Option(help="weights of a classifier that sees which labels the faces have", rich_help_panel="Labels"),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(help="a run folder, a .safetensors file, or a shipped name", autocompletion=completion.weights),
    ] = "anime",
    recipe: options.RecipeFile = None,
    size: Annotated[Optional[int], typer.Option(min=16, help="edge to translate at, px; else the model's own")] = None,
    align: Annotated[bool, typer.Option("--align/--no-align", help="cut the face out of photos first")] = True,
    paste: Annotated[bool, typer.Option("--paste", help="put the face back into its photo")] = False,
    strength: Annotated[
        Optional[float],
        typer.Option(help="how much of the change is made: 1 what was learned, more exaggerates"),
    ] = None,
    mask: Annotated[
        bool, typer.Option("--mask", help="write where faces are changed (white: wholly) instead of the faces")
    ] = False,
    tilted: Annotated[
        Optional[Literal["level", "tell"]],
        typer.Option(
            help="translate tilted faces whole, by the manifest's roll or a detected one: level them and turn them "
            "back, or tell cyclegan-angle"
        ),
    ] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="also write a contact sheet, OUT-sheet.png")] = False,
    suffix: Annotated[Literal["png", "jpg", "webp"], typer.Option(help="file type of the output")] = "png",
    batch: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            help="images at a time; else 32 on a GPU, on the processor one per worker",
            rich_help_panel="Computing",
        ),
    ] = None,
    margin: Annotated[Optional[float], typer.Option(help="space around the face", rich_help_panel="Faces")] = None,
    detector: options.Detector = "auto",
    model_root: options.ModelRoot = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    limit: options.Limit = None,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Translate faces with trained weights.

    Photos are aligned first; folders that `facekit align` made are taken as they are, as is everything with --no-align.
    Names and sub-folders stay; several domains are folders of OUT. Images that fail are lines of failed.jsonl.
    """
    from ..errors import CardError, SomeFailed
    from ..inference.face_input import PhotoReader, TiltedReader, open_reader
    from ..inference.face_labels import open_known
    from ..inference.translator import Translator
    from ..recipe_api import checkpoint
    from ..runtime import console
    from ..runtime.device import find_device, share_threads
    from ..storage import files
    from ..storage.folder import open_source, output_names
    from ..storage.folder_map import folder_map

    source, out = Path(source), Path(out)
    alone = _is_file(source, out)
    page = _sheet_path(out, alone)
    found = [image for image in open_source(source, out) if image.path.resolve() != page]
    if out.is_file() and not source.is_file():
        raise CardError(f"{out} is a file, {source} a folder", "give a folder for the output")
    names = {found[0].name: out.name} if alone else output_names(found, f".{suffix}")
    place = find_device(device)
    model = checkpoint.load_model(weights, place, recipe)
    targets = read_targets(to, list(model.directions))
    if alone and len(targets) > 1:
        raise CardError("one file cannot hold several translations", "give a folder for the output")
    if paste and mask:
        raise CardError("a mask is of the face alone", "leave out --paste or --mask")
    translators = [Translator(model, target, size, strength, mask) for target in targets]
    known = open_known(found, model, from_, labels, classifier)
    read = open_reader(source, translators[0], align, paste, detector, model_root, margin, tilted)
    titles = [translator.name for translator in translators]
    for title in titles if len(titles) > 1 else []:
        if title in (".", "..") or "/" in title or "\\" in title:  # it comes from the weights
            raise CardError(f"{title!r} is no name for a folder", "translate to it alone")
    name = ",".join(titles)
    given = {"source": source, "out": out, "to": name, "weights": weights, "size": size, "align": align, "paste": paste}
    given |= {"suffix": suffix, "margin": margin, "model_root": model_root, "tilted": tilted, "came_from": from_}
    given |= {"labels": labels, "classifier": classifier}
    given |= {"strength": strength, "mask": mask or None}
    given["detector"] = read.detector.name if isinstance(read, PhotoReader | TiltedReader) else None
    given = {k: str(v) if isinstance(v, Path) else v for k, v in given.items() if v is not None}
    inputs = {"weights": files.digest(model.path), **({"source": files.digest(source)} if alone else {})}
    values = {"facekit": 1, "command": "translate", "options": given, "inputs": inputs}
    if dry_run:
        console.result(f"translate: {len(found)} images to {name} with {model.path}", sources=len(found), options=given)
        return out

    def together(group: list[tuple[Source, Job]]) -> list[list[Made] | Exception]:
        return finish_batch(group, translators, names, known)

    failed = None
    if alone:
        _one(found[0], out, values, read, together, force)
        rows = [[source, out]]
    else:
        at_once = batch or (1 if place == "cpu" else 32 if place.startswith("cuda") else 4)
        by_threads = place == "cpu" and at_once == 1  # whole images side by side: faster than one by all cores
        work: Callable[[Source], Any] = partial(finish_one, read=read, together=together) if by_threads else read
        crew = workers or (min(os.cpu_count() or 1, SIDE_BY_SIDE) if by_threads else 2)
        try:
            with share_threads(crew) if by_threads else contextlib.nullcontext():
                folder_map(
                    "translate",
                    found,
                    out,
                    values,
                    work,
                    None if by_threads else together,
                    names=names
                    if len(titles) == 1
                    else {f"{title}/{k}": f"{title}/{v}" for title in titles for k, v in names.items()},
                    batch=at_once,
                    workers=crew,
                    limit=limit,
                    shard=shard,
                    force=force,
                    retry_failed=retry_failed,
                    made=_provenance,
                )
        except SomeFailed as error:
            failed = error
        rows = _rows(source, out) if sheet else []
    if len(titles) > 1:  # in the order that was asked for

        def column(made: Path) -> int:
            return titles.index(made.relative_to(out).parts[0])

        rows = [[row[0], *sorted(row[1:], key=column)] for row in rows]
    if sheet and write_sheet(rows, page, titles):
        console.note(f"translate: contact sheet in {page}")
    if failed:
        raise failed
    return out


def _is_file(source: Path, out: Path) -> bool:
    """Whether the output is one image file rather than a folder."""
    return source.is_file() and (out.is_file() or (bool(out.suffix) and not out.is_dir()))


def _sheet_path(out: Path, alone: bool) -> Path:
    whole = out.resolve()
    return whole.with_name(f"{whole.stem if alone else whole.name}-sheet.png")


def read_targets(to: str | None, known: list[str]) -> list[str | None]:
    """Return what `--to` asks for, each once: a name, several with commas between them, or all that there are."""
    if to is None or to in known:
        return [to]
    if to == "all":
        return [name for name in known if name.removeprefix("no-") not in known or name == name.removeprefix("no-")]
    return [*dict.fromkeys(name.strip() for name in to.split(","))]


def finish_batch(
    group: list[tuple[Source, Job]],
    translators: list[Translator],
    names: dict[str, str],
    known: Known | None = None,
) -> list[Any]:
    """Translate a batch and say what files it becomes; encoding waits until they are written."""
    from ..storage import images
    from ..storage.manifest import Made

    told: dict[str, list[Any]] = {} if known is None else {"source": [known(source, job.face) for source, job in group]}
    if any(job.roll for _, job in group):
        told["roll"] = [job.roll for _, job in group]
    out: list[list[Made]] = [[] for _ in group]
    for translator in translators:
        faces = translator.fitted([job.face for _, job in group], None, **told)
        for (source, job), picture, made in zip(group, faces, out, strict=True):
            if job.back:
                from ..data.roll import tilt

                picture = tilt(picture, job.back)
            if job.photo is not None and job.matrix is not None:
                from ..faces import paste

                picture = paste(job.photo, picture, job.matrix, job.edge)
            name = names[source.name]
            whole = name if len(translators) == 1 else f"{translator.name}/{name}"
            made.append(Made(whole, partial(images.encode, picture, Path(name).suffix), {"size": list(picture.size)}))
    return out


def finish_one(
    source: Source, read: Callable[[Source], Job], together: Callable[[list[tuple[Source, Job]]], list[Any]]
) -> list[Made]:
    """Read, translate and encode one image."""
    (made,) = together([(source, read(source))])
    for image in made:
        image.data = image.data() if callable(image.data) else image.data
    return made


def _provenance() -> dict[str, Any]:
    from ..storage import provenance

    return provenance.collect("torch")


def _one(
    source: Source,
    out: Path,
    values: dict[str, Any],
    read: Callable[[Source], Job],
    together: Callable[[list[tuple[Source, Job]]], list[Any]],
    force: bool,
) -> None:
    """Translate one file to one file; its card stands beside it."""
    from ..errors import CardError
    from ..runtime import console
    from ..storage import card, claim, files
    from ..storage.listing import SUFFIXES

    if out.suffix.lower() not in SUFFIXES:
        raise CardError(f"{out} has no image type that can be written", "end it in .png, .jpg or .webp")
    name = f"{out.name}.{card.NAME}"
    if not force and (out.parent / name).exists():
        claim.take(out.parent, values, name)  # refuses another card
        if out.exists():
            console.note(f"translate: nothing to do, {out} is complete")
            return
    elif not force and out.exists():
        raise CardError(f"{out} is there already, and facekit has not made it", "choose another name, or --force")
    (made,) = together([(source, read(source))])[0]
    claim.take(out.parent, values, name, force)
    files.write_bytes(out, made.data())
    claim.finish(out.parent, values, _provenance(), name)
    console.note(f"translate: {out}")


def _rows(source: Path, out: Path) -> list[list[Path]]:
    """Return each input of a folder with its outputs, those that are all there."""
    from ..storage.folder import Folder

    rows: dict[Path, list[Path]] = {}
    for name, entry in sorted(Folder(out).entries.items()):
        whole = source if source.is_file() else source / entry["source"]
        rows.setdefault(whole, [whole]).append(out / name)
    return [row for row in rows.values() if all(path.exists() for path in row)]


def write_sheet(rows: list[list[Path]], path: Path, titles: list[str], most: int = 48) -> bool:
    """Write a contact sheet, an input and its outputs per row; returns whether there was anything new to show."""
    from ..reports import contact_sheet as sheets
    from ..storage import images

    shown = [row for row in rows if len(row) == len(titles) + 1][: most // len(titles)]
    newest = max((path.stat().st_mtime_ns for row in shown for path in row[1:]), default=0)
    if not shown or (path.exists() and path.stat().st_mtime_ns >= newest):
        return False
    edge = 256 if len(shown) <= 6 and len(titles) == 1 else 128
    pictures = []
    for row in shown:
        cells = [images.read(image) for image in row]
        for image in cells:
            image.thumbnail((edge, edge))  # whole photos would fill the memory
        pictures.append(cells)
    groups = 1 if len(rows) <= 3 else max(1, min(3, 8 // (1 + len(titles))))
    labels = [row[1].name for row in shown]
    sheets.save_sheet(path, pictures, titles=["input", *titles], labels=labels, size=edge, groups=groups)
    return True
