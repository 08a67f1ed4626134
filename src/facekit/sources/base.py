"""What every source is, and how a board of pictures is walked: by ids, from the newest post down.

Page numbers fail on deep walks and shift when posts are added; ids do neither. Every page is asked for so that it must
begin with the last post of the page before: one that does not (empty, repeated, of other posts) is asked for again.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..errors import CardError, FacekitError, InputError
from .errors import Fault
from .filters import Filters
from .http_client import Polite
from .post import Post, text

PAGE_LIMIT = 16_000_000  # bytes of an answer of the interface
TWICE, MANY = 2, 4  # answers alike that make an end, and a page without the last post, credible


@dataclass
class Page:
    """Some posts, the id to go on below, and whether the walk has come to its end."""

    posts: list[Post]
    anchor: int | None = None
    end: bool = False


@dataclass
class Ask:
    """One request to a board's interface."""

    url: str
    params: dict[str, Any]
    auth: tuple[str, str] | None = None


@dataclass
class Source:
    """Where images come from. `address` is a board's, `given` the file or folder of a list, `out` the output folder.

    `total` is how many images there are, if that is known beforehand.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[str] = "tags"  # or "source"
    rated: ClassVar[bool] = True  # whether it gives ratings
    remote: ClassVar[bool] = True  # whether it is asked over the network

    address: str = ""
    given: str = ""
    out: str = ""
    total: int | None = None
    hosts: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    def open(self) -> None:
        """Read what the source needs to know before it is asked; sets `hosts`, `ports` and `total`."""

    def query(self, tags: Sequence[str], filters: Filters) -> list[str]:
        """Return the tags to ask for; raises CardError, with the reason, for those that cannot be."""
        return list(tags)

    def pages(self, polite: Polite, tags: Sequence[str], anchor: int | None) -> Iterator[Page]:
        """Yield what there is, page by page, below the id `anchor`."""
        raise NotImplementedError

    def fetch(self, polite: Polite, post: Post, path: Path, limit: int) -> None:
        """Write the file of a post, of at most `limit` bytes."""
        assert post.url
        polite.save(post.url, path, limit)


class Board(Source):
    """A board with tags, whose posts have numbers. A new one says where it is, how to ask, how to read."""

    home: ClassVar[str] = ""
    domain: ClassVar[str] = ""
    unpaged: ClassVar[tuple[str, ...]] = ("order", "sort")  # metatags that change the order

    def open(self) -> None:
        """Set the hosts: those of the site, or the one of `address`."""
        self.address = (self.address or self.home).rstrip("/")
        try:
            parts = urlsplit(self.address)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
            raise CardError("--address is not an http(s) address without a login", f"for example {self.home}")
        self.hosts = [host] if self.address != self.home else [self.domain]
        self.ports = [port] if port else []

    def query(self, tags: Sequence[str], filters: Filters) -> list[str]:
        for tag in tags:
            name = tag.lstrip("-~").partition(":")[0].lower() if ":" in tag else ""
            if name == "rating":
                raise CardError(f"{tag} among the tags", "give --rating instead (general, unless you say otherwise)")
            if name == "limit":
                raise CardError(f"{tag} among the tags", "give --limit instead")
            if name in self.unpaged:
                raise CardError(
                    f"{tag} changes the order of the posts, and {self.name} is walked by their ids, the newest first",
                    "leave it out; --min-score and --want choose among the posts",
                )
        return list(tags)

    def ask(self, tags: Sequence[str], below: int | None, attempt: int) -> Ask:
        """Return the request for the posts with ids below `below`, the highest first."""
        raise NotImplementedError

    def read(self, body: bytes) -> list[Post]:
        """Return the posts of an answer; raises Fault where it is none."""
        raise NotImplementedError

    def explain(self, fault: Fault) -> FacekitError:
        """Say what to do about a request that has failed for good."""
        hints = {
            401: "check the login",
            403: "the site refuses automatic visits, or this network: try later, or another site",
            404: "is this the address of the board? see --address",
            429: "wait some minutes, then run the same command again with a lower --rate: it goes on",
        }
        hint = hints.get(fault.status) or fault.hint or "run the same command again later: it goes on where it was"
        return InputError(f"{self.name} cannot be read: {fault.message}", hint)

    def pages(self, polite: Polite, tags: Sequence[str], anchor: int | None) -> Iterator[Page]:
        while True:
            try:
                posts = self._page(polite, tags, anchor)
            except Fault as fault:
                raise self.explain(fault) from fault
            fresh = sorted((p for p in posts if anchor is None or p.number < anchor), key=lambda p: -p.number)
            if not fresh:
                yield Page([], anchor, end=True)
                return
            anchor = fresh[-1].number
            yield Page(fresh, anchor)

    def _page(self, polite: Polite, tags: Sequence[str], anchor: int | None) -> list[Post]:
        """Return the posts from `anchor` down, each once; an odd answer is believed when it has come often."""
        odd: Counter[frozenset[str]] = Counter()

        def once(attempt: int) -> list[Post]:
            below = None if anchor is None else anchor + 1
            ask = self.ask(tags, below, attempt)
            posts = list({p.id: p for p in self.read(polite.get(ask.url, PAGE_LIMIT, ask.params, ask.auth))}.values())
            numbers = [post.number for post in posts]
            if anchor is not None and any(number > anchor for number in numbers):
                raise Fault("it repeats posts that were there before", stage="page", again=True)
            last = not numbers or numbers == [anchor]
            if last or (anchor is not None and anchor not in numbers):
                ids = frozenset(post.id for post in posts)
                odd[ids] += 1
                if odd[ids] < (TWICE if numbers == [anchor] else MANY):
                    raise Fault("a page is not what follows the one before", stage="page", again=True)
            return posts

        return polite.retry(once)


def parse_json(body: bytes) -> Any:
    """Return what a JSON answer holds; raises Fault for what is none, naming a page of HTML as such."""
    try:
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise malformed(body) from error


def malformed(body: bytes) -> Fault:
    """Return the Fault for an answer that cannot be read, with its first words."""
    start = body[:300].decode("utf-8", "replace")
    kind = "a page of HTML" if "<html" in start.lower() or "<!doctype" in start.lower() else repr(text(start)[:60])
    return Fault(f"the answer is malformed: {kind}", stage="page", again=True)


def batches(posts: Iterator[Post], size: int = 500) -> Iterator[Page]:
    """Yield the pages of a source that simply lists its posts."""
    while group := list(itertools.islice(posts, size)):
        yield Page(group)
    yield Page([], end=True)
