"""One file from the web, whole and as it was meant, or none."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..storage import files
from .http_client import HttpClient
from .url_guard import Hosts, redacted

LONGEST = 3600.0  # s for one download


def download(url: str, path: Path, hosts: Hosts, largest: int, sha256: str | None = None) -> str:
    """Download a file of up to `largest` bytes to `path`; returns its SHA-256, which must be the one given.

    Raises FetchError where it cannot be downloaded, InputError for another file, OutputError where it cannot be
    written; `path` is then as it was.
    """
    client = HttpClient(hosts, rate=100, tries=4, longest=LONGEST)
    with files.replacing(path) as part:
        client.retry(lambda attempt: client.download(url, part, largest))
        found = files.sha256(part)
        if sha256 not in (None, found):
            raise InputError(
                f"{redacted(url)} is not the file that was meant: its SHA-256 is {found}",
                "check the address and the digest; nothing was kept",
            )
    return found
