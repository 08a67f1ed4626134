"""Folders of images: their contents, their manifest, and the names of outputs."""

from __future__ import annotations

import bisect
import contextlib
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, TypeVar, overload

from ..errors import CardError, FacekitError, InputError
from ..runtime import console
from ..runtime.stand_ins import url_of
from . import card, content
from .files import real
from .jsonl import read_lines
from .listing import SUFFIXES, Listing, list_images
from .remote import is_remote

T = TypeVar("T")
MANIFEST = "manifest.jsonl"
FAILED = "failed.jsonl"
PLAIN = re.compile(r"[^./\\:\0][^/\\:\0]*(/[^./\\:\0][^/\\:\0]*)*")  # a relative name that cannot mean anything else


@dataclass(frozen=True, slots=True)
class Source:
    """An image to read: a folder, and the image's name relative to it (forward slashes).

    A name that ends in a slash is a sub-folder that cannot be read; reading it fails like a broken image.
    """

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """Where the image lies; made anew each time, because a million paths take more memory than all else."""
        return self.folder / f"./{self.name}"  # pathlib interns the parts of a name: so those of a copy, which goes

    def read_bytes(self) -> bytes:
        """Return the file's content; raises OSError where it cannot be read."""
        return content.read_bytes(self.path)

    def stamp(self) -> dict[str, int]:
        """Return size and times of the file, which show whether it has changed; empty if the file is gone."""
        try:
            stat = content.stat(self.path)
        except OSError:
            return {}
        return {"source_bytes": stat.st_size, "source_mtime": stat.st_mtime_ns, "source_ctime": stat.st_ctime_ns}


class Sources(Sequence[Source]):
    """The images `names` of a folder. Each source is made when it is asked for: a million of them are 50 MB."""

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Source: ...

    @overload
    def __getitem__(self, index: slice) -> Sources: ...

    def __getitem__(self, index: int | slice) -> Source | Sources:
        if isinstance(index, slice):
            return Sources(self.folder, self.names[index])
        return Source(self.folder, self.names[index])


