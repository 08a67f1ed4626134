"""Which images of a site are wanted: checked before the download, and again for the true size after it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import CardError
from .post import RATINGS, Post

KINDS = ("jpg", "png", "webp", "gif", "bmp")


@dataclass(frozen=True)
class Filters:
    """What an image must be. `ratings` None accepts any rating, and none."""

    ratings: tuple[str, ...] | None = ("g",)
    min_size: int = 1  # px, the shorter edge
    max_pixels: int = 100_000_000
    aspect: tuple[float, float] = (0.0, float("inf"))  # width / height
    kinds: tuple[str, ...] = ("jpg", "png", "webp")
    min_score: int | None = None
    want: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    max_bytes: int = 30_000_000

    def refuse(self, post: Post) -> str | None:
        """Return in two or three words why a post is skipped, or None for one that is wanted."""
        if self.ratings is not None and post.rating not in self.ratings:
            return "another rating" if post.rating else "no rating"
        if not post.url:
            return "no file address"
        if post.kind and post.kind not in self.kinds:  # without an ending, the content decides
            return "another file type"
        if self.min_score is not None and (post.score is None or post.score < self.min_score):
            return "low score"
        if not set(self.want) <= set(post.tags):
            return "without a wanted tag"
        if set(self.without) & set(post.tags):
            return "with an unwanted tag"
        if post.bytes and post.bytes > self.max_bytes:
            return "too large a file"
        return self.refuse_size(post.width, post.height) if post.width and post.height else None

    def refuse_size(self, width: int, height: int) -> str | None:
        """Return why an image of this size, in px, is skipped, or None."""
        if min(width, height) < self.min_size:
            return "too small"
        if width * height > self.max_pixels:
            return "too many pixels"
        return None if self.aspect[0] <= width / height <= self.aspect[1] else "another aspect"


def ratings(text: str) -> tuple[str, ...]:
    """Read `general,sensitive` or `g,s`; raises CardError for anything else."""
    out = []
    for word in filter(None, re.split(r"[,\s]+", text.lower())):
        letter = next((key for key, name in RATINGS.items() if word in (key, name)), None)
        if letter is None:
            raise CardError(
                f"--rating {word!r} is not one of {', '.join(RATINGS.values())}", "for example --rating general"
            )
        out.append(letter)
    if not out:
        raise CardError("--rating is empty", "for example --rating general")
    return tuple(sorted(set(out), key=list(RATINGS).index))


def kinds(text: str) -> tuple[str, ...]:
    """Read `jpg,png`; raises CardError for types that facekit does not read."""
    found = [word.lstrip(".").replace("jpeg", "jpg") for word in filter(None, re.split(r"[,\s]+", text.lower()))]
    for word in found:
        if word not in KINDS:
            raise CardError(f"--types {word!r} is not one of {', '.join(KINDS)}", "for example --types jpg,png")
    if not found:
        raise CardError("--types is empty", "for example --types jpg,png")
    return tuple(sorted(set(found)))


def aspect_of(text: str | None) -> tuple[float, float]:
    """Read `LOW:HIGH`, width over height; raises CardError for anything else."""
    if text is None:
        return 0.0, float("inf")
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high:
        raise CardError(f"--aspect {text!r} is not LOW:HIGH", "for example --aspect 0.5:2 (width over height)")
    return low, high
