"""What a crawl would fetch, and how big that is, without fetching it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .base import Source
from .errors import Fault
from .http_client import Polite
from .post import Post

SAMPLES = 5  # files whose size is asked for


@dataclass(frozen=True)
class Size:
    """Bytes of all files together, and of how many files the size was told; the rest is estimated."""

    bytes: int | None
    told: int
    count: int

    def __str__(self) -> str:
        if self.bytes is None:
            return "of unknown size"
        megabytes = f"{self.bytes / 1e6:,.2f} MB"
        return megabytes if self.told == self.count else f"about {megabytes} (from the size of {self.told} of them)"


def size_of(source: Source, polite: Polite, posts: Sequence[Post]) -> Size:
    """Add up the sizes that the site tells; if it tells none, ask for a few, spread evenly, and go by the pixels."""
    sizes = {post.id: post.bytes for post in posts if post.bytes}
    if not sizes and source.remote:
        for post in posts[:: -(-len(posts) // SAMPLES) or 1]:
            try:
                found = polite.size(str(post.url))
            except Fault:
                continue
            if found:
                sizes[post.id] = found
    known = [post for post in posts if post.id in sizes]
    if not known:
        return Size(0 if not posts else None, 0, len(posts))
    total = sum(sizes.values())
    rest = [post for post in posts if post.id not in sizes]
    if all(post.width and post.height for post in posts):
        share = total / sum(_pixels(post) for post in known)
        total += round(share * sum(_pixels(post) for post in rest))
    else:
        total += round(total / len(known) * len(rest))
    return Size(total, len(known), len(posts))


def _pixels(post: Post) -> int:
    return (post.width or 0) * (post.height or 0)
