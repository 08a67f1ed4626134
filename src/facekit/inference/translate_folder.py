"""`facekit translate` without its flags: a folder or one image in, translations, a card and a contact sheet out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.roll import tilt
from ..errors import CardError, SomeFailed
from ..faces import paste, warp
from ..recipe_api import checkpoint
from ..recipe_api.controls import read_controls
from ..reports import contact_sheet
from ..runtime import console
from ..runtime.cores import usable_cores
from ..runtime.device import find_device, share_threads
from ..storage import card, claim, content, files, image_files, lock, provenance
from ..storage.folder import Source, open_source, output_names, without
from ..storage.folder_map import folder_map
from ..storage.listing import SUFFIXES
from ..storage.manifest import Output
from .enlarger import SHIPPED
from .face_input import FaceInput, PhotoReader, Reader, TiltedReader, keeping, open_reader
from .face_labels import Known, open_known
from .translate_options import TranslateOptions
from .translation_sheet import SheetRows, rows_of_folder, write_sheet
from .translator import Translator

SIDE_BY_SIDE = 4  # images at most, for their memory
FLAGS = ("strength", "keep", "background", "swap_at")  # controls that have a flag of their own

Group = list[tuple[Source, FaceInput]]


def translate_folder(source: Path, out: Path, options: TranslateOptions, dry_run: bool = False) -> None:
    """Translate the images of `source` into the folder `out`, or one image into the file `out`.

    Raises CardError for options that do not fit the weights or each other, InputError without images, SomeFailed where
    some could not be translated.
    """
    single = content.is_file(source) and (out.is_file() or (bool(out.suffix) and not out.is_dir()))
    sheet = sheet_path(out, single)
    found = without(open_source(source, out), sheet)
    if out.is_file() and not content.is_file(source):
        raise CardError(f"{out} is a file, {source} a folder", "give a folder for the output")
    if options.sheet and not options.run.get("force"):
        contact_sheet.refuse_foreign(sheet)
    names = {found[0].name: out.name} if single else output_names(found, f".{options.suffix}")
    _check_output(out.suffix if single else f".{options.suffix}", options)
    work = Translation(source, found, names, options, single)
    work.open()
    model, titles = work.model, [translator.name for translator in work.translators]
    values = _card(source, out, options, titles, work.translators[0], work.reader, single)
    if dry_run:
        count = len(found[: options.run.get("limit")])
        text = f"translate: {count} images to {','.join(titles)} with {model.path}"
        console.result(text, sources=count, options=values["options"])
        return
    failed: SomeFailed | None = None
    rows: SheetRows = []
    if single:
        _translate_file(found[0], out, values, lambda: work.together([(found[0], work.read(found[0]))])[0], options)
        rows = [[source, out]]
    else:
        try:
            _translate_images(found, out, values, work, titles, options)
        except SomeFailed as error:
            failed = error
        if options.sheet:
            rows = rows_of_folder(source, out, titles)
    if options.sheet and write_sheet(rows, sheet, titles):
        console.note(f"translate: contact sheet in {sheet}")
    if failed:
        raise failed


class Translation:
    """What is done with each image of a folder. Sent to another process, it opens model and detector there."""

    def __init__(
        self, source: Path, found: Sequence[Source], names: Mapping[str, str], options: TranslateOptions, single: bool
    ):
        self.source, self.found, self.names, self.options, self.single = source, found, names, options, single

    def __reduce__(self) -> tuple[Any, ...]:
        options = self.options
        by_name = self.model.recipe.needs_source and options.source_label is None and options.classifier is None
        found = self.found if by_name else []
        return Translation, (self.source, found, self.names, options, self.single)

    @cached_property
    def model(self) -> checkpoint.Model:
        """The model, on the device of this process."""
        return checkpoint.load_model(self.options.weights, find_device(self.options.device), self.options.recipe)

    @cached_property
    def translators(self) -> list[Translator]:
        """One for each target."""
        return translators_of(self.model, self.options, self.single)

    @cached_property
    def reader(self) -> Reader:
        """What reads an image file as faces."""
        return open_reader(self.source, self.translators[0], self.options.faces)

    @cached_property
    def known(self) -> Known | None:
        """What tells the labels of a face, for weights that must know them."""
        options = self.options
        return open_known(self.found, self.model, options.source_label, options.labels, options.classifier)

    def open(self) -> None:
        """Open all of it; raises CardError, MissingError or InputError for what cannot be used."""
        _ = self.translators, self.reader, self.known

    def read(self, source: Source) -> FaceInput:
        """Read an image file as faces, with the transparency and EXIF that are kept."""
        return keeping(self.reader, self.options.kept)(source)

    def together(self, group: Group) -> list[list[Output] | Exception]:
        """Translate the faces of a batch of images."""
        return finish_batch(
            group,
            translators=self.translators,
            names=self.names,
            known=self.known,
            quality=self.options.quality,
        )


def _check_output(suffix: str, options: TranslateOptions) -> None:
    """Raise CardError or MissingError for outputs that cannot be written."""
    if suffix.lower() in image_files.FORMATS or suffix.lower() not in SUFFIXES:
        image_files.check(suffix, options.quality, options.kept)
    elif options.quality is not None or options.kept != image_files.Kept():
        raise CardError(f"{suffix} has no quality and keeps nothing", f"one of {' '.join(image_files.FORMATS)}")
    if options.kept.alpha and options.faces.rotation:
        raise CardError("--keep-alpha is for faces that are cut level", "leave out --rotation")


def read_targets(to: str | None, known: list[str]) -> list[str | None]:
    """Return the targets that `--to` names, without duplicates: one name, several separated by commas, or all."""
    if to is None or to in known:
        return [to]
    if to == "all":
        return [name for name in known if name.removeprefix("no-") not in known or name == name.removeprefix("no-")]
    return [*dict.fromkeys(name.strip() for name in to.split(","))]


def finish_batch(
    group: Group,
    *,
    translators: list[Translator],
    names: Mapping[str, str],
    known: Known | None,
    quality: int | None = None,
) -> list[list[Output] | Exception]:
    """Translate the faces of a batch of images; returns the output images of each, to be encoded when written."""
    out: list[list[Output]] = [[] for _ in group]
    for translator in translators:
        painted = paint(group, translator, known)
        for (source, item), (picture, of_faces), made in zip(group, painted, out, strict=True):
            name = names[source.name] if len(translators) == 1 else f"{translator.name}/{names[source.name]}"
            whole = _transparent(picture, item) if item.alpha else picture
            encode = partial(image_files.encode, whole, Path(name).suffix, quality, item.exif)
            made.append(Output(name, encode, {"size": list(picture.size), **of_faces}))
    return list(out)


def paint(group: Group, translator: Translator, known: Known | None) -> list[tuple[Image.Image, dict[str, Any]]]:
    """Translate the faces of a batch of images.

    Returns each face, or each photo with its faces in it, and what was measured of them.
    """
    crops = [(place, crop) for place, (_, item) in enumerate(group) for crop in item.crops]
    conditions: dict[str, list[Any]] = {}
    if known is not None:
        conditions["source"] = [known(group[place][0], crop.face) for place, crop in crops]
    if any(crop.roll for _, crop in crops):
        conditions["roll"] = [crop.roll for _, crop in crops]
    notes: list[dict[str, Any]] = []
    places = [crop.place if group[place][1].photo is not None else 0 for place, crop in crops]
    faces = translator.fitted([crop.face for _, crop in crops], None, notes, places, **conditions)
    measured: list[list[dict[str, Any]]] = [[] for _ in group]
    for (place, _), note in zip(crops, notes, strict=True):
        measured[place] += [note] if note else []
    pictures = [item.photo for _, item in group]
    for (place, crop), face in zip(crops, faces, strict=True):
        turned = tilt(face, crop.turn_back) if crop.turn_back else face
        photo = pictures[place]
        if photo is None or crop.matrix is None:
            pictures[place] = turned
        else:
            pictures[place] = paste(photo, turned, crop.matrix, crop.edge, crop.head, crop.opacity)
    of_faces = [found[0] if len(found) == 1 else {"faces": found} if found else {} for found in measured]
    return [(picture, found) for picture, found in zip(pictures, of_faces, strict=True) if picture is not None]


def _transparent(picture: Image.Image, item: FaceInput) -> Image.Image:
    """Return a result with the transparency of its input: that of the photo, or of the part that was cut out."""
    alpha = item.alpha
    assert alpha is not None
    crop = item.crops[0] if item.crops else None
    if item.photo is None and crop and crop.matrix is not None:
        alpha = warp(np.asarray(alpha.convert("RGB")), crop.matrix, crop.edge).getchannel(0)
    return image_files.with_alpha(picture, alpha)


def translators_of(model: checkpoint.Model, options: TranslateOptions, single: bool) -> list[Translator]:
    """Return a translator for each target; raises CardError for targets that cannot be written."""
    targets = read_targets(options.to, list(model.directions))
    if single and len(targets) > 1:
        raise CardError("one file cannot hold several translations", "give a folder for the output")
    if options.faces.paste and options.mask:
        raise CardError("a mask is of the face alone", "leave out --paste or --mask")
    how: dict[str, Any] = {"mask": options.mask, "controls": options.controls, "upscaler": options.upscaler or SHIPPED}
    found = [Translator(model, target, options.size, **how) for target in targets]
    for name in [translator.name for translator in found] if len(found) > 1 else []:
        if name in (".", "..") or not name.isprintable() or "/" in name or "\\" in name:  # names come from the weights
            raise CardError(f"{name!r} cannot be the name of a folder", "translate to it alone")
    if found[0].enlarges:
        console.note(f"translate: at {found[0].net_size} px, the size of training, enlarged to {found[0].size} px")
    return found


def _card(
    source: Path,
    out: Path,
    options: TranslateOptions,
    titles: list[str],
    translator: Translator,
    read: Reader,
    single: bool,
) -> dict[str, Any]:
    """Return the values of the run's card. `--recipe` is left out: a card never runs code."""
    faces = options.faces
    given: dict[str, Any] = {
        "source": source, "out": out, "to": ",".join(titles), "weights": options.weights, "size": options.size,
        "align": faces.align, "paste": faces.paste, "suffix": options.suffix, "margin": faces.margin,
        "faces": "all" if faces.every else None, "model_root": faces.model_root, "rotation": faces.rotation,
        "came_from": options.source_label, "labels": options.labels, "classifier": options.classifier,
        "mask": options.mask or None, **control_flags(translator.model, options.controls), "quality": options.quality,
        "keep_alpha": options.kept.alpha or None, "keep_exif": options.kept.exif or None,
        "keep_gps": options.kept.gps or None,
        "upscaler": None if options.upscaler == SHIPPED else options.upscaler,
        "detector": read.detector.name if isinstance(read, PhotoReader | TiltedReader) else None,
    }  # fmt: skip
    given = {key: str(value) if isinstance(value, Path) else value for key, value in given.items() if value is not None}
    inputs = translator.inputs(faces.paste) | ({"source": files.digest(source)} if single else {})
    return {"facekit": 1, "command": "translate", "options": given, "inputs": inputs}


