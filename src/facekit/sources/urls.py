"""A list of image addresses: a text file, or `-` for stdin, one a line; empty lines and lines with # are skipped."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import InputError
from .base import Page, Site, batches
from .http_client import HttpClient
from .post import Post, ending
from .url_guard import redacted

MAX_ADDRESS = 8000  # characters


class Urls(Site):
    """Addresses that the user gives. Only their hosts are contacted; redirects must stay on them."""

    name, needs, rated = "urls", "source", False

    def open(self) -> None:
        """Read the list."""
        try:
            data = sys.stdin.buffer.read() if self.given == "-" else Path(self.given).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {self.given}: {error.strerror}", "--from takes a text file, or -") from error
        lines = (line.strip() for line in data.decode("utf-8", "replace").lstrip("\ufeff").split("\n"))
        self.lines = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
        if not self.lines:
            raise InputError(f"no address in {self.given}", "write one address a line")
        hosts, ports = set(), set()
        for line in self.lines:
            try:
                parts = urlsplit(line)
                hosts.add((parts.hostname or "").removeprefix("www."))
                ports.add(parts.port or 443)
            except ValueError:
                continue  # fails later, on its own
        self.total = len(self.lines)
        self.hosts, self.ports = sorted(filter(None, hosts)), sorted(ports)

    def pages(self, client: HttpClient, tags: Sequence[str], anchor: int | None) -> Iterator[Page]:
        """Yield the addresses; nothing else is known of the images."""
        return batches(
            Post(
                id=hashlib.sha256(url.encode()).hexdigest()[:16],
                url=url,
                page=redacted(url),
                source=redacted(url),
                kind=ending(url),
            )
            for url in (line[:MAX_ADDRESS] for line in self.lines)
        )


SITES = {Urls.name: Urls}
