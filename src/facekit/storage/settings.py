"""The user's settings file: defaults for flags, of every command or of one."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from ..errors import CardError

ALL = "all"
SHARED = ("device", "detector", "model_root", "workers", "threads")  # what `all` may set
BY_CARD = ("train", "train-segnet", "ablate")  # a default here would override their cards
NEVER = ("card", "help", "json", "force", "dry_run")


def settings_file() -> Path:
    """Return $FACEKIT_SETTINGS, or else settings.yaml in the user's folder for settings; it may not exist."""
    own = os.environ.get("FACEKIT_SETTINGS")
    return (
        Path(own).expanduser() if own else platformdirs.user_config_path("facekit", appauthor=False) / "settings.yaml"
    )


def read() -> dict[str, dict[str, Any]]:
    """Return the sections of the settings file, {} without one; raises CardError where it cannot be read."""
    path = settings_file()
    if not path.is_file():
        return {}
    from . import yaml_text

    try:
        values = yaml_text.read(path)
    except (OSError, ValueError) as error:
        raise CardError(f"cannot read {path}: {error}", "fix or remove it") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(part, dict) for part in values.values()):
        raise CardError(f"{path} is not made of sections", "write `translate:` and below it, indented, `format: jpg`")
    return {
        str(name): {str(key).replace("-", "_"): value for key, value in part.items()} for name, part in values.items()
    }


def defaults(command: str, flags: Mapping[str, str], commands: Collection[str]) -> dict[str, Any]:
    """Return the defaults that the settings file has for a command, by parameter.

    `flags` maps each flag of the command, written with underscores, to its parameter; `commands` are all commands.
    Raises CardError for a section or a flag that there is not.
    """
    from .card import suggest  # with pydantic, which takes a while

    path, sections = settings_file(), read()
    for name in sections:
        if name in BY_CARD:
            raise CardError(f"{path}: {name} takes its settings from a card", f"write them into a card: {name} --card")
        if name != ALL and name not in commands:
            raise CardError(f"{path}: no command {name!r}{suggest(name, [ALL, *commands])}", "fix the name")
    if command in BY_CARD:
        return {}
    for key in sections.get(ALL, {}):
        if key not in SHARED:
            raise CardError(
                f"{path}: {key!r} is not of all commands (those are: {', '.join(SHARED)})", "name the command"
            )
    own = sections.get(command, {})
    for key in own:
        if key not in flags or key in NEVER:
            known = [flag for flag in flags if flag not in NEVER]
            raise CardError(f"{path}: {command} takes no default for {key!r}{suggest(key, known)}", "fix the key")
    merged = {**{key: value for key, value in sections.get(ALL, {}).items() if key in flags}, **own}
    return {flags[key]: value for key, value in merged.items()}
