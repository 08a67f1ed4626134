"""Packages that only some commands need, and how to install them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import MissingError


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import packages of an extra inside; raises MissingError with the line that installs them where one is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "a package").partition(".")[0]
        if name == "facekit":
            raise
        raise MissingError(
            f"this needs {name}, which is not installed", f"pip install 'facekit-anime[{extra}]'"
        ) from error
