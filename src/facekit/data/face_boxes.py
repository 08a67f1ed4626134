"""Pictures with labelled faces: `faces.jsonl` beside the pictures, or folders that `facekit align` has written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CardError, InputError
from ..runtime import console
from ..storage import card, content, files
from ..storage.folder import Folder, is_inside
from .dataset import Layout, shares, spread

NAME = "faces.jsonl"
KINDS = ("photo", "drawing")
CLEAR = 32.0  # px; the landmarks of smaller faces count less, by their size
SURE = 0.5  # the detector's score from which an aligned face is a label
BOX, POINTS, KIND, WEIGHT = slice(0, 4), slice(4, 14), 14, 15
COLUMNS = 16
"""A face as a row of numbers: box x0 y0 x1 y1, five points x y, kind (index of KINDS), weight (0: not to be judged)."""

Faces = dict[Path, np.ndarray]


def face_row(box: npt.ArrayLike, landmarks: npt.ArrayLike, kind: int, weight: float = 1.0) -> np.ndarray:
    """Return a face as a row of COLUMNS numbers, float32."""
    return np.array([*np.ravel(box), *np.ravel(landmarks), kind, weight], np.float32)


def read_faces(file: Path, key: str = "faces") -> Faces:
    """Return the faces of each picture that a `faces.jsonl` lists, as rows [n, COLUMNS] in px of the picture.

    A line is `{"file": NAME, "faces": [{"box": [x0, y0, x1, y1], "landmarks": [[x, y] x 5], "kind": "photo"}]}`, with
    `"unsure": true` for a face that counts neither as a face nor as none; without `faces` or with an empty list the
    picture shows no face. `key` may be "false": places that a detector took for faces, in the same form.
    Raises InputError with the line's number where a line is something else.
    """
    found: Faces = {}
    for number, line in enumerate(files.read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name = row["file"]
            if not is_inside(name):
                raise ValueError(f"{name!r} is outside the folder")
            rows = [_row(face) for face in row.get(key, [])]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{file}, line {number}: {error!r}",
                'lines are {"file": ..., "faces": [{"box": [4], "landmarks": [[2] x 5], "kind": ...}]}',
            ) from error
        found[file.parent / name] = np.stack(rows) if rows else np.empty((0, COLUMNS), np.float32)
    return found


def _row(face: dict[str, Any]) -> np.ndarray:
    box, points = np.array(face["box"], np.float64), np.array(face["landmarks"], np.float64)
    if box.shape != (4,) or points.shape != (5, 2) or not np.isfinite(box).all() or not np.isfinite(points).all():
        raise ValueError("a box has 4 numbers, landmarks are 5 pairs")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"the box {box.tolist()} is empty; it is x0, y0, x1, y1")
    return face_row(box, points, KINDS.index(face.get("kind", "photo")), 0.0 if face.get("unsure") else 1.0)


def read_aligned(folder: Path) -> Faces:
    """Return the faces that `facekit align` found, as rows [n, COLUMNS] in px of the pictures that it cut them from.

    A face whose crop was deleted from the folder, or that scored less than SURE, is not judged.
    """
    source = Path(card.load(folder / card.NAME)["options"]["source"])
    rows: dict[Path, list[np.ndarray]] = {}
    for name, entry in Folder(folder).entries.items():
        if not {"source", "box", "landmarks"} <= entry.keys() or not is_inside(entry["source"]):
            continue
        picture = source if content.is_file(source) else source / entry["source"]
        kept = content.is_file(folder / name) and entry.get("score", 1.0) >= SURE
        kind = KINDS.index(entry.get("kind", "photo"))
        rows.setdefault(picture, []).append(face_row(entry["box"], entry["landmarks"], kind, float(kept)))
    return {path: np.stack(found) for path, found in rows.items()}


def find_faces(top: Path) -> Faces:
    """Return the faces of every `faces.jsonl` and every folder of `facekit align` in `top`.

    Pictures that are gone are left out, with a warning.
    """
    found: Faces = {}
    for file in sorted([*top.rglob(NAME), *top.rglob(card.NAME)]):
        if file.name == card.NAME and not Folder(file.parent).aligned:
            continue
        listed = read_faces(file) if file.name == NAME else read_aligned(file.parent)
        there = {path: rows for path, rows in listed.items() if content.is_file(path)}
        if len(there) < len(listed):
            console.warn(f"{file}: {len(listed) - len(there)} of its pictures are not there; left out")
        found |= there
    return found


def find_false(top: Path) -> Faces:
    """Return the places that every `faces.jsonl` in `top` lists as false: for pictures that have any."""
    found = {path: rows for file in sorted(top.rglob(NAME)) for path, rows in read_faces(file, "false").items()}
    return {path: rows for path, rows in found.items() if len(rows)}


def open_labels(data: card.Data) -> tuple[Layout, Faces]:
    """Find the pictures with labelled faces below `data.root`, or below its folders train/ and test/.

    Without test/ a share of the pictures is kept apart (`data.split`, a tenth each by default for validation and test).
    Raises CardError without a root, InputError without labels or faces.
    """
    if not data.root:
        raise CardError("no pictures with labelled faces", f"give --data ROOT, with aligned folders or {NAME}")
    root = Folder(data.root).path
    whole = not content.is_folder(root / "train")
    faces = find_faces(root if whole else root / "train")
    train = list(faces)[: data.limit]
    if not any(len(faces[path]) for path in train):
        raise InputError(
            f"no labelled face below {root}",
            f"give a folder of `facekit align PICTURES FACES --faces all`, or pictures with a {NAME}",
        )
    if whole:
        train, val, test = shares(train, data.split or (8, 1, 1))
    else:
        held = find_faces(root / "test") if content.is_folder(root / "test") else {}
        faces, test = faces | held, list(held)
        val = test
    previews = spread([path for path in val if len(faces[path])] or train, data.holdout or 16)
    count = [sum(int((faces[path][:, KIND] == kind).sum()) for path in train) for kind in range(len(KINDS))]
    console.note(
        f"{len(train)} pictures with {count[0]} faces in photos and {count[1]} in drawings, "
        f"{sum(not len(faces[path]) for path in train)} pictures without a face; {len(test)} for the test"
    )
    console.fact("data", root=str(root), train=len(train), test=len(test), photos=count[0], drawings=count[1])
    return Layout({"a": train}, {"a": previews}, {"a": "picture", "b": "faces"}, {"a": test}), faces
