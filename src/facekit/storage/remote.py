"""Object stores and web servers through fsspec: paths that begin as a URL, such as s3://bucket/faces.

A URL travels as a Path, which writes it with one slash: s3:/bucket/faces means the same.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CardError, InputError, MissingError, OutputError

URL = re.compile(r"([a-z][a-z0-9+.-]+):/+([^/]+.*)")  # two letters at least: C:/ is a drive
TRIES = 4  # of one request
PAUSE = 0.5  # seconds before the second, twice as long before each further one
TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
VERSIONS = ("ETag", "etag", "blob_id", "oid")
DENIED = ("ClientAuthenticationError", "DefaultCredentialsError", "RefreshError")  # of azure-core and google-auth
ACCOUNT = re.compile(r"abfss?://([^/@]+)@([^/@:]+)\.dfs\.core\.windows\.net(/.*)?")  # CONTAINER@ACCOUNT

T = TypeVar("T")
_listed: dict[str, dict[str, Any]] = {}
_stores: dict[tuple[str, int], Any] = {}


READ_ONLY = ("http", "https")


class Unreachable(InputError):
    """A store does not answer, or not to us."""


class Unwritable(OutputError):
    """A store takes nothing, or not from us."""


def is_remote(path: Path) -> bool:
    """Whether a path is a URL."""
    return URL.fullmatch(path.as_posix()) is not None


def read(path: Path, start: int | None = None, end: int | None = None) -> bytes:
    """Return the bytes of an object, or a part of them; raises FileNotFoundError, Unreachable for other failures."""
    return _tried(path, lambda store, name: store.cat_file(name, start=start, end=end))


def stat(path: Path) -> os.stat_result:
    """Return the length and time of an object; raises FileNotFoundError, Unreachable for other failures.

    Where the store gives no time, its version of the object counts as one.
    """
    url = address(path)
    return _status(_listed.get(url) or _tried(path, lambda store, name: store.info(name)))


def is_listed(path: Path) -> bool:
    """Whether `find` has seen an object at a path."""
    return address(path) in _listed


def is_folder(path: Path) -> bool:
    """Whether there are objects below a path."""
    return _tried(path, lambda store, name: store.isdir(name))


def find(folder: Path) -> list[str]:
    """Return the names of all objects below a folder, relative to it; remembers their lengths and times for `stat`."""
    return sorted(versions(folder))


def versions(folder: Path) -> dict[str, str]:
    """Return the objects below a folder as `find` does, each with a text that changes when the object does."""

    def listing(store: Any, top: str) -> dict[str, dict[str, Any]]:
        store.invalidate_cache()
        found = store.find(top, detail=True)
        return {name[len(top.rstrip("/")) + 1 :]: info for name, info in found.items() if info.get("type") == "file"}

    found = _tried(folder, listing)
    _listed.update({address(folder / name): info for name, info in found.items() if name})
    return {name: _version(info) for name, info in found.items()}


def version(path: Path) -> str | None:
    """Return what `versions` says of one object, asked anew; None where there is none."""

    def ask(store: Any, name: str) -> str:
        store.invalidate_cache()
        return _version(store.info(name))

    try:
        return _tried(path, ask)
    except FileNotFoundError:
        return None


def fetch(path: Path, file: Path) -> None:
    """Copy an object to a file; raises FileNotFoundError, Unreachable for other failures."""
    _tried(path, lambda store, name: store.get_file(name, str(file)))


def put(path: Path, content: Path | bytes, new: bool = False) -> None:
    """Write an object in one go, from a file or from bytes.

    Raises Unwritable where that fails; with `new`, for bytes alone, FileExistsError where there is such an object.
    """
    more = {"mode": "create"} if new else {}

    def write(store: Any, name: str) -> None:
        if isinstance(content, Path):
            store.put_file(str(content), name)
        else:
            store.pipe_file(name, content, **more)

    try:
        _tried(path, write, writing=True)
    except FileNotFoundError as error:
        raise Unwritable(f"{address(path)} cannot be written: there is no such bucket", "make it first") from error
    _listed.pop(address(path), None)


def remove(path: Path) -> None:
    """Remove an object if it is there; raises Unwritable where that fails."""
    with contextlib.suppress(FileNotFoundError):
        _tried(path, lambda store, name: store.rm_file(name), writing=True)
    _listed.pop(address(path), None)


def glob(folder: Path, pattern: str) -> list[Path]:
    """Return the objects in a folder whose names fit a pattern, sorted."""
    names = _tried(folder, lambda store, top: store.glob(f"{top.rstrip('/')}/{pattern}"))
    return sorted(folder / name.rpartition("/")[2] for name in names)


def address(path: Path) -> str:
    """Return the URL of a path; raises CardError for one with a user name or password in it, which cards would keep."""
    found = URL.fullmatch(path.as_posix())
    assert found
    account = ACCOUNT.fullmatch(f"{found[1]}://{found[2]}")
    if account:
        raise CardError(
            f"the {found[1]}:// address names the account {account[2]}",
            f"write az://{account[1]}{account[3] or ''} and set AZURE_STORAGE_ACCOUNT_NAME={account[2]}",
        )
    if "@" in found[2].partition("/")[0]:
        raise CardError(
            f"the {found[1]}:// address has credentials in it", "leave them to the settings of the store's own library"
        )
    return f"{found[1]}://{found[2]}"


def _store(scheme: str) -> Any:
    """Return fsspec's file system of a scheme, one for each process.

    Raises MissingError without its package, Unreachable where that lacks a setting (of an account, say).
    A forked process keeps those of its parent without using them: to close them would cut the parent's connections.
    """
    here = scheme, os.getpid()
    if here not in _stores:
        try:
            import fsspec

            kind = fsspec.get_filesystem_class(scheme)
        except (ImportError, ValueError) as error:
            raise MissingError(
                f"{scheme}:// cannot be opened here: {error}",
                "pip install 'facekit-anime[remote]', or the package it names",
            ) from error
        logging.getLogger(kind.__module__.partition(".")[0]).addHandler(logging.NullHandler())  # errors are ours to say
        try:
            _stores.setdefault(here, kind(skip_instance_cache=True))
        except Exception as error:
            hint = "set what its package needs, such as the name of the account, by its environment variables"
            raise Unreachable(f"{scheme}:// cannot be opened: {_first_line(error)}", hint) from error
    return _stores[here]


def _tried(path: Path, ask: Callable[[Any, str], T], writing: bool = False) -> T:
    """Ask a store, again after a pause where it is busy or a connection breaks."""
    url = address(path)
    scheme = url.partition(":")[0]
    failure, verb, done = (Unwritable, "write", "written") if writing else (Unreachable, "read", "read")
    if writing and scheme in READ_ONLY:
        raise Unwritable(f"{url} cannot be written: {scheme}:// is for reading", "give a folder, or a URL of a store")
    store = _store(scheme)
    name = store._strip_protocol(url)
    for attempt in range(TRIES):
        try:
            return ask(store, name)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # stores raise errors of their own libraries
            code, said = _http_status(error), _first_line(error)
            if code == 404:
                raise FileNotFoundError(url) from error
            if code in (401, 403) or isinstance(error, PermissionError) or type(error).__name__ in DENIED:
                hint = "check the credentials and the bucket's rules" + ("; then run again" if writing else "")
                raise failure(f"no permission to {verb} {url}: {said}", hint) from error
            if attempt == TRIES - 1 or isinstance(error, NotImplementedError):
                raise failure(f"{url} cannot be {done}: {said}", "check the connection, then run again") from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError


def _http_status(error: Exception) -> int | None:
    """Return the HTTP status that an error of a store's library has, if any."""
    for name in ("status_code", "code", "status"):  # azure-core, gcsfs, aiohttp
        with contextlib.suppress(TypeError, ValueError):
            return int(getattr(error, name, ""))
    return 403 if str(error).startswith("Forbidden: ") else None  # gcsfs has no class for it