def control_flags(model: checkpoint.Model, controls: dict[str, Any]) -> dict[str, Any]:
    """Return the controls as the card notes them: by the flags that they have, the rest as texts of `--control`."""
    values = read_controls(model.recipe.known_controls(), controls, model.card.recipe)
    flags = {name: values.pop(name) for name in FLAGS if name in values}
    return {**flags, "control": [f"{name}={value}" for name, value in values.items()] or None}


def sheet_path(out: Path, single: bool) -> Path:
    """Return where the contact sheet of an output folder, or of a single file, lies."""
    whole = files.real(out)
    return whole.with_name(f"{whole.stem if single else whole.name}-sheet.png")


def _translate_images(
    found: Sequence[Source],
    out: Path,
    values: dict[str, Any],
    work: Translation,
    titles: list[str],
    options: TranslateOptions,
) -> None:
    """Translate into a folder: on the processor whole images side by side, elsewhere in batches."""
    faces, device = options.faces, work.translators[0].device.type
    files_needed = (
        options.recipe,
        options.upscaler,
        options.labels,
        options.classifier,
        faces.model_root,
        faces.detector.partition(":")[2],
    )
    with options.engine.connected(options.device) as engine:
        if engine.remote:
            device = "cuda" if engine.gpus else "cpu"
            own = work.model.path if Path(options.weights).exists() else None
            engine = engine.seeing(options.weights, own, *files_needed)
        by_image, workers, batch = side_by_side(device, options)
        with share_threads(workers) if by_image and not engine.remote else contextlib.nullcontext():
            folder_map(
                "translate",
                found,
                out,
                values,
                work.read,
                work.together,
                names=work.names,
                tops=[f"{title}/" for title in titles] if len(titles) > 1 else [""],
                batch=batch,
                workers=engine.workers(options.workers, len(found)) if engine.remote else workers,
                apart=by_image,
                engine=engine,
                ready=work.open,
                made=partial(provenance.collect, "torch"),
                **options.run,
            )


def side_by_side(device: str, options: TranslateOptions) -> tuple[bool, int, int]:
    """Return whether whole images are translated side by side, by how many workers, and how many make a batch."""
    batch = options.batch or (1 if device == "cpu" else 32 if device.startswith("cuda") else 4)
    by_image = device == "cpu" and batch == 1  # faster than one image by all cores
    return by_image, options.workers or (min(usable_cores(), SIDE_BY_SIDE) if by_image else 2), batch


def _translate_file(
    source: Source,
    out: Path,
    values: dict[str, Any],
    work: Callable[[], list[Output] | Exception],
    options: TranslateOptions,
) -> None:
    """Translate one image to one file; its card is written beside it."""
    force = bool(options.run.get("force"))
    name = f"{out.name}.{card.NAME}"
    with lock.held_file(out, "translate"):
        if not force and claim.is_complete(out, values, name):
            console.note(f"translate: nothing to do, {out} is complete")
            return
        made = work()
        if isinstance(made, Exception):
            raise made
        (image,) = made
        claim.take(out.parent, values, name, force=True)
        files.put(out, image.data() if callable(image.data) else image.data)
        claim.finish(out.parent, values, provenance.collect("torch"), name)
        console.note(f"translate: {out}")
