"""safebooru.org, and any board of the engine Gelbooru 0.2 with `--address`: the interface `dapi`, XML or JSON.

It is read by `id:<N`, because the engine refuses deep pages. XML has more fields and is requested first; if that answer
cannot be parsed, the next try requests JSON, and so on in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urljoin
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from .board import Board, Query, malformed, parse_json
from .errors import FetchError
from .post import Post, checksum, ending, natural, number, text, words

# the engine's own ratings are safe, questionable and explicit, which newer boards write out and divide
RATINGS = {"g": "g", "s": "g", "q": "q", "e": "e", "general": "g", "safe": "g", "sensitive": "s"}
RATINGS |= {"questionable": "q", "explicit": "e"}
PAGE = 100  # posts; the engine allows 1000


class Safebooru(Board):
    """A board of the engine Gelbooru 0.2."""

    name, home, domain = "safebooru", "https://safebooru.org", "safebooru.org"

    def request(self, tags: Sequence[str], below: int | None, attempt: int) -> Query:
        """Request XML first, and JSON in every second try."""
        wanted = [*tags, *([f"id:<{below}"] if below else [])]
        params = {"page": "dapi", "s": "post", "q": "index", "limit": PAGE, "pid": 0, "tags": " ".join(wanted)}
        return Query(f"{self.address}/index.php", {**params, **({"json": 1} if attempt % 2 else {})})

    def parse(self, body: bytes) -> list[Post]:
        """Parse XML or JSON, whichever it is; an empty answer is an empty page."""
        start = body.lstrip()[:1]
        if not start:
            return []
        rows = _xml(body) if start == b"<" else _json(body)
        return [post for post in map(self.post, rows) if post]

    def post(self, row: Mapping[str, Any]) -> Post | None:
        """Return the post of a row; None for one without an id."""
        found = natural(row.get("id"))
        if not found:
            return None
        url = text(row.get("file_url")) or self._built(row)
        url = urljoin(f"{self.address}/", url) if url else ""
        return Post(
            id=str(found),
            url=url or None,
            page=f"{self.address}/index.php?page=post&s=view&id={found}",
            md5=checksum(row.get("md5") or row.get("hash")),
            kind=ending(url),
            width=natural(row.get("width")),
            height=natural(row.get("height")),
            rating=RATINGS.get(text(row.get("rating")).lower()),
            score=number(row.get("score")),
            tags=words(row.get("tags")),
            source=text(row.get("source")),
            created=_time(text(row.get("created_at"))),
        )

    def _built(self, row: Mapping[str, Any]) -> str:
        """Return the address of a file; older boards leave it out of their JSON."""
        folder, name = row.get("directory"), text(row.get("image"))
        folder = str(folder) if isinstance(folder, int) else text(folder)
        return f"{self.address}/images/{quote(folder, safe='')}/{quote(name, safe='')}" if folder and name else ""


def _xml(body: bytes) -> list[Mapping[str, Any]]:
    """Return the attributes of the posts; raises FetchError if it is not a list of posts."""
    try:
        root = fromstring(body.decode("utf-8"), forbid_dtd=True)
    except (ValueError, ParseError, DefusedXmlException, RecursionError) as error:
        raise malformed(body) from error
    if root.tag == "response":
        reason = text(root.get("reason")) or text(root.text)
        raise FetchError(f"the site says {reason[:200]!r}", stage="page", again=True)
    if root.tag != "posts":
        raise malformed(body)
    rows: list[Mapping[str, Any]] = [
        {**node.attrib, **{child.tag: child.text for child in node}} for node in root.iter("post")
    ]
    count = number(root.get("count"))
    if count and not rows:
        raise FetchError(f"the site counts {count} posts and lists none", stage="page", again=True)
    return rows


def _json(body: bytes) -> list[Mapping[str, Any]]:
    """Return the posts of a list, or of an object that holds it; raises FetchError for anything else."""
    found = parse_json(body)
    if isinstance(found, dict):
        if found.get("success") is False or "message" in found:
            reason = text(found.get("message") or found.get("reason"))
            raise FetchError(f"the site says {reason[:200]!r}", stage="page", again=True)
        found = found.get("post", [] if "@attributes" in found else None)
    if not isinstance(found, list):
        raise malformed(body)
    return [row for row in found if isinstance(row, dict)]


def _time(value: str) -> str | None:
    try:
        return datetime.strptime(value, "%a %b %d %H:%M:%S %z %Y").isoformat()
    except ValueError:
        return value or None


SITES = {Safebooru.name: Safebooru}
