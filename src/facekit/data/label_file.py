"""Which images carry which labels: a folder per label, or a file that says it of each image."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..errors import CardError, InputError
from ..runtime import console
from ..storage import card, files
from ..storage.folder import Folder
from ..storage.listing import SUFFIXES, composed, sub_folders
from .own_outputs import training_images

FILE_COLUMNS = ("file", "image", "filename", "image_id")
LABEL_COLUMNS = ("label", "labels")
VALUES = {"1": True, "true": True, "0": False, "-1": False, "false": False}
FORMATS = "a labels file is CSV with a header, JSON Lines, or CelebA's list_attr_celeba.txt: see docs/labels.md"

Row = tuple[int, str, tuple[str, ...]]  # line, file name as it is written, labels


@dataclass(frozen=True)
class Labels:
    """Images with what each is labelled; `test` holds those that the data itself keeps apart, if it does."""

    train: dict[Path, tuple[str, ...]]
    test: dict[Path, tuple[str, ...]] = field(default_factory=dict)


def read_labels(data: card.Data) -> Labels:
    """Find the labelled images of `data.root`: in a folder per label, or as the file `data.labels` says.

    Where the root has train/ and test/ (or val/), the folders per label are in these, and the images of test/ (else
    of val/) are kept apart. Images without a label are left out with a warning. Raises CardError where the
    card names no root, InputError where nothing is labelled, an image is labelled twice and differently, or the file
    cannot be understood.
    """
    if not data.root:
        hint = "--data ROOT: one folder per label in it, or images with --labels FILE"
        raise CardError("no labelled images" + (", but two domains" if data.a or data.b else ""), hint)
    folder = Folder(data.root)
    names = [source.name for source in training_images(folder) if not source.name.endswith("/")]
    train, test = _parts(_tops(folder, names, ""))
    found = _of_file(folder, names, Path(data.labels)) if data.labels else _of_folders(folder, names, train, test)
    for label in dict.fromkeys(label for has in found.values() for label in has):
        if "+" in label or "," in label:
            raise InputError(f"the label {label!r} of {data.root} has a + or a comma in it", "choose another name")
        if label in (".", "..") or "/" in label or "\\" in label:  # translations to it lie in a folder of its name
            raise InputError(
                f"the label {label!r} of {data.root} cannot be the name of a folder", "choose another name"
            )
    own, apart = ({folder.path / name: has for name, has in found.items() if _in(name, top)} for top in (train, test))
    outside = [name for name in names if not (_in(name, train) or _in(name, test))]
    _tell(outside, f"images of {folder.path} are neither in {train} nor in {test or 'a test/'}")
    if not any(own.values()):
        raise InputError(f"no image in {folder.path / train} has a label", FORMATS)
    return Labels(own, apart)


def _in(name: str, top: str | None) -> bool:
    return top is not None and name.startswith(top)


def _tops(folder: Folder, names: Sequence[str], prefix: str) -> list[str]:
    """Return the sub-folders below `prefix`, but those whose images are no data; `names` are those that are."""

    def with_images(of: Sequence[str]) -> set[str]:
        return {name[len(prefix) :].partition("/")[0] for name in of if name.startswith(prefix)}

    outputs = with_images(folder.names) - with_images(names)
    return [name for name in sub_folders(folder.path / prefix) if name not in outputs]


def _parts(tops: Sequence[str]) -> tuple[str, str | None]:
    """Return what the names of training and test images start with: train/ and test/ or val/, or all and none."""
    test = next((name for name in ("test", "val") if name in tops), None)
    if "train" in tops and (test or tops == ["train"]):
        return "train/", f"{test}/" if test else None
    return "", None


def _of_folders(folder: Folder, names: Sequence[str], train: str, test: str | None) -> dict[str, tuple[str, ...]]:
    """Return each image's label: the folder that it is in, below train/ and test/ if there are such."""
    tops = _tops(folder, names, train)
    hint = "make one folder per label, or name a labels file: --labels FILE"
    if {"trainA", "trainB"} <= set(tops):
        raise InputError(
            f"{folder.path} has two domains (trainA/ trainB/), no labels",
            "give a folder that has one folder per label, or name a labels file: --labels FILE",
        )
    if len(tops) < 2:
        has = ", ".join(tops) or "none"
        raise InputError(f"{folder.path / train} needs two folders of labels or more (it has {has})", hint)
    found: dict[str, tuple[str, ...]] = {}
    own: dict[str, tuple[str, ...]] = {}  # one tuple for all images of a label
    loose = []
    for name in names:
        top = train if name.startswith(train) else test
        if top is None or not name.startswith(top):
            continue
        label, slash, _ = name[len(top) :].partition("/")
        if slash:
            found[name] = own.setdefault(label, (label,))
        else:
            loose.append(name)
    _tell(loose, f"images of {folder.path} lie in no label's folder")
    full = {has[0] for name, has in found.items() if name.startswith(train)}
    _tell([label for label in tops if label not in full], f"folders in {folder.path / train} hold no images")
    if len(full) < 2:
        raise InputError(f"only {' '.join(full) or 'none'} of the folders in {folder.path / train} holds images", hint)
    return found