class Chosen(Sequence[T]):
    """Those of many items whose numbers are given; none is made before it is asked for."""

    def __init__(self, items: Sequence[T], numbers: Iterable[int]):
        self.items, self.numbers = items, array("q", numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Chosen[T]: ...

    def __getitem__(self, index: int | slice) -> T | Chosen[T]:
        if isinstance(index, slice):
            return Chosen(self.items, self.numbers[index])
        return self.items[self.numbers[index]]


class Folder:
    """A folder of images with its sub-folders and the entries of its `manifest.jsonl`, if it has one.

    The folder `without` is left out. Raises InputError if the folder is missing or cannot be read.
    """

    def __init__(self, path: str | Path, without: str | Path | None = None):
        self.path = Path(path)
        self.without = Path(without) if without else None
        if not self.path.exists() and not content.is_folder(self.path):
            raise InputError(f"no such file or folder: {self.path}", "check the path")
        if self.path.is_file():
            raise InputError(f"{self.path} is not a folder", "give a folder of images")

    @cached_property
    def listing(self) -> Listing:
        """The images in the folder and below, see `list_images`; a sub-folder that cannot be read is a warning."""
        listing = list_images(self.path, self.without)
        if "" in listing.unreadable:
            raise InputError(f"{self.path} cannot be read", "change its permissions")
        for name in listing.unreadable:
            console.warn(f"{self.path / name} cannot be read")
        return listing

    @property
    def names(self) -> list[str]:
        """The images' names relative to the folder, sorted."""
        return self.listing.names

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The manifest's entries by file name; the manifests of shards (`manifest.2-of-4.jsonl`) count as one.

        Lines that name no file, or a file outside the folder, are ignored with a warning.
        """
        entries, foreign = {}, 0
        for path in content.beside(self.path, "manifest*.jsonl"):
            for row in read_lines(path):
                if is_inside(row.get("file")):
                    entries[row["file"]] = row
                else:
                    foreign += 1
        if foreign:
            console.warn(f"{self.path / MANIFEST}: {foreign} lines do not name a file of this folder and are ignored")
        return entries

    @property
    def aligned(self) -> bool:
        """Whether the folder is the output of `facekit align`: its card says so."""
        with contextlib.suppress(FacekitError):
            return card.load(self.path / card.NAME).get("command") == "align"
        return False

    def sources(self) -> Sequence[Source]:
        """The images and unreadable sub-folders as sources; raises InputError if there are none."""
        listing = self.listing
        if not listing.names and not listing.unreadable:
            extra = f" ({listing.others} other files)" if listing.others else ""
            if content.beside(self.path, "*.tar"):
                raise InputError(
                    f"no images in {self.path}, but tar files without an index", f"facekit pack {self.path} writes it"
                )
            raise InputError(f"no images in {self.path}{extra}", f"images end in {' '.join(SUFFIXES)}")
        broken = listing.unreadable
        return Sources(self.path, sorted([*listing.names, *broken]) if broken else listing.names)


def is_inside(name: Any) -> bool:
    """Whether a relative name that was read from a file stays inside its folder."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    if PLAIN.fullmatch(name):
        return True
    path = PurePath(name)
    if is_remote(Path(name)):
        return False
    return bool(path.parts) and not (path.drive or path.root or ".." in path.parts)


def open_source(path: str | Path, out: str | Path | None = None) -> Sequence[Source]:
    """List the sources of a folder or of a single image file, without those in the output folder `out`.

    Raises InputError if there are none, CardError if `path` is `out`.
    """
    path = Path(path)
    if out and real(url_of(out) or out) == real(path):
        raise CardError(f"{path} is both input and output", "choose another output")
    if content.is_file(path):
        return [Source(path.parent, path.name)]
    folder = Folder(path, without=out)
    if not folder.names and not folder.listing.unreadable and out and Folder(path).names:
        raise InputError(f"no images in {path} outside the output {out}", "choose another input folder")
    return folder.sources()


def without(sources: Sequence[Source], path: Path) -> Sequence[Source]:
    """Leave out the image at `path`, which is free of links, such as the contact sheet of an earlier run."""
    there = {n for n, one in enumerate(sources) if one.name.endswith(path.name) and real(one.path) == path}
    return Chosen(sources, (n for n in range(len(sources)) if n not in there)) if there else sources


class OutputNames(Mapping[str, str]):
    """Output names by source. Kept are only those that do not follow from the source's name, which are `own`.

    In another process only these are listed, but all sources have a name.
    """

    def __init__(self, sources: Sequence[str], suffix: str, own: Mapping[str, str]):
        self.sources, self.suffix, self.own = sources, suffix, own

    def __getitem__(self, source: str) -> str:
        return self.own.get(source) or _stem(source)[0] + self.suffix

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputNames, (list(self.own), self.suffix, self.own)


def output_names(sources: Sequence[Source], suffix: str = ".png") -> OutputNames:
    """Return each source's output name: its own name with `suffix`. `a.jpg` and `a.png` become `a_jpg` and `a_png`."""
    import numpy as np  # which not every command needs

    names = [source.name for source in sources]
    hashes = array("q", (hash(_stem(name)[0]) for name in names))  # the stems would take 0.2 kB each
    np.asarray(hashes).sort()
    doubtful = {one for one, other in pairwise(hashes) if one == other}
    stems = Counter(stem for stem in (_stem(name)[0] for name in names if doubtful) if hash(stem) in doubtful)
    own = {}
    for name in names if stems else ():
        stem, old = _stem(name)
        if stems[stem] > 1:
            stem = f"{stem}_{old}"
            while _holds(hashes, hash(stem)):
                stem += "_"
            own[name] = stem + suffix
    return OutputNames(names, suffix, own)


def _holds(ordered: Sequence[int], value: int) -> bool:
    place = bisect.bisect_left(ordered, value)
    return place < len(ordered) and ordered[place] == value


def _stem(name: str) -> tuple[str, str]:
    stem, _, ending = name.rpartition(".")
    is_one = ending and "/" not in ending and stem.rpartition("/")[2].strip(".")
    return (stem, ending) if is_one else (name, "")
