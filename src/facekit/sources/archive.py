"""What a crawl remembers: every post it has seen and how far it has come, in SQLite; the manifest is written from it.

The order of writing makes a kill harmless at any point. A page's posts and the id to continue below are stored in one
transaction; an image gets its name first, then its row, then its line in the manifest. On opening, an image that has
its name but no row is adopted if its md5 is right, and missing lines are added.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..errors import CardError, FacekitError, InputError, OutputError
from ..storage import content, files, provenance
from ..storage.folder import FAILED, MANIFEST
from ..storage.jsonl import append, drop_cut_line, line, read_lines
from .base import Page
from .errors import FetchError
from .filters import Filters
from .post import Post
from .url_guard import redacted
from .validate import ImageFacts, digest, validate

NAME = ".crawl.sqlite"
VERSION = 1
OURS = re.compile(r"([0-9a-f]{1,18})_([0-9a-f]{32})\.[a-z]{3,4}")
TABLES = """
CREATE TABLE IF NOT EXISTS walks (label TEXT PRIMARY KEY, anchor INTEGER, ended INTEGER NOT NULL DEFAULT 0,
    seen INTEGER NOT NULL DEFAULT 0, skipped TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS posts (turn INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, label TEXT NOT NULL,
    state TEXT NOT NULL, post TEXT NOT NULL, file TEXT, md5 TEXT, entry TEXT, stage TEXT, reason TEXT);
CREATE INDEX IF NOT EXISTS by_state ON posts (label, state);
CREATE UNIQUE INDEX IF NOT EXISTS by_md5 ON posts (md5) WHERE state = 'done';
"""
ADD = "INSERT OR IGNORE INTO posts (id, label, state, post) VALUES (?, ?, ?, ?)"
SAME = "SELECT 1 FROM posts WHERE md5 = ? AND state = 'done' AND id != ?"
# states: waiting; done; double (another post has the same bytes); unwanted (its true size or type is filtered out);
# failed (for good); again (failed, and the next run retries it)
Result = Literal["done", "double"]


class Archive:
    """The database of the crawl into one folder; `folder` None keeps it in memory, starting from a copy of `old`.

    Safe to use from several threads. Raises CardError if another crawl is running in the folder.
    """

    def __init__(self, folder: Path | None, old: Path | None = None):
        self.folder = folder
        self.lock = threading.RLock()
        with _disk(folder):
            path = folder / NAME if folder else ":memory:"
            self.db = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
            if old and (old / NAME).exists():
                _copy(old, self.db)
            if folder:
                self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
                self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = NORMAL")
            version = self.db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise CardError(
                    f"{path} was written by another version of facekit (format {version})", "upgrade facekit"
                )
            self.db.executescript(TABLES)
            self.db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Close the database; others may open it."""
        self.db.close()

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Apply several changes in one transaction."""
        with self.lock, _disk(self.folder):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:  # a full disk has ended it already
                    self.db.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: Any) -> list[tuple]:
        with self.lock, _disk(self.folder):
            return self.db.execute(query, values).fetchall()

    # walking

    def position(self, label: str) -> tuple[int | None, bool]:
        """Return the id below which a label's walk continues, and whether the walk is complete."""
        rows = self._rows("SELECT anchor, ended FROM walks WHERE label = ?", label)
        return (rows[0][0], bool(rows[0][1])) if rows else (None, False)

    def restart(self, label: str) -> None:
        """Start a label's walk again at the newest post; posts that are known stay known."""
        with self.change() as db:
            db.execute("DELETE FROM walks WHERE label = ?", (label,))

    def add(self, label: str, page: Page, filters: Filters, folder: str | None = None) -> list[Post]:
        """Store the wanted posts of a page and the position of the walk; return the posts that are new.

        `folder` is the sub-folder of the posts, their own `label` if None.
        """
        new: list[Post] = []
        with self.change() as db:
            db.execute("INSERT OR IGNORE INTO walks (label) VALUES (?)", (label,))
            skipped = json.loads(db.execute("SELECT skipped FROM walks WHERE label = ?", (label,)).fetchone()[0])
            for post in page.posts:
                why = filters.refuse(post)
                if why:
                    skipped[why] = skipped.get(why, 0) + 1
                    continue
                if folder is not None:
                    post = replace(post, label=folder)
                values = (post.id, label, "waiting", json.dumps(post.plain()))
                if db.execute(ADD, values).rowcount:
                    new.append(post)
            db.execute(
                "UPDATE walks SET anchor = ?, ended = ?, seen = seen + ?, skipped = ? WHERE label = ?",
                (page.anchor, page.end, len(page.posts), json.dumps(skipped), label),
            )
        return new

    def retry_failed(self, label: str) -> int:
        """Let the posts of a label that failed for good be tried again; return how many."""
        with self.change() as db:
            return db.execute(
                "UPDATE posts SET state = 'again' WHERE state = 'failed' AND label = ?", (label,)
            ).rowcount

    def waiting(self, label: str) -> list[Post]:
        """Return the posts to download, then those to retry, in the order seen."""
        rows = self._rows(
            "SELECT post FROM posts WHERE label = ? AND state IN ('waiting', 'again') ORDER BY state DESC, turn", label
        )
        return [Post.load(json.loads(row[0])) for row in rows]

    def count(self, state: str, label: str | None = None) -> int:
        """Return how many posts of a label, or of all, are in a state."""
        query = "SELECT COUNT(*) FROM posts WHERE state = ?" + (" AND label = ?" if label is not None else "")
        return int(self._rows(query, state, *([label] if label is not None else []))[0][0])

    def seen(self) -> tuple[int, dict[str, int]]:
        """Return how many posts were seen, and how many were skipped, by reason."""
        total = 0
        reasons: dict[str, int] = {}
        for seen, skipped in self._rows("SELECT seen, skipped FROM walks"):
            total += seen
            for why, count in json.loads(skipped).items():
                reasons[why] = reasons.get(why, 0) + count
        for state, why in (("double", "duplicate image"), ("unwanted", "other true size or type")):
            if count := self.count(state):
                reasons[why] = count
        return total, reasons

    # what becomes of a post

    def has(self, post: Post) -> bool:
        """Return whether another post had the same image; if so, mark this one as double."""
        with self.lock:
            if not post.md5 or not self._rows(SAME, post.md5, post.id):
                return False
            self._set(post, "double", post.md5)
            return True

    def keep(self, post: Post, part: Path, facts: ImageFacts) -> Result:
        """Give a checked file its name, its row and its manifest line; equal bytes are kept once."""
        assert self.folder
        with self.lock:
            double = bool(self._rows(SAME, facts.md5, post.id))
            if double:
                self._set(post, "double", facts.md5)
            else:
                name = f"{post.id}_{facts.md5}.{facts.kind}"
                name = f"{post.label}/{name}" if post.label else name
                target = self.folder / name
                if part != target:
                    files.make_folder(target.parent)
                    try:
                        os.replace(part, target)
                    except OSError as error:
                        files.cannot_write(target, error)
                entry = entry_of(post, facts, name)
                self._set(post, "done", facts.md5, name, entry)
                self.append(entry)
        if double:
            files.remove(part)
            return "double"
        files.announce(target)  # without the lock, because a store may take its time
        return "done"

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line to the manifest."""
        assert self.folder
        append(self.folder / MANIFEST, [entry])

    def _set(
        self, post: Post, state: str, md5: str, file: str | None = None, entry: dict[str, Any] | None = None
    ) -> None:
        values = (state, md5, file, json.dumps(entry) if entry else None, post.id)
        with self.change() as db:
            db.execute(
                "UPDATE posts SET state = ?, md5 = ?, file = ?, entry = ?, stage = NULL, reason = NULL WHERE id = ?",
                values,
            )

    def fail(self, post: Post, error: FacekitError) -> None:
        """Record that a download failed: for good, or until the next run."""
        stage = getattr(error, "stage", "read")
        state = "unwanted" if stage == "filter" else "again" if getattr(error, "again", False) else "failed"
        with self.lock:
            with self.change() as db:
                values = (state, stage, error.message, post.id)
                db.execute("UPDATE posts SET state = ?, stage = ?, reason = ? WHERE id = ?", values)
            if self.folder and state != "unwanted":
                files.append_line(self.folder / FAILED, failure(post, stage, error.message, state))

    def list_failures(self) -> int:
        """Write `failed.jsonl` from the archive; return how many posts it names."""
        rows = self._rows(
            "SELECT post, stage, reason, state FROM posts WHERE state IN ('failed', 'again') ORDER BY turn"
        )
        if self.folder and (rows or (self.folder / FAILED).exists()):
            lines = [failure(Post.load(json.loads(values)), *rest) + "\n" for values, *rest in rows]
            files.write_text(self.folder / FAILED, "".join(lines))
        return len(rows)

    # recovery

    def recover(self, filters: dict[str, Filters]) -> None:
        """Make folder, archive and manifest agree after a kill; `filters` are those of the labels."""
        assert self.folder
        files.sweep(self.folder)
        drop_cut_line(self.folder / MANIFEST)
        known = {
            row[0]: Post.load(json.loads(row[1]))
            for row in self._rows("SELECT id, post FROM posts WHERE state != 'done'")
        }
        labels = dict(self._rows("SELECT id, label FROM posts"))
        taken = {row[0] for row in self._rows("SELECT file FROM posts WHERE state = 'done'")}
        for path in sorted(self.folder.rglob("*_*.*")):
            found = OURS.fullmatch(path.name)
            post = known.get(found[1]) if found else None
            if found and post and path.relative_to(self.folder).as_posix() not in taken:
                self._adopt(post, path, found[2], filters[labels[post.id]])
        listed = {str(row.get("file")) for row in read_lines(self.folder / MANIFEST)}
        for (entry,) in self._rows("SELECT entry FROM posts WHERE state = 'done' ORDER BY turn"):
            values = json.loads(entry)
            if values["file"] not in listed:
                self.append(values)
        self.list_failures()

    def _adopt(self, post: Post, path: Path, md5: str, filters: Filters) -> None:
        """Keep a file that got its name just before a kill, if it is what its name says.

        An empty file may stand for an object in a store (see `storage.working_copy`).
        """
        assert self.folder
        part = files.temporary(self.folder) if path.stat().st_size == 0 else path
        try:
            if part != path:
                part.write_bytes(content.read_bytes(path))
            if digest(part) == md5:
                with contextlib.suppress(FetchError):
                    self.keep(post, path, validate(part, post, filters))
        except FileNotFoundError:  # somebody has removed it
            pass
        finally:
            if part != path:
                part.unlink(missing_ok=True)

    def files(self) -> Iterable[str]:
        """Return the names of all images that were kept, and of those in the folder that a kill kept from it."""
        assert self.folder
        kept = {row[0] for row in self._rows("SELECT file FROM posts WHERE state = 'done'")}
        ids = {row[0] for row in self._rows("SELECT id FROM posts WHERE state != 'done'")}
        ours = ((path, OURS.fullmatch(path.name)) for path in self.folder.rglob("*_*.*"))
        return kept | {path.relative_to(self.folder).as_posix() for path, ours in ours if ours and ours[1] in ids}


def failure(post: Post, stage: str, reason: str, state: str) -> str:
    """Return a line of `failed.jsonl`; `again` says that the next run retries it."""
    path = post.extra.get("copied_from") or redacted(post.url or "") or post.page
    row = {"path": path, "stage": stage, "reason": reason, "id": post.id, "page": post.page, "again": state == "again"}
    return line(row)


def entry_of(post: Post, facts: ImageFacts, name: str) -> dict[str, Any]:
    """Return an image's line of the manifest; sizes in px, `time` of the download in UTC."""
    values = {
        "file": name,
        "id": post.id,
        "md5": facts.md5,
        "source": post.source,
        "artist": post.artist,
        "rating": post.rating,
        "tags": list(post.tags),
        "page": post.page,
        "time": provenance.moment(),
        "width": facts.width,
        "height": facts.height,
        "bytes": facts.bytes,
        "score": post.score,
        "created": post.created,
        "label": post.label or None,
    }
    return {**post.extra, **{key: value for key, value in values.items() if value not in (None, "", [])}}


def _copy(old: Path, db: sqlite3.Connection) -> None:
    """Copy a folder's archive into an open database; the archive stays as it is."""
    with tempfile.TemporaryDirectory() as place:
        for name in (NAME, NAME + "-wal"):
            if (old / name).exists():
                shutil.copy(old / name, place)
        with contextlib.closing(sqlite3.connect(Path(place) / NAME)) as there:
            there.backup(db)


@contextlib.contextmanager
def _disk(folder: Path | None) -> Iterator[None]:
    """Turn an error of SQLite into one with a next step."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise CardError(f"another crawl is running in {folder}", "wait for it, or choose another folder") from error
        hint = "free some space, or choose another output folder; finished work is kept"
        raise OutputError(f"cannot write {folder}/{NAME}: {error}", hint) from error
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{folder}/{NAME} is damaged: {error}", "restore the file from a copy, or start again with --force"
        ) from error
