"""A lock on an output folder or file: a second command stops and names the process that is using it."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import filelock

from ..errors import OutputError
from ..runtime import console
from . import files

NAME = ".facekit.lock"
CANNOT_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)

_held: dict[Path, int] = {}  # how often this process holds each lock


@contextlib.contextmanager
def held(folder: Path, command: str, name: str = NAME, wait: float = 0) -> Iterator[None]:
    """Lock an output folder while the block runs; the error that another process gets names `command`.

    The operating system holds the lock, so it is free as soon as its process dies. The same process may take it again.
    `name` is the lock file in the folder, `wait` the seconds to wait for the lock. If the file system does not support
    locks, warns and continues without one. Raises OutputError with the holder's host, process id and start time if
    another process holds the lock.
    """
    with _held_at(files.real(files.make_folder(Path(folder))) / name, Path(folder), command, wait):
        yield


@contextlib.contextmanager
def held_file(path: Path, command: str) -> Iterator[None]:
    """Hold an output that is one file, as `held` does a folder, and remove what a killed process left of it.

    The lock lies beside the file.
    """
    here = files.real(files.make_folder(Path(path).parent)) / Path(path).name
    with _held_at(files.beside(here, ".lock"), Path(path), command):
        files.sweep_beside(here)
        yield


@contextlib.contextmanager
def _held_at(path: Path, output: Path, command: str, wait: float = 0) -> Iterator[None]:
    """Hold the lock file `path`, which stands for `output`."""
    if path in _held:
        _held[path] += 1
        try:
            yield
        finally:
            _held[path] -= 1
        return
    lock = filelock.FileLock(path, timeout=wait, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise OutputError(
            f"{output} is in use: {_holder(path)}", "wait until it has finished, or choose another output"
        ) from error
    except OSError as error:
        if error.errno not in CANNOT_LOCK:
            files.cannot_write(output, error)
        console.warn(f"{output}: this file system cannot lock files; do not run two commands into it at once")
        yield
        return
    _held[path] = 1
    try:
        _sign(path, command)
        yield
    finally:
        del _held[path]
        try:
            with contextlib.suppress(OSError):  # Windows does not remove a file that is open
                path.unlink()
        finally:  # also if Ctrl-C comes during the removal
            lock.release()


def _sign(path: Path, command: str) -> None:
    since = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    who = {"command": command, "host": platform.node(), "process": os.getpid(), "since": since}
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(who), encoding="utf-8")


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        return f"{who['command']}, process {who['process']} on {who['host']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process holds it"