def _first_line(error: Exception) -> str:
    """Return what an error says, without the answer of the server that some libraries append."""
    return str(error).strip().partition("\n")[0]


def _status(info: dict[str, Any]) -> os.stat_result:
    mtime = _nanoseconds(info)
    seconds = mtime // 10**9
    mode = 0o040755 if info.get("type") == "directory" else 0o100644
    times = {"st_mtime": mtime / 10**9, "st_mtime_ns": mtime, "st_ctime_ns": mtime}
    return os.stat_result((mode, 0, 0, 1, 0, 0, int(info.get("size") or 0), seconds, seconds, seconds), times)


def _version(info: dict[str, Any]) -> str:
    known = next((str(info[key]) for key in VERSIONS if info.get(key)), "") or str(_nanoseconds(info))
    return f"{info.get('size')} {known}"


def _nanoseconds(info: dict[str, Any]) -> int:
    for key in TIMES:
        value = info.get(key)
        with contextlib.suppress(ValueError):
            value = datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(value, datetime.datetime):
            value = value.timestamp()
        if isinstance(value, (int, float)):
            return round(value * 10**6) * 1000  # stores give one time in several ways
    version = next((str(info[key]) for key in VERSIONS if info.get(key)), "")
    return int(hashlib.sha256(version.encode()).hexdigest()[:14], 16) if version else 0
