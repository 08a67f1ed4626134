"""The two domains of a training set: trainA/ trainB/, a/ b/, or two folders."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CardError, InputError
from ..runtime import console
from ..storage import card, content, files
from ..storage.folder import Folder
from ..storage.headers import read_sizes
from ..storage.listing import sub_folders
from .own_outputs import training_images

Item = TypeVar("Item")
PAIRS = (("trainA", "trainB"), ("a", "b"))
HELD_OUT = (("valA", "valB"), ("testA", "testB"))


@dataclass(frozen=True)
class Layout:
    """The images of each domain: for training, for previews and for scores (`test`), and the domains' names.

    `readers` turn files into samples where these are more than an image; `params` are values of the recipe that follow
    from the data.
    """

    train: dict[str, list[Path]]
    previews: dict[str, list[Path]]
    names: dict[str, str]
    test: dict[str, list[Path]] = field(default_factory=dict)
    readers: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Folders:
    """Each domain's folder for training, for previews and for scores, and the domains' names."""

    train: dict[str, Path]
    names: dict[str, str]
    previews: dict[str, Path] = field(default_factory=dict)
    test: dict[str, Path] = field(default_factory=dict)


def find_folders(data: card.Data) -> Folders:
    """Find each domain's folder, and those of held-out images if there are any.

    Raises CardError where the card names no data, or labels, and InputError where the folders are not there.
    """
    if data.labels:
        raise CardError("a method for two domains does not use labels", "leave out --labels, or use stargan")
    if data.a and data.b:
        a, b = Path(data.a), Path(data.b)
        same = files.real(a).name == files.real(b).name
        names = {"a": "a", "b": "b"} if same else {"a": files.real(a).name, "b": files.real(b).name}
        return Folders({"a": a, "b": b}, names)
    if data.a or data.b:
        raise CardError("only one of the two domains has a folder", "give --a DIR and --b DIR, or --data ROOT")
    if not data.root:
        raise CardError("no training data", "give --data ROOT (with trainA/ trainB/, or a/ b/), or --a DIR --b DIR")
    root = Folder(data.root).path
    for a_name, b_name in PAIRS:
        if content.is_folder(root / a_name) and content.is_folder(root / b_name):
            found = [(root / x, root / y) for x, y in HELD_OUT]
            pairs = [{"a": x, "b": y} for x, y in found if content.is_folder(x) and content.is_folder(y)]
            previews, test = (pairs[0], pairs[-1]) if pairs else ({}, {})
            return Folders({"a": root / a_name, "b": root / b_name}, {"a": "a", "b": "b"}, previews, test)
    has = ", ".join(sub_folders(root)) or "no folders"
    raise InputError(
        f"{root} has neither trainA/ trainB/ nor a/ b/ (it has {has})", "name the two folders: --a DIR --b DIR"
    )


def open_layout(data: card.Data) -> Layout:
    """List the images of both domains and say in one line what was found (counts, sizes, what was skipped).

    Preview images, kept out of training, come from valA/ valB/ (or testA/ testB/) if they exist, else from the
    shares that `data.split` says, else evenly from the training images: `data.holdout` of them. Scores are taken on
    testA/ testB/ (or valA/ valB/), the test share, or the images of the previews. Raises InputError where a domain has
    no readable image.
    """
    folders = find_folders(data)
    names = folders.names
    train, previews, test, lines = {}, {}, {}, []
    for domain, path in folders.train.items():
        usable, line = usable_images(Folder(path), data.limit)
        lines.append(f"{names[domain]}: {line}")
        if folders.previews:
            seen = usable_images(Folder(folders.previews[domain]), None)[0]
            previews[domain] = spread(seen, data.holdout or 16)
            test[domain] = (
                seen if folders.test == folders.previews else usable_images(Folder(folders.test[domain]), None)[0]
            )
        elif data.split:
            usable, seen, test[domain] = shares(usable, data.split)
            previews[domain] = spread(seen, data.holdout or 16)
        else:
            count = data.holdout if data.holdout is not None else min(16, len(usable) // 16)
            previews[domain] = spread(usable, min(count, len(usable) - 1))
            usable = without(usable, previews[domain])
            if not previews[domain]:
                previews[domain] = usable[:4]  # nothing kept out: the preview shows training images
            test[domain] = previews[domain]
        train[domain] = usable
    console.note("; ".join(lines) + f"; previews of {len(previews['a'])} + {len(previews['b'])}")
    found = {d: {"folder": str(folders.train[d]), "images": len(train[d]), "held_out": len(previews[d])} for d in train}
    console.fact("data", **found)
    return Layout(train, previews, names, test)


def usable_images(folder: Folder, limit: int | None) -> tuple[list[Path], str]:
    """Return the images whose header can be read, and a line about them."""
    sources = training_images(folder)[:limit]
    found, errors = read_sizes(folder.path, sources)
    for error in errors.values():
        console.warn(f"{error.message}; skipped")
    usable = [source.path for index, source in enumerate(sources) if index not in errors]
    if not usable:
        raise InputError(f"no readable image in {folder.path}", "check the files")
    edges = found.min(1)[found[:, 0] > 0]
    least, most = int(edges.min()), int(edges.max())
    notes = [f"{n} unreadable" for n in [len(errors)] if n] + [f"{n} other files" for n in [folder.listing.others] if n]
    edge = f"{least} px" if least == most else f"{least}-{most} px"
    return usable, f"{len(usable)} images of {edge}" + (f" (skipped {', '.join(notes)})" if notes else "")


def aligned_size(data: card.Data) -> int | None:
    """Return the size in px that `facekit align` cut the faces of the training folders at; None where it did not."""
    roots = [Path(data.root) / name for pair in PAIRS for name in pair] if data.root else []
    found = []
    for folder in [*roots, *(Path(name) for name in (data.root, data.a, data.b) if name)]:
        with contextlib.suppress(CardError):
            values = card.load(folder / card.NAME)
            size = values.get("options", {}).get("size") if values.get("command") == "align" else None
            found += [size] if isinstance(size, int) else []
    return max(found, default=None)


def shares(paths: Sequence[Path], split: tuple[int, int, int]) -> tuple[list[Path], list[Path], list[Path]]:
    """Deal files into three shares by a digest of their names, so that no share follows the order of a series."""
    if len(paths) < 3:
        raise InputError(f"{len(paths)} images cannot be split in three", "leave out data.split, or add images")
    dealt = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path.name)).digest())
    first = max(1, len(dealt) * split[1] // sum(split))
    second = first + max(1, len(dealt) * split[2] // sum(split))
    return sorted(dealt[second:]), sorted(dealt[:first]), sorted(dealt[first:second])


def without(paths: Sequence[Item], others: Iterable[Item]) -> list[Item]:
    """Return the items that are none of `others`, in their order."""
    gone = set(others)
    return [path for path in paths if path not in gone]


def spread(paths: Sequence[Item], count: int) -> list[Item]:
    """Return `count` items evenly spaced over the list."""
    if count <= 0:
        return []
    step = max(len(paths) / count, 1)
    return [paths[int(i * step)] for i in range(min(count, len(paths)))]
