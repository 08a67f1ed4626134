"""The cache folder, for downloads and for results that can be computed again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return $FACEKIT_CACHE if it is set, else facekit's folder in the user's cache; the folder may not exist yet."""
    own = os.environ.get("FACEKIT_CACHE")
    return Path(own).expanduser() if own else platformdirs.user_cache_path("facekit", appauthor=False)
