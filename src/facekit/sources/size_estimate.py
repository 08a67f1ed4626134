"""How large the files of a crawl are together, without downloading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .base import Site
from .errors import FetchError
from .http_client import HttpClient
from .post import Post

SAMPLES = 5  # files whose size is requested


@dataclass(frozen=True)
class Size:
    """Bytes of all `count` files; `known` is the number of files whose size is known, the rest is estimated."""

    bytes: int | None
    known: int
    count: int

    def __str__(self) -> str:
        if self.bytes is None:
            return "of unknown size"
        megabytes = f"{self.bytes / 1e6:,.2f} MB"
        return megabytes if self.known == self.count else f"about {megabytes} (from the size of {self.known} of them)"


def size_of(site: Site, client: HttpClient, posts: Sequence[Post]) -> Size:
    """Add up the sizes on the site's list; if there are none, request a few and extrapolate by the number of pixels."""
    sizes = {post.id: post.bytes for post in posts if post.bytes}
    if not sizes and site.remote:
        for post in posts[:: -(-len(posts) // SAMPLES) or 1]:
            try:
                found = client.size(str(post.url))
            except FetchError:
                continue
            if found:
                sizes[post.id] = found
    measured = [post for post in posts if post.id in sizes]
    if not measured:
        return Size(0 if not posts else None, 0, len(posts))
    total = sum(sizes.values())
    rest = [post for post in posts if post.id not in sizes]
    if all(post.width and post.height for post in posts):
        share = total / sum(_pixels(post) for post in measured)
        total += round(share * sum(_pixels(post) for post in rest))
    else:
        total += round(total / len(measured) * len(rest))
    return Size(total, len(measured), len(posts))


def _pixels(post: Post) -> int:
    return (post.width or 0) * (post.height or 0)
