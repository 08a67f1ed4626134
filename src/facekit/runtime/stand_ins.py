"""Folders of this machine that stand for a URL while a command writes there; people are told the URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

URLS: dict[str, str] = {}  # folder: what it stands for


def url_of(path: str | Path) -> str | None:
    """Return the URL that a path stands for; None for any other path."""
    text = os.fspath(path)
    for folder, url in URLS.items():
        if text.startswith(folder + os.sep):
            return f"{url}/{text[len(folder) + 1 :].replace(os.sep, '/')}"
    return None


def told(value: Any) -> Any:
    """Return what is told to people or written down: texts and paths with the URL, also in lists and mappings."""
    if not URLS:
        return value
    if isinstance(value, dict):
        return {key: told(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [told(one) for one in value]
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    for folder, url in URLS.items():
        text = text.replace(folder + os.sep, f"{url}/")
    return text
