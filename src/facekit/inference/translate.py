"""`facekit translate` without its flags: what the input is decides what is done with it."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ..errors import CardError, InputError, SomeFailed
from ..runtime import console
from ..runtime.stand_ins import url_of
from ..storage import content, files
from .translate_film import is_film, translate_film
from .translate_folder import sheet_path, translate_folder
from .translate_options import TranslateOptions
from .translation_sheet import rows_of_folder, write_sheet

PIPE = Path("-")  # standard input or output


def translate(source: Path, out: Path, options: TranslateOptions, dry_run: bool = False) -> Path:
    """Translate an image, a folder of images, or a moving picture; returns what is written.

    `-` as `source` or `out` is one image on standard input or output. Several weights, separated by commas, have a
    folder of `out` each. Raises CardError for options that do not fit the weights or each other, InputError for an
    input that cannot be read, SomeFailed where some images of a folder could not be translated.
    """
    weights = split_weights(options.weights)
    if options.engine.remote and (PIPE in (source, out) or content.is_file(source) or options.film.video):
        raise CardError("a cluster translates folders of images", "leave out --engine ray for one image or film")
    if PIPE in (source, out):
        if len(weights) > 1:
            raise CardError("one image cannot hold the work of several weights", "give a folder for the output")
        _translate_piped(source, out, options)
    elif len(weights) > 1:
        _translate_with_each(source, out, options, weights, dry_run)
    elif is_film(source, out, options.film):
        if url_of(out):
            raise CardError("films are written to a disk", "give a file or folder, and copy it when it is done")
        return translate_film(source, out, options, dry_run)
    else:
        translate_folder(source, out, options, dry_run)
    return out


def split_weights(text: str) -> list[str]:
    """Return the weights that `--weights` names: one, also if its name has a comma, or several."""
    if Path(text).exists():
        return [text]
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip())) or [text]


def _translate_piped(source: Path, out: Path, options: TranslateOptions) -> None:
    """Translate one image that comes from standard input or goes to standard output; no card is written.

    Raises CardError for options that need files, InputError where there is no image on standard input.
    """
    if options.sheet:
        raise CardError("a sheet needs a name", "leave out --sheet")
    if out == PIPE:
        if isinstance(console.current.get(), console.Json):
            raise CardError("standard output cannot hold the image and the events", "leave out --json, or give a file")
        if sys.stdout.isatty():
            raise CardError("an image would fill the terminal", "redirect it: facekit translate ... - > face.png")
    elif out.exists() and not options.run.get("force"):
        raise CardError(f"{out} already exists", "choose another name, or --force")
    elif out.is_dir() or not out.suffix:
        raise CardError("an image from standard input has no name", "give an image file as the output")
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "input", Path(folder) / f"output{out.suffix or f'.{options.suffix}'}"
        if source == PIPE:
            given.write_bytes(sys.stdin.buffer.read())
            if not given.stat().st_size:
                raise InputError("nothing came on standard input", "cat photo.jpg | facekit translate - face.png")
        else:
            if not content.is_file(source):
                raise InputError(f"no such file: {source}", "standard output takes one image")
            given = source
        try:
            translate_folder(given, made, replace(options, run={"force": True}))
        except InputError as error:
            raise InputError(error.message.replace(str(given), "standard input"), error.hint) from error
        if out == PIPE:
            sys.stdout.buffer.write(made.read_bytes())
            sys.stdout.buffer.flush()
        else:
            files.write_bytes(out, made.read_bytes())


def _translate_with_each(source: Path, out: Path, options: TranslateOptions, weights: list[str], dry_run: bool) -> None:
    """Translate with one weights after the other, each into its folder of `out`; the sheet shows them side by side.

    Raises CardError where `out` is a file; SomeFailed at the end where some images could not be translated.
    """
    if out.suffix and (out.is_file() or content.is_file(source)) and not out.is_dir():
        raise CardError("one file cannot hold the work of several weights", "give a folder for the output")
    names = names_of(weights)
    failed: SomeFailed | None = None
    for name, each in names.items():
        try:
            translate(source, out / name, replace(options, weights=each, sheet=False), dry_run)
        except SomeFailed as error:
            console.warn(error.message)
            failed = error
    if options.sheet and not dry_run:
        columns = {name: {row[0]: row[1] for row in rows_of_folder(source, out / name, [name])} for name in names}
        first = columns[next(iter(names))]
        rows = [[image, *(made[image] for made in columns.values() if image in made)] for image in first]
        if write_sheet(rows, sheet_path(out, False), list(names)):
            console.note(f"translate: contact sheet in {sheet_path(out, False)}")
    if failed:
        raise failed


def names_of(weights: list[str]) -> dict[str, str]:
    """Return a folder name for each of several weights: its run folder's or file's, numbered where two are equal."""
    paths = [Path(each.partition("#")[0].partition("?")[0]) for each in weights]  # a URL may say more behind its name
    stems = [file.stem if file.suffix == ".safetensors" else file.name for file in paths]
    counts, seen = Counter(stems), Counter[str]()
    names: dict[str, str] = {}
    for stem, each in zip(stems, weights, strict=True):
        seen[stem] += 1
        names[stem if counts[stem] == 1 else f"{stem}-{seen[stem]}"] = each
    return names
