"""A folder on this machine: its images are checked and copied, with a record of where each came from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..storage import content, files
from ..storage.folder import Folder, open_source
from .base import Page, Site, batches
from .errors import FetchError
from .http_client import HttpClient
from .post import Post, text, words

OURS = ("file", "id", "md5", "source", "source_bytes", "source_mtime")


class Local(Site):
    """Images of a folder; sub-folders are kept, and the entries of its manifest are copied."""

    name, needs, rated, remote = "local", "source", False, False

    def open(self) -> None:
        """List the folder, or take one image; raises InputError if there is none, CardError if it is the output."""
        self.found = {source.name: source.path for source in open_source(self.given, self.out or None)}
        self.entries = Folder(self.given).entries if content.is_folder(Path(self.given)) else {}
        self.total = len(self.found)

    def pages(self, client: HttpClient, tags: Sequence[str], anchor: int | None) -> Iterator[Page]:
        """Yield the images by name."""
        return batches(self.post(name) for name in self.found)

    def post(self, name: str) -> Post:
        """Return what the folder and its manifest say about an image."""
        entry: dict[str, Any] = self.entries.get(name, {})
        try:
            size = content.stat(self.found[name]).st_size
        except OSError:
            size = None
        tags = entry.get("tags")
        return Post(
            id=hashlib.sha256(files.encoded(name)).hexdigest()[:16],
            url=name,
            page="",
            bytes=size,
            tags=words(" ".join(map(str, tags)) if isinstance(tags, list) else tags),
            source=text(entry.get("source")) or name,
            label=name.rpartition("/")[0],
            extra={**{k: v for k, v in entry.items() if k not in OURS}, "copied_from": name},
        )

    def fetch(self, client: HttpClient, post: Post, path: Path, limit: int) -> None:
        """Copy the file of a post."""
        origin = self.found[str(post.url)]
        try:
            if not content.is_file(origin):
                raise FetchError("it is not a file", stage="read")
            size = content.stat(origin).st_size
            with content.open_file(origin) as file:
                if size > limit:
                    raise FetchError(f"the file is larger than {limit / 1e6:g} MB", "raise --max-mb", stage="size")
                try:
                    with open(path, "wb") as copy:
                        shutil.copyfileobj(file, copy)
                except OSError as error:
                    files.cannot_write(path, error)
        except OSError as error:
            raise FetchError(f"it cannot be read: {error.strerror}", stage="read") from error


SITES = {Local.name: Local}
