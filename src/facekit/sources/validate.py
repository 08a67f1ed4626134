"""The check of a download before it gets a name: the right bytes, an image by its content, decoded to the end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..storage import images, signatures
from .errors import FetchError
from .filters import Filters
from .post import Post

MARKS = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF8", "gif"), (b"BM", "bmp"))
OTHERS = (
    (b"FLV", "a video"),
    (b"CWS", "a Flash file"),
    (b"FWS", "a Flash file"),
    (b"Rar!", "an archive"),
)
PICTURES = ("AVIF", "HEIC", "JPEG XL", "JPEG 2000", "TIFF")
WEB = ("a web page", "an XML file")  # what a site sends in the place of an image


@dataclass(frozen=True)
class ImageFacts:
    """What an image file is, by its content."""

    md5: str
    bytes: int
    kind: str  # jpg, png, ...
    width: int  # px
    height: int


def validate(path: Path, post: Post, filters: Filters) -> ImageFacts:
    """Check the file of a post; raises FetchError if it differs from the post, is not an image, or is filtered out."""
    kind = kind_of(path)
    md5 = digest(path)
    if post.md5 and md5 != post.md5:
        raise FetchError("the md5 differs from the one on the site", stage="content", again=True)
    final = bool(post.md5)  # a retry would bring the same bytes
    try:
        width, height = images.size_of(path)
        why = filters.refuse_size(width, height) or ("another file type" if kind not in filters.kinds else None)
        if why:
            raise FetchError(f"{why}: {width} x {height} px, {kind}", stage="filter")
        images.read(path)
    except FetchError:
        raise
    except InputError as error:
        enormous = "px, too many" in error.message
        message = error.message.replace(str(path), "the file")
        raise FetchError(message, stage="content", again=not (final or enormous)) from error
    return ImageFacts(md5, path.stat().st_size, kind, width, height)


def digest(path: Path) -> str:
    """Return a file's md5, which boards use as its identity."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def kind_of(path: Path) -> str:
    """Return the type of an image from its first bytes; raises FetchError that says what else it is."""
    with open(path, "rb") as file:
        start = file.read(512)
    for mark, kind in MARKS:
        if start.startswith(mark):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    for mark, name in OTHERS:
        if start.startswith(mark):
            raise FetchError(f"the file is {name}, not an image", stage="content")
    other = signatures.kind(start)
    if other in PICTURES:
        raise FetchError(f"the file is {other}, which crawl does not keep", "convert it to PNG", stage="content")
    if other and other.startswith(("a ", "an ")) and other not in WEB:
        raise FetchError(f"the file is {other}, not an image", stage="content")
    lower = start.lstrip().lower()
    if lower.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        raise FetchError("the server sent HTML or XML instead of an image", stage="content", again=True)
    if lower.startswith((b"{", b"[")):
        raise FetchError("the server sent JSON instead of an image", stage="content", again=True)
    raise FetchError("the file is not an image" if start else "the file is empty", stage="content", again=True)
