"""safebooru.org, and any board of the engine Gelbooru 0.2 with `--address`: the interface `dapi`, XML or JSON.

Walked by `id:<N`, because the engine refuses deep pages. It is asked for XML, which tells more; an answer that cannot
be read is asked for again as JSON, and so on in turn.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urljoin

from .base import Ask, Board, malformed, parse_json
from .errors import Fault
from .post import Post, checksum, ending, natural, number, text, words

# the engine's own ratings are safe, questionable and explicit, which newer boards write out and divide
RATINGS = {"g": "g", "s": "g", "q": "q", "e": "e", "general": "g", "safe": "g", "sensitive": "s"}
RATINGS |= {"questionable": "q", "explicit": "e"}
PAGE = 100  # posts; the engine allows 1000


class Safebooru(Board):
    """A board of the engine Gelbooru 0.2."""

    name, home, domain = "safebooru", "https://safebooru.org", "safebooru.org"

    def ask(self, tags: Sequence[str], below: int | None, attempt: int) -> Ask:
        """Ask for XML and, where that fails, JSON."""
        wanted = [*tags, *([f"id:<{below}"] if below else [])]
        params = {"page": "dapi", "s": "post", "q": "index", "limit": PAGE, "pid": 0, "tags": " ".join(wanted)}
        return Ask(f"{self.address}/index.php", {**params, **({"json": 1} if attempt % 2 else {})})

    def read(self, body: bytes) -> list[Post]:
        """Read XML or JSON, whichever it is; an empty answer is an empty page."""
        start = body.lstrip()[:1]
        if not start:
            return []
        rows = _xml(body) if start == b"<" else _json(body)
        return [post for post in map(self.post, rows) if post]

    def post(self, row: Mapping[str, Any]) -> Post | None:
        """Return the post of a row; None for one without a number."""
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
        """Return the address of a file that older boards leave out of their JSON."""
        folder, name = row.get("directory"), text(row.get("image"))
        folder = str(folder) if isinstance(folder, int) else text(folder)
        return f"{self.address}/images/{quote(folder, safe='')}/{quote(name, safe='')}" if folder and name else ""


def _xml(body: bytes) -> list[Mapping[str, Any]]:
    """Return the attributes of the posts; raises Fault for what is no list of posts."""
    try:
        document = body.decode("utf-8")
        if "<!" in document[:2000] or "<!ENTITY" in document:  # no board declares entities
            raise malformed(body)
        root = ET.fromstring(document)
    except (ValueError, ET.ParseError, RecursionError) as error:
        raise malformed(body) from error
    if root.tag == "response":
        reason = text(root.get("reason")) or text(root.text)
        raise Fault(f"it says {reason[:200]!r}", stage="page", again=True)
    if root.tag != "posts":
        raise malformed(body)
    rows: list[Mapping[str, Any]] = [
        {**node.attrib, **{child.tag: child.text for child in node}} for node in root.iter("post")
    ]
    count = number(root.get("count"))
    if count and not rows:
        raise Fault(f"it counts {count} posts and shows none", stage="page", again=True)
    return rows


def _json(body: bytes) -> list[Mapping[str, Any]]:
    """Return the posts of a list, or of an object that holds it; raises Fault for anything else."""
    found = parse_json(body)
    if isinstance(found, dict):
        if found.get("success") is False or "message" in found:
            reason = text(found.get("message") or found.get("reason"))
            raise Fault(f"it says {reason[:200]!r}", stage="page", again=True)
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
