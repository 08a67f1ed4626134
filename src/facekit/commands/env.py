"""`facekit env`: what a bug report needs to know about this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def env() -> dict[str, Any]:
    """Print versions, device, threads, models and cache folders, to paste into a bug report.

    No user name, host name or image name is printed; the home folder is shown as ~.
    """
    from ..faces import scrfd
    from ..recipe_api import checkpoint
    from ..runtime import console, environment
    from ..storage import settings
    from ..storage.cache import cache_folder

    models = {
        "shipped weights": ", ".join(checkpoint.shipped()) or "none",
        "insightface packs": ", ".join(scrfd.local_packs()) or f"none in {scrfd.ROOT}/models",
    }
    folders = {"package": Path(__file__).parents[1], "cache": cache_folder(), "settings": settings.settings_file()}
    read = settings.read()
    found: dict[str, dict[str, str]] = {
        "versions": environment.versions(),
        "machine": environment.machine(),
        "models": models,
        "settings": {
            "defaults set": ", ".join(f"{name}.{key}" for name, part in read.items() for key in part) or "none"
        },
        "folders": {name: _short(path) for name, path in folders.items()},
    }
    console.result(_as_text(found), **found)
    return found


def _short(path: Path) -> str:
    """Return a path with the home folder as ~, and whether it exists."""
    home = Path.home()
    shown = f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
    return shown if path.exists() else f"{shown} (not there yet)"


def _as_text(found: dict[str, dict[str, str]]) -> str:
    width = max(len(name) for section in found.values() for name in section)
    lines = [f"{name:{width}}  {value}" for section in found.values() for name, value in section.items()]
    return "\n".join(lines)
