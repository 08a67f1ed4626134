"""Where images come from: one file per site, and what downloads, checks and records their images.

A file of this package that has a table `SITES` (name -> class) adds its names to `facekit crawl`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from ..errors import CardError
from .base import Site

__all__ = ["Site", "find", "sites"]


def sites() -> dict[str, type[Site]]:
    """Return every site by name, from all files of this package."""
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {name: kind for module in modules for name, kind in getattr(module, "SITES", {}).items()}


def find(name: str) -> type[Site]:
    """Return the site of that name; raises CardError with the nearest name if there is none."""
    from ..storage import card

    known = sites()
    if name not in known:
        raise CardError(
            f"unknown site {name!r}{card.suggest(name, sorted(known))}", "see `facekit crawl --help` for the sites"
        )
    return known[name]
