"""`facekit translate --watch`: a folder whose new images are translated as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..errors import CardError, InputError, SomeFailed
from ..runtime import console
from ..storage.folder import Folder, Source

PAUSE = 1.0  # s between two looks; a file that has not changed for so long is whole

Stamps = dict[str, dict[str, int]]


def watch(source: Path, out: Path, work: Callable[[], object], pause: float = PAUSE) -> None:
    """Call `work` now and whenever the images of the folder `source` have changed, until Ctrl-C.

    Images that are still being written are waited for; those that fail are a warning. Raises CardError where `source`
    is no folder.
    """
    if not source.is_dir():
        raise CardError(f"{source} is not a folder that can be watched", "give a folder, or leave out --watch")
    console.note(f"translate: watching {source}; Ctrl-C ends it")
    done: Stamps = {}
    before: Stamps = {}
    try:
        while True:
            began = time.monotonic()
            now = _stamps(source, out)
            looked = time.monotonic() - began
            if now and now != done and now == before:
                try:
                    work()
                except (SomeFailed, InputError) as error:
                    console.warn(error.message)
                done = now
            before = now
            time.sleep(max(pause, 5 * looked))  # large folders take long to list
    except KeyboardInterrupt:
        console.note("translate: stopped watching")


def _stamps(source: Path, out: Path) -> Stamps:
    """Return what shows whether the images of a folder have changed."""
    folder = Folder(source, without=out)
    return {name: Source(source, name).stamp() for name in folder.names}
