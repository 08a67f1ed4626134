"""Finding the images below a folder, by suffix or by content, without hidden files and system folders."""

from __future__ import annotations

import itertools
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..runtime.stand_ins import url_of
from . import signatures
from .remote import is_remote

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm")
NOTES = (".yaml", ".jsonl", ".html")  # files that facekit writes beside images
UNFINISHED = (".part", ".crdownload", ".download", ".tmp")
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r")
SYSTEM_FOLDERS = (
    *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "~snapshot"),  # of a NAS
    *("__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found"),
)


@dataclass(frozen=True)
class Listing:
    """The sorted names of the images below a folder, with forward slashes, and the number of other files.

    `unreadable` lists the sub-folders that cannot be read, each with a trailing slash.
    """

    names: list[str]
    others: int
    unreadable: list[str] = field(default_factory=list)


def list_images(folder: Path, without: Path | None = None) -> Listing:
    """List the images in a folder and its sub-folders, except in the folder `without`.

    A file is an image if its suffix is one of SUFFIXES, or if its first bytes are those of a picture. Links to folders
    are followed; each folder is listed once, so circular links do no harm. Hidden files, thumbnails of a NAS
    (`@eaDir`), resource forks (`__MACOSX`) and the like are skipped. Images in the shards of a packed folder (see
    `packed`) count as files of the folder itself. Behind a URL only the suffix decides.
    """
    from . import packed

    names, others = packed.below(folder), 0
    unreadable: list[str] = []
    far = is_remote(folder)
    for name, special in _remote_files(folder, without) if far else _files(folder, without, unreadable, bool(names)):
        ending = name.lower()
        if special:
            others += 1
        elif ending.endswith(SUFFIXES) or (
            not far and not ending.endswith((*NOTES, *UNFINISHED)) and _is_picture(folder / name)
        ):
            names.append(name)
        elif name.rpartition("/")[2] in (packed.CARD, packed.UNFINISHED):
            top = name[: name.rfind("/") + 1]
            pack = packed.packed_folder(folder / top)
            names += [top + inside for inside in pack.names] if pack else []
            others -= len(pack.tars) if pack else 0
        elif not ending.endswith((*NOTES, packed.INDEX)):
            others += 1
    names.sort()
    return Listing([name for name, _ in itertools.groupby(names)], others, sorted(unreadable))


def sub_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that may hold images, sorted."""
    from . import packed

    pack = packed.packed_folder(folder)
    inside = {name.partition("/")[0] for name in [*packed.below(folder), *(pack.names if pack else ())] if "/" in name}
    if is_remote(folder):
        inside |= {name.partition("/")[0] for name, _ in _remote_files(folder) if "/" in name}
    elif folder.is_dir():
        inside |= {path.name for path in folder.iterdir() if path.is_dir()}
    return sorted(name for name in inside if not _is_system_folder(name))


def composed(name: str) -> str:
    """Return a name in composed Unicode (NFC), for comparisons: macOS stores accents decomposed."""
    return unicodedata.normalize("NFC", name)


def _is_system_folder(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _is_picture(file: Path) -> bool:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # reading a pipe would never end
            return False
    except OSError:
        return False
    return signatures.kind_of(file) in signatures.PICTURES


def _remote_files(folder: Path, without: Path | None = None) -> Iterator[tuple[str, bool]]:
    """Yield the files below a URL as `_files` does."""
    from . import remote

    other = url_of(without) if without else None
    left_out = f"{other}/"[len(remote.address(folder)) + 1 :] if other and Path(other).is_relative_to(folder) else None
    for name in remote.find(folder):
        if left_out and name.startswith(left_out):
            continue
        *folders, last = name.split("/")
        system = any(map(_is_system_folder, folders)) or last.lower() in SYSTEM_FILES
        if not system and not last.startswith("."):
            yield name, False


def _files(
    folder: Path, without: Path | None, unreadable: list[str], may_miss: bool = False
) -> Iterator[tuple[str, bool]]:
    """Yield the relative name of each file below a folder, and whether it is a special file such as a pipe.

    Folders are visited before links to folders, and each only once. With `may_miss` the folder may be missing.
    """
    if may_miss and not folder.is_dir():
        return
    seen = {_identity(without)} if without and without.is_dir() else set()
    waiting, links = [""], list[str]()
    while waiting or links:
        here = waiting.pop() if waiting else links.pop()
        folders: list[os.DirEntry[str]] = []
        try:
            identity = _identity(folder / here)
            if identity in seen:
                continue
            seen.add(identity)
            for entry in os.scandir(folder / here):  # not as a list: a million entries are 250 MB
                if _is_folder(entry):
                    folders += [] if _is_system_folder(entry.name) else [entry]
                elif not entry.name.startswith(".") and entry.name.lower() not in SYSTEM_FILES:
                    yield here + entry.name, _is_special(entry)
        except OSError:
            unreadable.append(here)
        for entry in sorted(folders, key=lambda entry: entry.name, reverse=True):
            (links if entry.is_symlink() else waiting).append(f"{here}{entry.name}/")


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether a file is a pipe, a socket or a device, which must not be opened; a dangling link is not."""
    try:
        return not entry.is_file() and not entry.is_dir() and os.path.exists(entry.path)
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
