"""What a site is: pages of posts, and a way to fetch the file of each post."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from .filters import Filters
from .http_client import HttpClient
from .post import Post


@dataclass
class Page:
    """Some posts, the id to continue below, and whether it is the last page."""

    posts: list[Post]
    anchor: int | None = None
    end: bool = False


@dataclass
class Site:
    """A site, list or folder that images come from.

    `address` is a board's address, `given` the file or folder of a list, `out` the output folder.
    `total` is the number of images, if it is known before the crawl.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[str] = "tags"  # or "source"
    rated: ClassVar[bool] = True  # whether its posts have ratings
    remote: ClassVar[bool] = True  # whether it is on the network

    address: str = ""
    given: str = ""
    out: str = ""
    total: int | None = None
    hosts: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    def open(self) -> None:
        """Prepare the site; sets `hosts`, `ports` and `total`."""

    def query(self, tags: Sequence[str], filters: Filters) -> list[str]:
        """Return the tags to search for; raises CardError for tags that the site cannot search for."""
        return list(tags)

    def pages(self, client: HttpClient, tags: Sequence[str], anchor: int | None) -> Iterator[Page]:
        """Yield the posts below the id `anchor`, page by page."""
        raise NotImplementedError

    def fetch(self, client: HttpClient, post: Post, path: Path, limit: int) -> None:
        """Download the file of a post, of at most `limit` bytes."""
        assert post.url
        client.save(post.url, path, limit)


def batches(posts: Iterator[Post], size: int = 500) -> Iterator[Page]:
    """Yield the posts of a list as pages."""
    while group := list(itertools.islice(posts, size)):
        yield Page(group)
    yield Page([], end=True)
