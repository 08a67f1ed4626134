"""What of an archive the store does not know yet, where a crawl writes into one: it goes there in parts.

A part holds whole rows, each as it is now, so that rows which come twice do no harm. A post whose image is not in the
store goes there as waiting: another machine, to which nothing but the store is left, downloads it again.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from ..storage import working_copy
from ..storage.record_parts import News, RecordParts
from .archive import Archive

ROWS = 5000  # of a part
POST = ("turn", "id", "label", "state", "post", "file", "md5", "entry", "stage", "reason")
WALK = ("label", "anchor", "ended", "seen", "skipped")
TABLES = """
CREATE TABLE IF NOT EXISTS unsent (change INTEGER PRIMARY KEY AUTOINCREMENT, turn INTEGER NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS store (token TEXT NOT NULL, number INTEGER NOT NULL, turn INTEGER NOT NULL);
"""
TRIGGERS = """
CREATE TEMP TRIGGER IF NOT EXISTS unsent_{what} AFTER {what} ON main.posts BEGIN
    DELETE FROM unsent WHERE turn = NEW.turn;
    INSERT INTO unsent (turn) VALUES (NEW.turn);
END;
"""
NEWS = f"SELECT change, {', '.join(POST)} FROM unsent CROSS JOIN posts USING (turn) ORDER BY turn"
BEHIND = "SELECT 1 FROM unsent CROSS JOIN posts USING (turn) WHERE turn > ? OR state NOT IN ('done', 'waiting') LIMIT 1"
ADD = "INSERT OR IGNORE INTO posts (turn, id, label, state, post) VALUES (?, ?, ?, 'waiting', ?)"
CHANGE = (
    "UPDATE OR IGNORE posts SET state = ?, file = ?, md5 = ?, entry = ?, stage = ?, reason = ? "
    "WHERE id = ? AND state != 'done'"
)


class Unsent:
    """The rows of an archive that have changed since they went into the store, kept in the archive itself.

    The table `store` has one row: a token, which is another on each machine that goes on with the archive, the last
    part that it includes, and the last post that the store has heard of.
    """

    def __init__(self, archive: Archive):
        self.archive, self.token = archive, ""
        self.walks: list[tuple] | None = None  # as they were sent

    def catch_up(self, parts: RecordParts) -> bool:
        """Add what the parts in the store say to the archive, then take note of its changes; return whether any were.

        An archive that comes from the store was sent whole: nothing of it is unsent. One without the table `store` was
        never sent, or by an older version: it goes up anew.
        """
        with self.archive.change() as db:
            for statement in filter(str.strip, TABLES.split(";")):
                db.execute(statement)
            found, read = db.execute("SELECT token, number, turn FROM store").fetchone(), False
            self.token, number, turn = found or ("", 0, 0)
            if not found or self.token != parts.token:
                db.execute("DELETE FROM unsent" if found else "INSERT INTO unsent (turn) SELECT turn FROM posts")
                for data in parts.read(number):
                    _replay(db, data)
                    read = True
                self.token, turn, self.walks = secrets.token_hex(8), _last_turn(db), self._walks()
            db.execute("DELETE FROM store")
            db.execute("INSERT INTO store VALUES (?, ?, ?)", (self.token, max(number, parts.last), turn))
            for what in ("INSERT", "UPDATE"):
                db.execute(TRIGGERS.format(what=what))
        return read

    def is_behind(self) -> bool:
        """Whether there are posts that the store has not heard of, or has not heard that they gave no image."""
        with self.archive.lock:
            found = self.archive.db.execute(BEHIND, (self._heard(),)).fetchone()
            return found is not None or self._walks() != self.walks

    def news(self, there: Callable[[str], bool]) -> News | None:
        """Return the next rows, and after the last of them the walks; None where nothing is new."""
        with self.archive.lock:
            db, heard = self.archive.db, self._heard()
            lines: list[str] = []
            marks: list[int] = []
            last, more = heard, False
            for change, *values in db.execute(NEWS):
                if len(lines) == ROWS:
                    more = True
                    break
                row = dict(zip(POST, values, strict=True))
                if self._may_go(row, there):
                    marks.append(change)
                elif row["turn"] > heard:
                    row |= {"state": "waiting", "file": None, "md5": None, "entry": None}
                else:
                    continue
                lines.append(json.dumps(row))
                last = max(last, row["turn"])
            walks = self._walks()
            if not more and walks != self.walks:
                lines.append(json.dumps({"walks": walks}))
                self.walks = walks
        return News("".join(line + "\n" for line in lines).encode(), marks, last, more) if lines else None

    def sent(self, news: News, number: int) -> None:
        """Take note that a part is in the store; rows that have changed meanwhile stay unsent."""
        with self.archive.change() as db:
            db.executemany("DELETE FROM unsent WHERE change = ?", [(mark,) for mark in news.marks])
            db.execute("UPDATE store SET number = ?, turn = ?", (number, news.last))

    def _walks(self) -> list[tuple]:
        return self.archive.db.execute(f"SELECT {', '.join(WALK)} FROM walks ORDER BY label").fetchall()

    def _heard(self) -> int:
        return int(self.archive.db.execute("SELECT turn FROM store").fetchone()[0])

    def _may_go(self, row: dict[str, Any], there: Callable[[str], bool]) -> bool:
        """Whether a row may go up as it is: its image is in the store, or that of the post that it doubles."""
        file = row["file"]
        if row["state"] == "double":
            same = "SELECT file FROM posts WHERE md5 = ? AND state = 'done'"
            file = (self.archive.db.execute(same, (row["md5"],)).fetchone() or (None,))[0]
        return file is None or there(file)


@contextlib.contextmanager
def sent_in_parts(archive: Archive) -> Iterator[bool]:
    """Send what changes in an archive while the block runs, if its folder stands for a URL.

    Yields whether the store had parts of a crawl that was killed, which the archive includes now.
    """
    assert archive.folder
    copies = working_copy.of(archive.folder)
    unsent = Unsent(archive)
    read = False
    for copy in copies:
        read = unsent.catch_up(copy.parts)
        copy.keep_record(unsent)
    try:
        yield read
    finally:
        for copy in copies:
            copy.leave_record()


def _replay(db: sqlite3.Connection, data: bytes) -> None:
    """Add the rows of a part; one that is done stays so."""
    for line in data.splitlines():
        row = json.loads(line)
        if "walks" in row:
            db.execute("DELETE FROM walks")
            db.executemany(f"INSERT INTO walks ({', '.join(WALK)}) VALUES (?, ?, ?, ?, ?)", row["walks"])
            continue
        db.execute(ADD, [row[key] for key in ("turn", "id", "label", "post")])
        db.execute(CHANGE, [row[key] for key in ("state", "file", "md5", "entry", "stage", "reason", "id")])


def _last_turn(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT MAX(turn) FROM posts").fetchone()[0] or 0)
