"""What `facekit crawl --force` deletes: the crawl that a folder holds, and nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import InputError
from ..storage import files, working_copy
from ..storage.folder import FAILED, MANIFEST
from ..storage.jsonl import read_lines
from ..storage.remote import Unreachable
from .archive import NAME, OURS, Archive
from .unsent import Unsent


def forget(folder: Path) -> None:
    """Delete a crawl from a folder: the images that it kept, its archive, manifest and list of failures.

    Where the folder stands for a URL, so do the parts of the record in the store. Raises Unreachable where they cannot
    be read.
    """
    names = {str(row.get("file", "")) for row in read_lines(folder / MANIFEST)}
    copies = working_copy.of(folder)
    if (folder / NAME).exists() or any(copy.parts.names for copy in copies):
        try:
            with contextlib.closing(Archive(folder)) as old:
                for copy in copies:
                    Unsent(old).catch_up(copy.parts)
                names |= set(old.files())
        except Unreachable:
            raise
        except InputError:  # it is damaged
            pass
    for name in names:
        if OURS.fullmatch(Path(name).name) and files.real(folder) in files.real(folder / name).parents:
            files.remove(folder / name)
    for name in (MANIFEST, FAILED, NAME, NAME + "-wal", NAME + "-shm"):
        files.remove(folder / name)
    for copy in copies:
        copy.parts.remove()
        for name in (MANIFEST, FAILED):  # else another machine would add to them, should this one be lost
            copy.remove_object(f"{copy.name}/{name}")
