"""A lock that is an object in a store: of two commands that write to one URL, also from two machines, one stops."""

from __future__ import annotations

import datetime
import json
import os
import platform
import secrets
import time
from pathlib import Path
from typing import Any

from ..errors import OutputError
from . import files, remote
from .lock import NAME

REFRESHED = 60.0  # seconds between two signs of life
STALE = 600.0  # seconds without one after which a lock counts as left behind


class RemoteLock:
    """The lock of a command on the folder `url`; `name` is that of the whole folder or of a shard.

    `token` tells this machine's working copy from others: it takes over what a killed process of its own has left.
    """

    def __init__(self, url: Path, command: str, name: str, token: str):
        self.url, self.path, self.token, self.seen = url, url / name, token, 0.0
        since = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        who = {"command": command, "host": platform.node(), "process": os.getpid(), "since": since, "token": token}
        self.text = json.dumps(who).encode()

    def take(self) -> None:
        """Write the lock; raises OutputError where another command holds it, Unwritable where it cannot be written.

        Of two that try at the same time one gets it where the store writes an object only if there is none (S3, Google
        Cloud Storage, Azure).
        """
        try:
            remote.put(self.path, self.text, new=True)
        except FileExistsError:
            self._refuse(self.path)
            remote.put(self.path, self.text)
        self.seen = time.monotonic()

    def refuse_others(self, names: list[str]) -> None:
        """Raise OutputError where one of the objects `names` in the folder is a lock that excludes this one.

        The shards of one count may work side by side.
        """
        for name in names:
            count = name.rpartition("-of-")[2]
            alike = "-of-" in name and self.path.name.endswith(f"-of-{count}")
            is_lock = name.startswith(".facekit.") and name.endswith(".lock")
            if is_lock and name != self.path.name and not alike:
                self._refuse(self.url / name)

    def refresh(self) -> None:
        """Give a sign of life if it is time; raises OutputError where another command has taken the lock over."""
        if time.monotonic() - self.seen < REFRESHED:
            return
        holder = _read(self.path)
        if holder and holder.get("token") != self.token:
            raise OutputError(
                f"{_in_use(self.url, holder)}, which took over", "wait until it has finished, then run again"
            )
        remote.put(self.path, self.text)
        self.seen = time.monotonic()

    def give_back(self) -> None:
        """Remove the lock if it is held."""
        if self.seen:
            self.seen = 0.0
            remote.remove(self.path)

    def _refuse(self, path: Path) -> None:
        holder = _read(path)
        try:
            age = time.time() - remote.stat(path).st_mtime
        except FileNotFoundError:
            return
        if holder and holder.get("token") != self.token and age < STALE:
            raise OutputError(
                _in_use(self.url, holder),
                f"wait until it has finished; if it was killed, its lock {remote.address(path)} counts no more "
                f"{STALE / 60:.0f} minutes after its last sign of life",
            )


def name_of(shard: str | None) -> str:
    """Return the name of the lock of a shard, `i/n`, or of the whole folder."""
    return f".facekit.{shard.replace('/', '-of-')}.lock" if shard else NAME


def token_in(folder: Path) -> str:
    """Return the token of a working copy, which a file in its folder keeps."""
    path = files.make_folder(folder) / "token"
    if not path.exists():
        files.write_text(path, secrets.token_hex(8))
    return files.read_text(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(remote.read(path))
        return found if isinstance(found, dict) else {}
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _in_use(url: Path, holder: dict[str, Any]) -> str:
    command, process, host, since = (holder.get(key, "?") for key in ("command", "process", "host", "since"))
    return f"{remote.address(url)} is in use: {command}, process {process} on {host}, since {since}"
