"""How a board of pictures is read: by ids, from the newest post down.

Page numbers fail on deep pages and shift when posts are added; ids do neither. Every request asks for a page that must
begin with the last post of the page before. A page that does not (empty, repeated, of other posts) is requested again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..errors import CardError, FacekitError, InputError
from .base import Page, Site
from .errors import FetchError
from .filters import Filters
from .http_client import HttpClient
from .post import Post, text

PAGE_LIMIT = 16_000_000  # bytes of an answer of the interface
TWICE, MANY = 2, 4  # equal answers after which an end, and a page without the last post, count


@dataclass
class Query:
    """One request to a board's interface."""

    url: str
    params: dict[str, Any]
    auth: tuple[str, str] | None = None


class Board(Site):
    """A board with tags, whose posts have numbers. A subclass defines its address, its queries and its parser."""

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
                raise CardError(f"{tag} among the tags", "use --rating instead (its default is general)")
            if name == "limit":
                raise CardError(f"{tag} among the tags", "use --limit instead")
            if name in self.unpaged:
                raise CardError(
                    f"{tag} changes the order of the posts, and facekit reads {self.name} by id, newest first",
                    "leave it out; --min-score and --want filter the posts",
                )
        return list(tags)

    def request(self, tags: Sequence[str], below: int | None, attempt: int) -> Query:
        """Return the request for the posts with ids below `below`, the highest first."""
        raise NotImplementedError

    def parse(self, body: bytes) -> list[Post]:
        """Return the posts of an answer; raises FetchError if it is not a list of posts."""
        raise NotImplementedError

    def explain(self, error: FetchError) -> FacekitError:
        """Return the error for a request that failed for good, with what to do about it."""
        hints = {
            401: "check the login",
            403: "the site refuses automatic visits, or this network: try later, or another site",
            404: "check --address: is it the address of the board?",
            429: "wait some minutes, then run the same command again with a lower --rate; it continues",
        }
        hint = (
            hints.get(error.status) or error.hint or "run the same command again later; it continues where it stopped"
        )
        return InputError(f"{self.name} cannot be read: {error.message}", hint)

    def pages(self, client: HttpClient, tags: Sequence[str], anchor: int | None) -> Iterator[Page]:
        while True:
            try:
                posts = self._page(client, tags, anchor)
            except FetchError as error:
                raise self.explain(error) from error
            fresh = sorted((p for p in posts if anchor is None or p.number < anchor), key=lambda p: -p.number)
            if not fresh:
                yield Page([], anchor, end=True)
                return
            anchor = fresh[-1].number
            yield Page(fresh, anchor)

    def _page(self, client: HttpClient, tags: Sequence[str], anchor: int | None) -> list[Post]:
        """Return the posts from `anchor` down, each once; an odd answer counts once it was repeated."""
        odd: Counter[frozenset[str]] = Counter()

        def once(attempt: int) -> list[Post]:
            below = None if anchor is None else anchor + 1
            query = self.request(tags, below, attempt)
            posts = list(
                {p.id: p for p in self.parse(client.get(query.url, PAGE_LIMIT, query.params, query.auth))}.values()
            )
            numbers = [post.number for post in posts]
            if anchor is not None and any(number > anchor for number in numbers):
                raise FetchError("the page repeats earlier posts", stage="page", again=True)
            last = not numbers or numbers == [anchor]
            if last or (anchor is not None and anchor not in numbers):
                ids = frozenset(post.id for post in posts)
                odd[ids] += 1
                if odd[ids] < (TWICE if numbers == [anchor] else MANY):
                    raise FetchError("the page does not follow the one before", stage="page", again=True)
            return posts

        return client.retry(once)


def parse_json(body: bytes) -> Any:
    """Return the content of a JSON answer; raises FetchError for anything else."""
    try:
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise malformed(body) from error


def malformed(body: bytes) -> FetchError:
    """Return the FetchError for an answer that cannot be parsed, with its first words."""
    start = body[:300].decode("utf-8", "replace")
    kind = "a page of HTML" if "<html" in start.lower() or "<!doctype" in start.lower() else repr(text(start)[:60])
    return FetchError(f"the answer is malformed: {kind}", stage="page", again=True)
