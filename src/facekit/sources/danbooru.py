"""danbooru.donmai.us, and its general-audience view safebooru.donmai.us: `posts.json`, read by `page=b<id>`.

A login from FACEKIT_DANBOORU_LOGIN and FACEKIT_DANBOORU_KEY, if both are set, is sent only to the interface.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import CardError, FacekitError
from .board import Board, Query, malformed, parse_json
from .errors import FetchError
from .filters import Filters
from .post import RATINGS, Post, checksum, ending, natural, number, text, words

PAGE = 200  # posts, the most that are given
TAGS = 2  # that anybody may search for
FREE = "status rating limit is id date age filesize filetype parent child md5 width height duration mpixels ratio score"
FREE += " upvotes downvotes favcount embedded tagcount pixiv_id pixiv"  # metatags that do not count
FIELDS = "id,created_at,md5,rating,image_width,image_height,file_ext,file_size,file_url,tag_string,tag_string_artist,"
FIELDS += "score,source"
LIMIT = (
    f"Danbooru searches for {TAGS} tags at most (more with a paid account); excluded tags and order: count, metatags "
    "such as id:, date:, age:, filesize:, width:, height:, ratio:, score: and favcount: do not"
)
NARROW = "keep the two rarest tags, and narrow with --want TAG and --without TAG, which do not count"


class Danbooru(Board):
    """A board of the engine Danbooru."""

    name, home, domain = "danbooru", "https://danbooru.donmai.us", "donmai.us"
    unpaged = ("order", "sort", "ordfav", "ordfavgroup", "ordpool", "random", "md5")

    @property
    def login(self) -> tuple[str, str] | None:
        """The login from the environment."""
        found = os.environ.get("FACEKIT_DANBOORU_LOGIN", ""), os.environ.get("FACEKIT_DANBOORU_KEY", "")
        return found if all(found) else None

    def query(self, tags: Sequence[str], filters: Filters) -> list[str]:
        """Add the filters as metatags, which do not count; raises CardError for more tags than the site allows."""
        counted = [tag for tag in super().query(tags, filters) if not is_free(tag)]
        if len(counted) > TAGS and not self.login:
            raise CardError(f"{len(counted)} tags ({' '.join(counted)}): {LIMIT}", NARROW)
        if any(tag.lower().startswith("id:") and "," in tag for tag in tags):
            raise CardError(
                "facekit cannot search for a list of ids", "facekit crawl urls downloads a list of addresses"
            )
        free = [f"rating:{','.join(filters.ratings)}"] if filters.ratings else []
        free += [f"filetype:{','.join(filters.kinds)}"]
        free += [f"score:>={filters.min_score}"] if filters.min_score is not None else []
        return [*tags, *free]

    def request(self, tags: Sequence[str], below: int | None, attempt: int) -> Query:
        """Request a page of posts, with only the fields that are used."""
        params = {"tags": " ".join(tags), "limit": PAGE, "only": FIELDS}
        return Query(f"{self.address}/posts.json", {**params, **({"page": f"b{below}"} if below else {})}, self.login)

    def parse(self, body: bytes) -> list[Post]:
        """Parse a list of posts."""
        found = parse_json(body)
        if isinstance(found, dict) and found.get("success") is False:
            raise FetchError(f"the site says {text(found.get('message'))[:200]!r}", stage="page", again=True)
        if not isinstance(found, list):
            raise malformed(body)
        return [post for post in map(self.post, found) if post]

    def post(self, row: Mapping[str, Any]) -> Post | None:
        """Return the post of a row, None for one without an id; hidden posts have neither md5 nor file."""
        found = natural(row.get("id")) if isinstance(row, dict) else None
        if not found:
            return None
        url = text(row.get("file_url"))
        rating = text(row.get("rating")).lower()
        return Post(
            id=str(found),
            url=url or None,
            page=f"{self.address}/posts/{found}",
            md5=checksum(row.get("md5")),
            kind=ending("/x." + text(row.get("file_ext"))) or ending(url),
            width=natural(row.get("image_width")),
            height=natural(row.get("image_height")),
            bytes=natural(row.get("file_size")),
            rating=rating if rating in RATINGS else None,
            score=number(row.get("score")),
            tags=words(row.get("tag_string")),
            artist=text(row.get("tag_string_artist")) or None,
            source=text(row.get("source")),
            created=text(row.get("created_at")) or None,
        )

    def explain(self, error: FetchError) -> FacekitError:
        """Explain the limits of this engine."""
        if error.status == 422:
            return CardError(f"{self.name} does not accept these tags. {LIMIT}", NARROW)
        if error.status == 410:
            return CardError(f"{self.name} does not show pages this deep", "narrow the search with further tags")
        if error.status == 500:
            error.hint = "the search may have timed out: try rarer tags, or the same command later"
        return super().explain(error)


def is_free(tag: str) -> bool:
    """Return whether a tag is a metatag that does not count."""
    name, colon, _ = tag.lstrip("-~").partition(":")
    return bool(colon) and name.lower() in FREE.split()


class SafeDanbooru(Danbooru):
    """Danbooru's general-audience view."""

    name, home = "safebooru.donmai.us", "https://safebooru.donmai.us"


SITES = {Danbooru.name: Danbooru, SafeDanbooru.name: SafeDanbooru}