def _of_file(folder: Folder, names: Sequence[str], path: Path) -> dict[str, tuple[str, ...]]:
    """Return the labels of the images that a labels file names."""
    known = {composed(name): name for name in names} | {name: name for name in names}
    found: dict[str, tuple[str, ...]] = {}
    count, missing = 0, []
    for line, written, labels in read_rows(path):
        count += 1
        inside = _inside(written, f"{path}, line {line}")
        name = known.get(inside) or known.get(composed(inside)) or known.get(composed(inside.replace("\\", "/")))
        if name is None:
            missing.append(written)
        elif found.setdefault(name, labels) != labels:
            raise InputError(
                f"{path}, line {line}: {name} is labelled {_list(found[name])} before and {_list(labels)} here",
                "leave one of the two rows",
            )
    if not found:
        first = f" (the first: {missing[0]})" if missing else ""
        hint = "file names are relative to --data; the first column holds them, or one called file"
        raise InputError(f"none of the {count} rows of {path} names an image in {folder.path}{first}", hint)
    _tell(missing, f"rows of {path} name images that are not in {folder.path}")
    _tell([name for name in names if name not in found], f"images of {folder.path} have no row in {path}")
    return found


def _tell(names: Sequence[str], what: str) -> None:
    if names:
        console.warn(f"{len(names)} {what} (the first: {names[0]}); left out")


def _list(labels: Iterable[str]) -> str:
    return "|".join(labels) or "nothing"


def _inside(written: str, where: str) -> str:
    """Return a file name relative to the root in its plain form; raises InputError for one that leads outside."""
    name = PurePosixPath(written)
    if name.is_absolute() or PureWindowsPath(written).drive or ".." in name.parts:
        raise InputError(f"{where}: {written!r} is not below the root", "name files relative to --data")
    return name.as_posix()


