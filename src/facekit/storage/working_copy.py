"""A folder of this machine in which a command works while its output is a URL; what is done goes up as it is made.

Files that are complete become objects in one go. Images then stay here as empty files: they show that the object is
there, and `content` reads it from the store. Cards, manifests and other texts go up now and then, the card of a
finished run last, after all else. So a bucket holds whole objects only, and a card only where everything is up. A
record that grows as long as a command works goes up in parts (`record_parts`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..errors import OutputError
from ..runtime import console
from . import card, files, jsonl, packed, remote
from .cache import cache_folder
from .folder import is_inside
from .ledger import Ledger, Stamp, size_of, stamp_of
from .output_names import FETCHED, HIDDEN, LATE, MANIFESTS, SHEET, STATE, logs_in, outputs_among, place_of, records_in
from .record_parts import Record, RecordParts
from .remote_lock import RemoteLock, name_of, token_in
from .uploader import Uploader

EVERY = 30.0  # seconds between two uploads of texts
THREADS = 8


def of(folder: Path) -> list[WorkingCopy]:
    """Return the working copy that a folder is or lies in, if there is one, as a list."""
    return [
        one
        for one in files.followers
        if isinstance(one, WorkingCopy) and (one.here == folder or one.here in folder.parents)
    ]


class WorkingCopy:
    """The folder `here` for the output `url`, and what of it is in the store.

    Names are relative to `root` here and to the URL `top` there: the folder's own name begins them. With `whole` the
    files stay complete here and go up in the order in which they were made, as training needs it. Raises CardError for
    a URL that is no folder in a bucket. With `sheet` there is a contact sheet beside the folder.
    """

    def __init__(self, url: Path, whole: bool, shard: str | None, sheet: bool):
        self.top, self.name = place_of(url)
        key = hashlib.sha256(f"{remote.address(url)} {shard or ''}".encode()).hexdigest()[:16]
        self.root = files.real(cache_folder()) / "outputs" / key
        self.url, self.here, self.whole = url, self.root / self.name, whole
        self.beside = [self.name + SHEET] if sheet else []
        self.there: set[str] = set()  # what the store has
        self.cards: set[str] = set()  # those of finished runs among it
        self.same = Ledger(self.root)
        self.guard = threading.RLock()
        self.ended = threading.Event()

    @contextlib.contextmanager
    def following(self, command: str, shard: str | None) -> Iterator[None]:
        """Hold the URL, make the folder what the store has, and send up what is made in the block.

        The folder here is removed when all is up. Raises OutputError where the store takes nothing, or another command
        writes there.
        """
        self.lock = RemoteLock(self.url, command, name_of(shard), token_in(self.root))
        self.lock.take()
        self.parts = RecordParts(self.url, self.root, self.there, self._settle)
        self.uploader = Uploader(self.send, 1 if self.whole else THREADS)
        self.clock = threading.Thread(target=self._now_and_then, daemon=True)
        files.followers.append(self)
        try:
            self._prepare()
            self.clock.start()
            try:
                yield
                self.finish()
            except BaseException:
                self._finish_after_error()
                raise
        finally:
            files.followers.remove(self)
            self._end()
            self.uploader.close()
            packed.forget_remote()
            with contextlib.suppress(OutputError):
                self.lock.give_back()

    def written(self, path: Path) -> None:
        """Send a file that is complete; texts go up later. Raises what has failed before."""
        name = self._name(path)
        if name and not name.endswith(LATE):
            self.uploader.add(name, path.stat().st_size)

    def removing(self, path: Path) -> None:
        """Remove the object of a file that will be removed; those of texts go when the new ones are up."""
        name = self._name(path)
        if name in self.there and not name.endswith(LATE):
            self.uploader.drain()
            self._settle(name)
            self.remove_object(name)

    def send(self, name: str) -> None:
        """Put a file into the store as it is now."""
        self.parts.before_file()
        self._settle(name)
        if self.whole and name.endswith(STATE):
            self._send_texts()
        self._put(name)
        self.parts.after_file()

    def keep_record(self, record: Record) -> None:
        """Send a record in parts from now on, and the files that a killed process has left here."""
        self.parts.follow(record)
        for name in self._changed():
            if not name.endswith((*LATE, *HIDDEN)):
                self.uploader.add(name, (self.root / name).stat().st_size)

    def leave_record(self) -> None:
        """Send what is new in the record, and then no more parts."""
        self.parts.leave(self.uploader)

    def finish(self) -> None:
        """Send up all that is not there yet, the card of a finished run last, and remove the folder here."""
        self._end()
        if not self.uploader.idle:
            console.note(f"the rest goes up to {remote.address(self.url)}")
        self.uploader.drain()
        self._settle()
        changed = self._changed()
        last = (card.NAME, *HIDDEN, *(LATE if records_in(self.here) else ()))
        for name in [one for one in changed if not one.endswith(last)]:
            self.uploader.add(name, (self.root / name).stat().st_size)
        self.uploader.drain()
        for name in [one for one in changed if one.endswith(HIDDEN)]:
            self._put(name)
        self.parts.remove(merged=True)
        with self.guard:
            for name in [one for one in changed if one.endswith(last) and not one.endswith((card.NAME, *HIDDEN))]:
                self._put(name)  # manifests name nothing that the record does not
            gone = self._gone({name for name in self.there if name.endswith(LATE)})
            for name in [one for one in gone if not one.endswith(".yaml")]:
                self.remove_object(name)
            for name in [one for one in changed if one.endswith(card.NAME)]:
                self._put(name)
            for name in [one for one in gone if one.endswith(".yaml")]:
                self.remove_object(name)
        self.lock.give_back()
        shutil.rmtree(self.root, ignore_errors=True)

    def _end(self) -> None:
        self.ended.set()
        if self.clock.ident:
            self.clock.join()

    def bring(self) -> None:
        """Fetch the objects that are here as empty files."""
        for name in sorted(self.there):
            if name.startswith(f"{self.name}/") and size_of(self.root / name) == 0:
                self._fetch(name, remote.version(self.top / name))

    def meet(self) -> None:
        """Send up the texts, and take over what other shards have changed in the store."""
        self.uploader.drain()
        with self.guard:
            self._send_texts()
            listed = self._listed()
            for name in [one for one in self.there if one.endswith(LATE) and one not in listed]:
                (self.root / name).unlink(missing_ok=True)  # merged by another shard
                self.there.discard(name)
                self.same.drop(name)
            self._take_over({name: one for name, one in listed.items() if self.same.version(name) != one})

    def _now_and_then(self) -> None:
        """Send up the texts and give a sign of life, until the end."""
        pause = EVERY
        while not self.ended.wait(pause):
            began = time.monotonic()
            try:
                self.lock.refresh()
                self.parts.send()
                with self.guard:
                    if not self.ended.is_set() and not records_in(self.here):
                        self._send_texts()
            except BaseException as error:
                self.uploader.fail(error)
            pause = max(EVERY, 20 * (time.monotonic() - began))  # manifests may be large

    def _finish_after_error(self) -> None:
        """Send up what there is; where that fails, or a record was left open by a kill, it stays for the next time."""
        with contextlib.suppress(OutputError):
            if self.uploader.failure is None and not any(log.exists() for log in logs_in(self.here)):
                self.finish()
                return
        console.warn(f"not all is in {remote.address(self.url)}: what is missing waits here, for the same command")

    def _prepare(self) -> None:
        """Make the folder what the store has: texts are fetched, of all else there are empty files.

        What a killed process has left here stays and goes up later, unless the store has been changed since.
        """
        listed = self._listed()
        self.same.load()
        for name, (_, known) in self.same.rows.items():  # some stores list an object some time after it was written
            if name not in listed and remote.version(self.top / name) == known:
                listed[name] = known
        foreign = any(name.endswith((*FETCHED, *HIDDEN)) and not self.same.version(name) for name in listed)
        changed = any(listed.get(name) != version for name, (_, version) in self.same.rows.items())
        if foreign or changed or self.parts.others():
            for path in [*self._files(), *logs_in(self.here)]:
                path.unlink(missing_ok=True)
            self.same.clear()
        if not records_in(self.here):
            self.parts.disown()
        self._take_over({name: one for name, one in listed.items() if not os.path.lexists(self.root / name)})
        rows = [(path.parent, row.get("file")) for path in self.here.rglob(MANIFESTS) for row in jsonl.read_lines(path)]
        named = {self._name(folder / str(name)) for folder, name in rows if is_inside(name)}
        for name in sorted({*named, *self.beside} - listed.keys()):
            if not size_of(self.root / name) and (version := remote.version(self.top / name)):
                self._take_over({name: version})
        self.there.update(listed)  # in place: `parts` looks at it, too
        for path in self._files():  # empty files of objects that somebody has removed
            if size_of(path) == 0 and self._name(path) not in self.there and not path.name.endswith(LATE):
                path.unlink()

    def _take_over(self, listed: dict[str, str]) -> None:
        """Fetch these texts of the store, and make empty files for all else."""
        for name, version in listed.items():
            path = self.root / name
            files.make_folder(path.parent)
            self._note(name)
            if name.endswith((*FETCHED, *HIDDEN, SHEET)):
                self._fetch(name, version)
            elif not path.exists():
                path.touch()

    def _fetch(self, name: str, version: str | None) -> None:
        path = self.root / name
        part = files.temporary(path.parent, path)
        try:
            remote.fetch(self.top / name, part)
            os.replace(part, path)
            self.same.keep(name, stamp_of(path.stat()), version)
        except FileNotFoundError:  # removed in this moment
            self.there.discard(name)
        finally:
            part.unlink(missing_ok=True)

    def _put(self, name: str) -> None:
        """Put a file; an image is empty here from then on."""
        path = self.root / name
        # opened first, so that a newer file of this name is not the one that is emptied
        with contextlib.suppress(FileNotFoundError), open(path, "rb+") as file:
            stamp = stamp_of(os.fstat(file.fileno()))
            if self._is_stand_in(name, stamp):
                return
            lines = file.read() if name.endswith(".jsonl") else None
            try:
                remote.put(self.top / name, path if lines is None else lines[: lines.rfind(b"\n") + 1])
            except OutputError:
                if os.path.lexists(path):  # else it was removed in this moment
                    raise
                return
            self._note(name)
            if self.whole or name.endswith((*LATE, *HIDDEN, SHEET)):
                self.same.keep(name, stamp, remote.version(self.top / name))
            else:
                file.truncate(0)

    def _note(self, name: str) -> None:
        with self.guard:
            self.there.add(name)
            self.cards |= {name} if name.endswith(card.NAME) else set()

    def remove_object(self, name: str) -> None:
        """Remove an object at once; the file here stays."""
        remote.remove(self.top / name)
        with self.guard:
            self.there.discard(name)
            self.cards.discard(name)
        self.same.drop(name)

    def _settle(self, name: str = "") -> None:
        """Before `name` changes in the store: the card of a finished run goes, that of an unfinished one comes."""
        above = [str(folder) for folder in PurePosixPath(name).parents][:-1]
        with self.guard:
            for unfinished in (f"{folder}/{each}" for folder in above for each in (card.UNFINISHED, packed.UNFINISHED)):
                if unfinished not in self.there or self._differs(unfinished):
                    self._put(unfinished)
            for name in self._gone(self.cards):
                self._put(name.removesuffix(card.NAME) + card.UNFINISHED)
                self.remove_object(name)

    def _send_texts(self) -> None:
        """Send up the texts that have changed, but no card of a finished run."""
        with self.guard:
            self._settle()
            for name in self._changed():
                if name.endswith(LATE) and not name.endswith(card.NAME):
                    self._put(name)

    def _changed(self) -> list[str]:
        """Return the names of the files here that are not in the store as they are."""
        return [name for name in map(self._name, self._files()) if self._differs(name)]

    def _differs(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):  # removed in this moment
            stamp = stamp_of((self.root / name).stat())
            return self.same.stamp(name) != stamp and not self._is_stand_in(name, stamp)
        return False

    def _is_stand_in(self, name: str, stamp: Stamp) -> bool:
        """Whether a file is empty because its object has the content."""
        return stamp[0] == 0 and name in self.there and not self.same.stamp(name)

    def _gone(self, names: set[str]) -> list[str]:
        """Return those of the names whose files were removed here; none where somebody has emptied the cache."""
        known = self.same.path.exists()
        return sorted(name for name in names if known and not os.path.lexists(self.root / name))

    def _files(self) -> list[Path]:
        """Return the files here that are output."""
        found = [path for path in self.here.rglob("*") if path.name[0] != "." or path.name in HIDDEN]
        found += [self.root / name for name in self.beside]
        return sorted(path for path in found if path.is_file() and not path.is_symlink())

    def _listed(self) -> dict[str, str]:
        """Return the objects of the folder by name, with their versions; raises OutputError for locks among them."""
        found = remote.versions(self.url)
        if "" in found:
            raise OutputError(f"{remote.address(self.url)} is a file", "choose another output folder")
        self.lock.refuse_others([name for name in found if "/" not in name])
        self.parts.found(found)
        return {f"{self.name}/{name}": found[name] for name in outputs_among(found)}

    def _name(self, path: Path) -> str:
        """Return the name of a file here; "" for one that lies elsewhere, or is no output."""
        text = str(path)
        if not text.startswith(str(self.root) + os.sep):
            return ""
        name = text[len(str(self.root)) + 1 :].replace(os.sep, "/")
        return name if name.startswith(f"{self.name}/") or name in self.beside else ""
