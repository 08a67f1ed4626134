"""What a site says about one image, cleaned of control characters and checked for its form."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

RATINGS = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
MAX_TEXT = 2000  # characters of a text from a site


@dataclass(frozen=True)
class Post:
    """One image of a site. `id` is ours or checked to be a number; the rest is what the site claims."""

    id: str
    url: str | None
    page: str
    md5: str | None = None
    kind: str = ""  # ending of the file's name, lower case, without the dot
    width: int | None = None  # px
    height: int | None = None
    bytes: int | None = None
    rating: str | None = None  # a key of RATINGS
    score: int | None = None
    tags: tuple[str, ...] = ()
    artist: str | None = None
    source: str = ""
    created: str | None = None
    label: str = ""  # the sub-folder that it goes to
    extra: dict[str, Any] = field(default_factory=dict, hash=False)  # more for the manifest

    @property
    def number(self) -> int:
        """The id by which a board orders its posts."""
        return int(self.id)

    def plain(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)

    @classmethod
    def load(cls, values: dict[str, Any]) -> Post:
        """Return the post that `plain` described."""
        return cls(**{**values, "tags": tuple(values["tags"])})


def number(value: Any) -> int | None:
    """Return a whole number of at most 18 digits, given as such or as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    text = str(value).strip() if isinstance(value, str) or abs(value) < 10**18 else ""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def natural(value: Any) -> int | None:
    """Return a number above zero, or None."""
    found = number(value)
    return found if found and found > 0 else None


def text(value: Any) -> str:
    """Return a text without control characters and of bounded length; empty for anything but text."""
    return CONTROL.sub(" ", value).strip()[:MAX_TEXT] if isinstance(value, str) else ""


def words(value: Any) -> tuple[str, ...]:
    """Return the tags of a text, each once."""
    clean = CONTROL.sub(" ", value) if isinstance(value, str) else ""
    return tuple(dict.fromkeys(tag[:200] for tag in clean.split()))


def checksum(value: Any) -> str | None:
    """Return an md5 as 32 small hexadecimal digits, or None."""
    found = value.strip().lower() if isinstance(value, str) else ""
    return found if re.fullmatch(r"[0-9a-f]{32}", found) else None


def ending(url: str | None) -> str:
    """Return the ending of the file in a URL: lower case, letters and digits only; empty where there is none."""
    try:
        name = urlsplit(url or "").path.rpartition("/")[2]
    except ValueError:
        return ""
    found = re.search(r"\.([a-z0-9]{1,5})$", name.lower())
    return found[1].replace("jpeg", "jpg") if found else ""
