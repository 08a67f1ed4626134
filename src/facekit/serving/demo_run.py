"""One press of the demo's button: a photo and its controls in; faces, a result and its card out."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import CardError, InputError
from ..inference.face_input import FaceOptions, Rotation
from ..inference.translate_film import translate_film
from ..inference.translate_folder import control_flags
from ..inference.translate_options import FilmOptions, TranslateOptions
from ..reports.contact_sheet import contact_sheet
from ..runtime import console
from ..storage import files, images, yaml_text
from .request import TranslateRequest
from .studio import Answer, Studio

KEPT = 3600  # s that results stay for download
PREFIX = "result-"
FILM_SECONDS = 30  # of a film that are translated
CELL = 192  # px, of a grid of labels


@dataclass(frozen=True)
class Controls:
    """What the demo's controls say; see `TranslateRequest`."""

    weights: str
    to: tuple[str, ...]
    source: str | None = None
    weights_own: dict[str, Any] = field(default_factory=dict)
    """What the weights let people set, by name (`Recipe.controls`); what is left out is as it was learned."""
    every: bool = False
    paste: bool = True
    align: bool = True
    rotation: Rotation | None = None
    """Of a picture that is a face already, so without `align`."""


@dataclass
class Shown:
    """What the page shows: the result, (image, caption) pairs, a line of text, and two files to download."""

    result: Image.Image
    gallery: list[tuple[Image.Image, str]]
    columns: int  # of the gallery: a row for each face
    text: str
    result_file: Path = Path()
    card_file: Path = Path()


def run(studio: Studio, photo: Path, controls: Controls, folder: Path) -> Shown:
    """Translate a photo to every chosen label and write result and card into a new folder of `folder`.

    One label gives the photo with the faces pasted back, or else the faces; several give a grid, a row for each face.
    Raises CardError for controls that do not fit the weights, InputError for a photo that cannot be read or shows no
    face.
    """
    if not controls.to:
        raise CardError("nothing is chosen to translate to", "choose at least one")
    began = time.monotonic()
    picture = images.decode(photo.read_bytes(), "the photo")  # no path in messages
    paste = controls.paste and controls.align and len(controls.to) == 1
    answers = [studio.translate(picture, _request(controls, to, paste)) for to in controls.to]
    first = answers[0]
    gallery: list[tuple[Image.Image, str]] = []
    for place, face in enumerate(first.faces):
        number = f" {place + 1}" if len(first.faces) > 1 else ""
        gallery.append((face.before, f"face{number}"))
        gallery += [(answer.faces[place].after, f"{answer.to}{number}") for answer in answers]
    took = time.monotonic() - began
    faces = "1 face" if len(first.faces) == 1 else f"{len(first.faces)} faces"
    result = first.picture if paste else _grid(answers)
    shown = Shown(result, gallery, 1 + len(answers), f"{faces}, {took:.1f} s")
    _write(shown, studio, controls, paste, folder)
    return shown


def run_film(studio: Studio, film: Path, controls: Controls, folder: Path) -> tuple[Path, str]:
    """Translate the faces of a film, its first FILM_SECONDS; returns the new film and a line of text.

    Raises CardError for controls that do not fit the weights, InputError for a film that cannot be read, MissingError
    without PyAV.
    """
    if len(controls.to) != 1:
        raise CardError("a film is translated to one label", "choose one")
    began = time.monotonic()
    place = _new_place(folder)
    options = TranslateOptions(
        to=controls.to[0],
        source_label=controls.source,
        weights=studio.given[controls.weights],
        recipe=studio.recipe,
        controls=controls.weights_own,
        device=studio.device,
        faces=FaceOptions(every=controls.every, detector=studio.detector.name, model_root=studio.model_root),
        film=FilmOptions(end=str(FILM_SECONDS)),
    )
    out = place / f"{controls.to[0][:60]}.mp4"
    try:
        with console.silenced():
            translate_film(film, out, options)
    except InputError as error:
        raise InputError(error.message.replace(str(film), "the film"), error.hint) from error
    return out, f"{time.monotonic() - began:.0f} s"


def _request(controls: Controls, to: str, paste: bool) -> TranslateRequest:
    return TranslateRequest(
        weights=controls.weights,
        to=to,
        source=controls.source,
        controls=controls.weights_own,
        align=controls.align,
        rotation=controls.rotation,
        paste=paste,
        faces="all" if controls.every and controls.align else "largest",
    )


def _grid(answers: list[Answer]) -> Image.Image:
    """Return one translation as it is, several as a table: a row for each face, a column for each label."""
    if len(answers) == 1 and len(answers[0].faces) == 1:
        return answers[0].picture
    rows = [
        [face.before, *(answer.faces[place].after for answer in answers)] for place, face in enumerate(answers[0].faces)
    ]
    return contact_sheet(rows, ["face", *(answer.to for answer in answers)], size=CELL)


def _write(shown: Shown, studio: Studio, controls: Controls, paste: bool, folder: Path) -> None:
    """Write result and card; the card repeats this translation with `facekit translate --card`."""
    place = _new_place(folder)
    shown.result_file = place / f"{'-'.join(controls.to)[:60]}.png"
    shown.card_file = place / "card.yaml"
    images.save(shown.result, shown.result_file)
    model = studio.models[controls.weights]
    values: dict[str, Any] = {
        "to": ",".join(controls.to), "weights": studio.given[controls.weights], "from_": controls.source,
        **control_flags(model, controls.weights_own), "paste": paste or None, "align": controls.align,
        "rotation": controls.rotation,
        "faces": "all" if controls.every and paste else None, "detector": studio.detector.name,
    }  # fmt: skip
    options = {key: value for key, value in values.items() if value is not None}
    made = {"facekit": 1, "command": "translate", "options": options, "inputs": {"weights": files.digest(model.path)}}
    files.write_text(shown.card_file, yaml_text.dump(made))


def _new_place(folder: Path) -> Path:
    """Return a new folder for results; old ones are removed."""
    _forget(folder)
    place = folder / f"{PREFIX}{time.monotonic_ns():x}"
    place.mkdir(parents=True)
    return place


def _forget(folder: Path) -> None:
    """Remove results that are older than an hour."""
    for place in folder.glob(f"{PREFIX}*"):
        if time.time() - place.stat().st_mtime > KEPT:
            shutil.rmtree(place, ignore_errors=True)