def read_rows(path: Path) -> Iterator[Row]:
    """Read a labels file in whichever of the three formats it is: line, file name as written, labels.

    Raises InputError for a file that cannot be read or understood.
    """
    try:
        first = next((line.strip() for line in files.read_lines(path) if line.strip()), "")
        read = _json_lines if first.startswith("{") else _celeba if first.isdecimal() else _csv
        yield from read(path, files.read_lines(path))
    except OSError as error:
        raise InputError(f"cannot read the labels file {path}: {error.strerror}", "check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8", FORMATS) from error


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    """Read {"file": …, "label": "smile"} or {"file": …, "labels": ["smile", "young"]}; other keys do not matter."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}", "one object per line") from error
        file = row.get("file") if isinstance(row, dict) else None
        if not isinstance(file, str) or not file:
            raise InputError(f'{path}, line {number} has no "file"', 'write {"file": "1.png", "label": "smile"}')
        labels = row["labels"] if "labels" in row else [row.get("label")]
        if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
            hint = 'write "label": "smile", or "labels": ["smile", "young"]'
            raise InputError(f"{path}, line {number} has no label for {file}", hint)
        yield number, file, _unique(labels)


def _celeba(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    """Read CelebA's list: how many rows, the attributes' names, and rows of a file name and 1 or -1 for each."""
    count = sum(bool(line.strip()) for line in files.read_lines(path)) - 2
    rows = ((number, re.split(r"[ \t]+", line.strip())) for number, line in enumerate(lines, 1) if line.strip())
    announced = next(rows)[1][0]
    if int(announced) != count:
        raise InputError(
            f"{path} announces {announced} images in its first line and has {max(count, 0)} rows",
            "download it again: it is incomplete",
        )
    names = next(rows)[1]
    for number, (file, *values) in rows:
        yield number, file, _set(path, number, names, values)


def _csv(path: Path, lines: Iterator[str]) -> Iterator[Row]:
    """Read CSV with a header: a column of labels, several with | between them, or a column for each attribute."""
    lines = (line + "\n" for line in lines)  # a quoted cell may go on in the next line
    head = _up_to_text(lines)
    said = re.fullmatch(r'"?sep=(.)"?\s*', head[-1])  # Excel's word for the delimiter
    if said:
        head = [*head[:-1], "\n", *_up_to_text(lines)]
    heading = re.sub(r'"[^"]*"', "", head[-1])
    delimiter = said[1] if said else max(",;\t", key=heading.count)
    table = csv.reader(chain(head, lines), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows = _table_rows(path, table)
    header = next(rows, (0, []))[1]
    small = [name.lower() for name in header]
    if len(header) < 2:
        raise InputError(f"{path} is neither CSV nor JSON Lines nor CelebA's list", FORMATS)
    if small[0].endswith(SUFFIXES):
        raise InputError(f"{path} has no header", "its first line names the columns: file,label")
    at = next((small.index(name) for name in FILE_COLUMNS if name in small), 0)
    tag = next((small.index(name) for name in LABEL_COLUMNS if name in small), None)
    if tag == at:
        raise InputError(f"{path} has no column of file names", "call it file, or put it first")
    names = [name for index, name in enumerate(header) if index != at]
    if tag is None and (len(set(names)) < len(names) or "" in names):
        raise InputError(
            f"{path} has two columns of the same name, or one without a name", "give each attribute a name"
        )
    for number, row in rows:
        if len(row) != len(header):
            raise InputError(f"{path}, line {number} has {len(row)} columns of {len(header)}", "correct it")
        if not row[at]:
            raise InputError(f"{path}, line {number} names no file", "correct it")
        rest = [cell for index, cell in enumerate(row) if index != at]
        labels = _set(path, number, names, rest) if tag is None else _unique(row[tag].split("|"))
        yield number, row[at], labels


def _up_to_text(lines: Iterator[str]) -> list[str]:
    """Return the lines up to the first that is not blank."""
    head = []
    for line in lines:
        head.append(line)
        if line.strip():
            break
    return head or [""]


def _table_rows(path: Path, table: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, with their lines; raises InputError for what is not CSV."""
    try:
        for row in table:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield table.line_num, cells
    except csv.Error as error:
        raise InputError(f"{path}, line {table.line_num} is not CSV: {error}", FORMATS) from error


def _set(path: Path, number: int, names: Sequence[str], values: Sequence[str]) -> tuple[str, ...]:
    """Return the attributes whose value is 1 or true."""
    if len(values) != len(names):
        raise InputError(f"{path}, line {number} has {len(values)} values for {len(names)} attributes", "correct it")
    meaning = {value: VALUES.get(value.lower()) for value in set(values)}
    if None in meaning.values():
        name, value = next((n, v) for n, v in zip(names, values, strict=True) if meaning[v] is None)
        hint = "attributes are 1 or 0, 1 or -1, true or false; a column of names is called label"
        raise InputError(f"{path}, line {number}: {name} is {value!r}", hint)
    return tuple(name for name, value in zip(names, values, strict=True) if meaning[value])


def _unique(labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels without blanks around them, each once, none empty."""
    return tuple(dict.fromkeys(label.strip() for label in labels if label.strip()))
