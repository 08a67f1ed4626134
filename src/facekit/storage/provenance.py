"""What a card records about its run: time, versions, git state, command line, host."""

from __future__ import annotations

import datetime
import functools
import getpass
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__


def moment(seconds: float | None = None) -> str:
    """Return a POSIX time stamp, or the current time, as ISO 8601 in UTC, to the second."""
    zone = datetime.timezone.utc
    when = datetime.datetime.now(zone) if seconds is None else datetime.datetime.fromtimestamp(seconds, zone)
    return when.isoformat(timespec="seconds")


def collect(*packages: str) -> dict[str, Any]:
    """Return versions (of `packages` too), git state of the code, command line, host and user."""
    versions = {"facekit": __version__}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return {
        "argv": sys.argv,
        "host": platform.node(),
        "user": user,
        "python": platform.python_version(),
        "versions": versions,
        "git": _git(),
    }


@functools.cache  # the code of a process stays what it was
def _git() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
