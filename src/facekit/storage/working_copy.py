"""A folder of this machine in which a command works while its output is a URL; what is done goes up as it is made.

Files that are complete become objects in one go. Images then stay here as empty files: they show that the object is
there, and `content` reads it from the store. Cards, manifests and other texts go up now and then, the card of a
finished run last, after all else. So a bucket holds whole objects only, and a card only where everything is up.
"""

from __future__ import annotations

import contextlib
import hashlib
import mimetypes
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..errors import CardError, OutputError
from ..runtime import console
from . import card, files, jsonl, packed, remote
from .cache import cache_folder
from .folder import is_inside
from .ledger import Ledger, Stamp, stamp_of
from .remote_lock import RemoteLock, name_of, token_in
from .uploader import Uploader

EVERY = 30.0  # seconds between two uploads of texts
THREADS = 8
FETCHED = (".yaml", ".jsonl", ".json", ".txt", ".csv", packed.INDEX)  # what commands read of their own output
LATE = (*FETCHED, ".html")  # what changes as long as a command works
HIDDEN = (".crawl.sqlite",)  # the hidden files that are output, too: they go up at the end
MANIFESTS = "manifest*.jsonl"
SHEET = "-sheet.png"  # contact sheets lie beside a folder
STATE = "state.pt"  # of a run of training: it counts with the log up to it


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
        place, _, self.name = remote.address(url).rpartition("/")
        if place.endswith("/"):
            bucket = remote.address(url)
            raise CardError(f"{bucket} is a whole bucket", f"name a folder in it: {bucket}/NAME")
        if (mimetypes.guess_type(self.name)[0] or "").startswith(("image/", "video/")):
            raise CardError(f"{place}/{self.name} is one file", "name a folder: single files are written to a disk")
        key = hashlib.sha256(f"{remote.address(url)} {shard or ''}".encode()).hexdigest()[:16]
        self.root = files.real(cache_folder()) / "outputs" / key
        self.url, self.top, self.here, self.whole = url, Path(place), self.root / self.name, whole
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
            self._remove(name)

    def send(self, name: str) -> None:
        """Put a file into the store as it is now."""
        self._settle(name)
        if self.whole and name.endswith(STATE):
            self._send_texts()
        self._put(name)

    def finish(self) -> None:
        """Send up all that is not there yet, the card of a finished run last, and remove the folder here."""
        self._end()
        if not self.uploader.idle:
            console.note(f"the rest goes up to {remote.address(self.url)}")
        self.uploader.drain()
        self._settle()
        changed = self._changed()
        for name in changed:
            if not name.endswith(card.NAME):
                self.uploader.add(name, (self.root / name).stat().st_size)
        self.uploader.drain()
        with self.guard:
            gone = self._gone({name for name in self.there if name.endswith(LATE)})
            for name in [one for one in gone if not one.endswith(".yaml")]:
                self._remove(name)
            for name in [one for one in changed if one.endswith(card.NAME)]:
                self._put(name)
            for name in [one for one in gone if one.endswith(".yaml")]:
                self._remove(name)
        self.lock.give_back()
        shutil.rmtree(self.root, ignore_errors=True)

    def _end(self) -> None:
        self.ended.set()
        if self.clock.ident:
            self.clock.join()

    def bring(self) -> None:
        """Fetch the objects that are here as empty files."""
        for name in sorted(self.there):
            if name.startswith(f"{self.name}/") and _size(self.root / name) == 0:
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
                with self.guard:
                    if not self.ended.is_set():
                        self._send_texts()
            except BaseException as error:
                self.uploader.fail(error)
            pause = max(EVERY, 20 * (time.monotonic() - began))  # manifests may be large

    def _finish_after_error(self) -> None:
        """Send up what there is; where that fails, it stays here for the next time."""
        with contextlib.suppress(OutputError):
            if self.uploader.failure is None:
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
        foreign = any(name.endswith(FETCHED) and not self.same.version(name) for name in listed)
        if foreign or any(listed.get(name) != version for name, (_, version) in self.same.rows.items()):
            for path in self._files():
                path.unlink()
            self.same.clear()
        self._take_over({name: one for name, one in listed.items() if not os.path.lexists(self.root / name)})
        rows = [(path.parent, row.get("file")) for path in self.here.rglob(MANIFESTS) for row in jsonl.read_lines(path)]
        named = {self._name(folder / str(name)) for folder, name in rows if is_inside(name)}
        for name in sorted({*named, *self.beside} - listed.keys()):
            if not _size(self.root / name) and (version := remote.version(self.top / name)):
                self._take_over({name: version})
        self.there |= listed.keys()
        for path in self._files():  # empty files of objects that somebody has removed
            if _size(path) == 0 and self._name(path) not in self.there and not path.name.endswith(LATE):
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

    def _remove(self, name: str) -> None:
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
                if unfinished not in self.there:
                    self._put(unfinished)
            for name in self._gone(self.cards):
                self._put(name.removesuffix(card.NAME) + card.UNFINISHED)
                self._remove(name)

    def _send_texts(self) -> None:
        """Send up the texts that have changed, but no card of a finished run."""
        with self.guard:
            self._settle()
            for name in self._changed():
                if name.endswith(LATE) and not name.endswith(card.NAME):
                    self._put(name)

    def _changed(self) -> list[str]:
        """Return the names of the files here that are not in the store as they are."""
        found = []
        for path in self._files():
            name = self._name(path)
            with contextlib.suppress(FileNotFoundError):  # removed in this moment
                stamp = stamp_of(path.stat())
                if self.same.stamp(name) != stamp and not self._is_stand_in(name, stamp):
                    found.append(name)
        return found

    def _is_stand_in(self, name: str, stamp: Stamp) -> bool:
        """Whether a file is empty because its object has the content."""
        return stamp[0] == 0 and name in self.there and not self.same.stamp(name)

    def _gone(self, names: set[str]) -> list[str]:
        """Return those of the names whose files were removed here; none where somebody has emptied the cache."""
        return (
            sorted(name for name in names if not os.path.lexists(self.root / name)) if self.same.path.exists() else []
        )

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
        return {
            f"{self.name}/{name}": version
            for name, version in found.items()
            if is_inside(name) and (name in HIDDEN or name.rpartition("/")[2][0] != ".")
        }

    def _name(self, path: Path) -> str:
        """Return the name of a file here; "" for one that lies elsewhere, or is no output."""
        text = str(path)
        if not text.startswith(str(self.root) + os.sep):
            return ""
        name = text[len(str(self.root)) + 1 :].replace(os.sep, "/")
        return name if name.startswith(f"{self.name}/") or name in self.beside else ""


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
