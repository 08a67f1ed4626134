"""The check of a fetched file before it gets a name: the right bytes, an image by its content, decoded to the end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..storage import images
from .errors import Fault
from .filters import Filters
from .post import Post

MARKS = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF8", "gif"), (b"BM", "bmp"))
OTHERS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"FLV", "a video"),
    (b"CWS", "a Flash file"),
    (b"FWS", "a Flash file"),
    (b"Rar!", "an archive"),
    (b"%PDF", "a PDF"),
)


@dataclass(frozen=True)
class Proof:
    """What a file is, by its content."""

    md5: str
    bytes: int
    kind: str  # jpg, png, ...
    width: int  # px
    height: int


def prove(path: Path, post: Post, filters: Filters) -> Proof:
    """Check the file of a post; raises Fault where it is not what the post says, no image, or not wanted."""
    kind = kind_of(path)
    md5 = digest(path)
    if post.md5 and md5 != post.md5:
        raise Fault("its md5 is not the one that the site gives", stage="content", again=True)
    sure = bool(post.md5)  # then the same bytes would come again
    try:
        width, height = images.size_of(path)
        why = filters.refuse_size(width, height) or ("another file type" if kind not in filters.kinds else None)
        if why:
            raise Fault(f"{why}: {width} x {height} px, {kind}", stage="filter")
        images.read(path)
    except Fault:
        raise
    except InputError as error:
        enormous = "px, too many" in error.message
        message = error.message.replace(str(path), "it")
        raise Fault(message, stage="content", again=not (sure or enormous)) from error
    return Proof(md5, path.stat().st_size, kind, width, height)


def digest(path: Path) -> str:
    """Return a file's md5, which is what boards know their files by."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def kind_of(path: Path) -> str:
    """Return the kind of an image from its first bytes; raises Fault that names what else it is."""
    with open(path, "rb") as file:
        start = file.read(512)
    for mark, kind in MARKS:
        if start.startswith(mark):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    for mark, name in OTHERS:
        if start.startswith(mark):
            raise Fault(f"it is {name}, not an image", stage="content")
    if start[4:8] == b"ftyp":
        raise Fault("it is a video, not an image", stage="content")
    lower = start.lstrip().lower()
    if lower.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        raise Fault("a page of HTML or XML came instead of an image", stage="content", again=True)
    if lower.startswith((b"{", b"[")):
        raise Fault("JSON came instead of an image", stage="content", again=True)
    raise Fault("it is not an image" if start else "it is empty", stage="content", again=True)
