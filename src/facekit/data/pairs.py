"""Pairs of images: one file of each domain for one face, read, cropped and mirrored together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError
from ..runtime import console
from ..storage import card
from ..storage.listing import composed
from .dataset import Layout, find_folders, open_layout
from .reader import Reader, Sample


@dataclass(frozen=True)
class PairReader(Reader):
    """Reads an image and its partner as `a` and `b`: both are cropped and mirrored alike."""

    partners: Mapping[Path, Path] = field(default_factory=dict)

    def read(self, path: Path, size: int) -> Sample:
        """Decode both to squares of `size` px; raises InputError where either cannot be decoded."""
        return {**super().read(path, size), **Reader("b").read(self.partners[path], size)}


def by_name(a: Sequence[Path], b: Sequence[Path], a_folder: Path, b_folder: Path) -> dict[Path, Path]:
    """Return, for each file of a, the file of b with the same sub-folder and name (any file type), if there is one."""

    def key(path: Path, folder: Path) -> str:
        return composed(str(path.relative_to(folder).with_suffix("")))

    named = {key(path, b_folder): path for path in b}
    found = {path: named.get(key(path, a_folder)) for path in a}
    return {path: partner for path, partner in found.items() if partner}


def open_pairs(data: card.Data) -> Layout:
    """Find pairs of equal names in the folders of both domains; raises InputError where there are none."""
    layout, folders = open_layout(data), find_folders(data)
    a, b = layout.train["a"], layout.train["b"]
    partners = by_name(a, b, folders.train["a"], folders.train["b"])
    if not partners:
        raise InputError("no image has a partner of the same name", "give two images of one face the same name")
    console.note(f"{len(partners)} of {len(a)} images of {layout.names['a']} have a partner of the same name")
    return with_partners(layout, partners)


def with_partners(layout: Layout, partners: Mapping[Path, Path]) -> Layout:
    """Return a layout whose training images are those that have a partner, each read together with it."""
    train = {"a": [path for path in layout.train["a"] if path in partners]}
    return replace(layout, train=train, readers={"a": PairReader("a", partners)})
