"""PyAV, imported when it is needed."""

from __future__ import annotations

from typing import Any

from ..runtime.optional import needs

FILMS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".3gp",
    ".ts",
    ".mts",
    ".m2ts",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
)


def load() -> Any:
    """Return the module `av`; raises MissingError where PyAV is not installed."""
    with needs("video"):
        import av
    av.logging.set_level(None)  # what matters is raised
    return av
