"""Where a training set's two domains lie: trainA/ trainB/, a/ b/, or two folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import card, images, report
from .errors import CardError, InputError
from .folder import Folder

PAIRS = (("trainA", "trainB"), ("a", "b"))
HELD_OUT = (("valA", "valB"), ("testA", "testB"))


@dataclass(frozen=True)
class Layout:
    """The training images and the held-out ones of each domain, and the domains' names."""

    train: dict[str, list[Path]]
    held: dict[str, list[Path]]
    names: dict[str, str]


def find_folders(data: card.Data) -> tuple[dict[str, Path], dict[str, Path], dict[str, str]]:
    """Find each domain's folder, the held-out folders if there are any, and the domains' names.

    Raises CardError where the card names no data and InputError where the folders are not there.
    """
    if data.a and data.b:
        a, b = Path(data.a), Path(data.b)
        same = a.resolve().name == b.resolve().name
        return {"a": a, "b": b}, {}, {"a": "a", "b": "b"} if same else {"a": a.resolve().name, "b": b.resolve().name}
    if data.a or data.b:
        raise CardError("only one of the two domains has a folder", "give --a DIR and --b DIR, or --data ROOT")
    if not data.root:
        raise CardError("no training data", "give --data ROOT (with trainA/ trainB/, or a/ b/), or --a DIR --b DIR")
    root = Folder(data.root).path
    for a_name, b_name in PAIRS:
        if (root / a_name).is_dir() and (root / b_name).is_dir():
            held = next(((x, y) for x, y in HELD_OUT if (root / x).is_dir() and (root / y).is_dir()), None)
            held_folders = {"a": root / held[0], "b": root / held[1]} if held else {}
            return {"a": root / a_name, "b": root / b_name}, held_folders, {"a": "a", "b": "b"}
    found = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())) or "no folders"
    raise InputError(
        f"{root} has neither trainA/ trainB/ nor a/ b/ (it has {found})", "name the two folders: --a DIR --b DIR"
    )


def open_layout(data: card.Data) -> Layout:
    """List the images of both domains and say in one line what was found (counts, sizes, what was skipped).

    Images kept out of training for previews come from valA/ valB/ (or testA/ testB/) if they exist, else evenly from
    the training images: `data.holdout` of them. Raises InputError where a domain has no readable image.
    """
    folders, held_folders, names = find_folders(data)
    train, held, lines = {}, {}, []
    for domain, path in folders.items():
        usable, line = _usable(Folder(path), data.limit)
        lines.append(f"{names[domain]}: {line}")
        if domain in held_folders:
            held[domain] = _spread(_usable(Folder(held_folders[domain]), None)[0], data.holdout or 16)
        else:
            count = data.holdout if data.holdout is not None else min(16, len(usable) // 16)
            held[domain] = _spread(usable, min(count, len(usable) - 1))
            usable = [p for p in usable if p not in set(held[domain])]
            if not held[domain]:
                held[domain] = usable[:4]  # nothing kept out: the preview shows training images
        train[domain] = usable
    report.note("; ".join(lines) + f"; previews of {len(held['a'])} + {len(held['b'])}")
    found = {d: {"folder": str(folders[d]), "images": len(train[d]), "held_out": len(held[d])} for d in train}
    report.fact("data", **found)
    return Layout(train, held, names)


def _usable(folder: Folder, limit: int | None) -> tuple[list[Path], str]:
    """Return the images whose header can be read, and a line about them."""
    sizes: Counter[int] = Counter()
    usable = []
    for source in folder.sources()[:limit]:
        try:
            sizes[min(images.size(source.path))] += 1
            usable.append(source.path)
        except InputError as error:
            report.warn(f"{error.message}; skipped")
    if not usable:
        raise InputError(f"no readable image in {folder.path}", "check the files")
    skipped = len(folder.names[:limit]) - len(usable)
    notes = [f"{n} unreadable" for n in [skipped] if n] + [f"{n} other files" for n in [folder.listing[1]] if n]
    spread = f"{min(sizes)} px" if len(sizes) == 1 else f"{min(sizes)}-{max(sizes)} px"
    return usable, f"{len(usable)} images of {spread}" + (f" (skipped {', '.join(notes)})" if notes else "")


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return `count` paths evenly spaced over the list."""
    if count <= 0:
        return []
    step = max(len(paths) / count, 1)
    return [paths[int(i * step)] for i in range(min(count, len(paths)))]
