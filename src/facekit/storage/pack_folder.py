"""Packs a folder of images into tar files with indices, and writes the indices of tar files that are there."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import CardError, InputError, SomeFailed
from ..runtime import console
from ..runtime.engine import LOCAL, Engine
from ..runtime.stand_ins import url_of
from ..runtime.workers import in_order, pool_of
from . import claim, content, files, images, lock, packed, provenance, remote, signatures
from .folder import Folder, Source
from .listing import SUFFIXES
from .remote import is_remote

BLOCK = 512  # bytes of a tar header, and what contents are filled up to
BESIDE = (".yaml", ".jsonl", ".txt", ".csv", ".json")  # what describes images: copied beside the shards
COMMAND = "pack"

Shard = tuple[Path, "list[Source]"]
"""A tar file to write, and its images."""


@dataclass
class Outcome:
    """What packing did: images in how many shards, how many of the shards were written now, names that failed."""

    images: int
    shards: int
    written: int
    failed: list[str]


def pack(
    folder: Folder,
    out: Path,
    shard_bytes: int,
    values: dict[str, Any],
    force: bool = False,
    engine: Engine = LOCAL,
) -> Outcome:
    """Pack the images of a folder into `out`, in shards of about `shard_bytes`; what describes them lies beside.

    Where `engine` is a cluster, its workers write the shards side by side.

    A shard that holds its images as they are now stays: a stopped run goes on, and a second one packs only what has
    changed. Raises CardError where `out` holds another packing or files of other makers, OutputError where it cannot
    be written or another process is at work there, and at the end SomeFailed for images that cannot be read.
    """
    groups = list(_groups(folder.sources(), shard_bytes))
    with lock.held(out, COMMAND):
        _refuse_foreign(out, force)
        state = claim.take(out, values, packed.CARD, force)
        tars = [out / f"{number:06d}.tar" for number in range(len(groups))]
        todo = [(tar, group) for tar, group in zip(tars, groups, strict=True) if force or not _is_current(tar, group)]
        surplus = [tar for tar in sorted(out.glob("*.tar")) if tar not in tars]
        outcome = Outcome(sum(map(len, groups)), len(tars), len(todo), [])
        if state == "finished" and (todo or surplus):
            os.replace(out / packed.CARD, out / packed.UNFINISHED)
        files.sweep(out)
        for tar in surplus:
            files.remove(packed.index_file(tar))
            files.remove(tar)
        seeing = engine.seeing(out / packed.UNFINISHED, *(group[0].path for _, group in todo[:1]))
        with (
            console.progress(COMMAND, sum(len(group) for _, group in todo)) as bar,
            pool_of(0 if engine.remote else 1, True, seeing, len(todo)) as pool,
        ):
            written = in_order(pool, _write if pool else partial(_write, advance=bar.advance), todo, 1)
            for (_, group), failed in written:
                bar.advance(len(group) if pool else 0)
                for name, reason in failed:
                    console.warn(f"{name}: {reason}")
                    outcome.failed.append(name)
        if engine.remote:
            files.sweep(out)  # what workers left that are gone
        _copy_notes(folder.path, out)
        if state != "finished" or todo or surplus:
            count = outcome.images - len(outcome.failed)
            made = {**provenance.collect("numpy", "pillow"), "images": count, "shards": len(tars)}
            claim.finish(out, values, made, packed.CARD)
    if outcome.failed:
        raise SomeFailed(
            f"pack: {len(outcome.failed)} images cannot be read (the first: {outcome.failed[0]})",
            "the warnings name them; repair or remove them, and run the same command again",
        )
    return outcome


def index(folder: Path) -> Outcome:
    """Write the index of each tar file in a folder that has none which fits; other programs may have written them.

    Raises InputError where there is no tar file, or a damaged one.
    """
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise InputError(f"no tar files in {folder}", "to pack a folder of images: facekit pack FOLDER SHARDS")
    values = {"facekit": 1, "command": COMMAND, "options": {}}
    card_there = folder / packed.CARD
    with lock.held(folder, COMMAND):
        written = 0
        for tar in tars:
            if not _index_fits(tar):
                files.remove(card_there)
                packed.write_index(tar, scan(tar), tar.stat().st_size)
                written += 1
        if not card_there.exists():
            claim.finish(folder, values, {"shards": len(tars)}, packed.CARD)
        found = packed.PackedFolder(folder)
    return Outcome(len(found.names), len(tars), written, [])


def _index_fits(tar: Path) -> bool:
    """Whether a tar file has the index that a scan of it would give, by their lengths and times."""
    try:
        length, _ = packed.read_index(tar)
    except InputError:
        return False
    stat = tar.stat()
    return length == stat.st_size and packed.index_file(tar).stat().st_mtime_ns >= stat.st_mtime_ns


def _key(source: Source) -> tuple[str, str]:
    """Return WebDataset's key and extension: a name up to the first dot after its folder, and the rest."""
    folder, slash, name = source.name.rpartition("/")
    stem, _, ending = name.partition(".")
    return folder + slash + stem, ending


def _groups(sources: Sequence[Source], shard_bytes: int) -> Iterator[list[Source]]:
    """Yield the images of each shard; those of one key stay together, as WebDataset needs it."""
    group: list[Source] = []
    size, last = 0, None
    for source in sorted((s for s in sources if not s.name.endswith("/")), key=_key):
        key = _key(source)[0]
        length = source.stamp().get("source_bytes", 0)
        each = BLOCK + -(-length // BLOCK) * BLOCK
        if group and size + each > shard_bytes and key != last:
            yield group
            group, size = [], 0
        group.append(source)
        size, last = size + each, key
    if group:
        yield group


def _is_current(tar: Path, group: Sequence[Source]) -> bool:
    """Whether a shard is there, whole, and holds these images as they are now."""
    try:
        length, columns = packed.read_index(tar)
        if content.stat(tar).st_size != length:
            return False
    except (InputError, OSError):
        return False
    now = [(s.name, stamp.get("source_bytes"), stamp.get("source_mtime")) for s in group for stamp in [s.stamp()]]
    return now == list(zip(columns.name, columns.length.tolist(), columns.mtime.tolist(), strict=True))


def _write(shard: Shard, advance: Callable[[], None] = lambda: None) -> list[tuple[str, str]]:
    """Write a shard and then its index; returns the images that cannot be read, as name and reason."""
    tar, group = shard
    failed, mtimes = [], {}
    files.remove(packed.index_file(tar))
    with files.replacing(tar) as part:
        with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
            for source in group:
                advance()
                try:
                    stamp, data = source.stamp(), source.read_bytes()
                except (OSError, InputError) as error:
                    failed.append((source.name, str(error)))
                    continue
                member = tarfile.TarInfo(source.name)
                member.size, member.mtime = len(data), stamp["source_mtime"] // 10**9
                archive.addfile(member, io.BytesIO(data))
                mtimes[source.name] = stamp["source_mtime"]
        columns, length = scan(part, mtimes), part.stat().st_size
    packed.write_index(tar, columns, length)
    return failed


def scan(tar: Path, mtimes: Mapping[str, int] | None = None) -> packed.Columns:
    """Read a tar file through and return what its index has to say; other files than images are passed over.

    `mtimes` are the images' times in ns where these are known more closely than to the second. Raises InputError for a
    tar file that is damaged or cut short, or that holds names outside its folder.
    """
    names: list[str] = []
    found: dict[str, list] = {key: [] for key in packed.TYPES}
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                data = _content(archive, member)
                if data is None or not _is_image(name, data):
                    continue
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise InputError(f"{tar} holds {name!r}, a name outside its folder", "make the shard again")
                try:
                    size = images.size_of(tar / name, data)
                except InputError:
                    size = (0, 0)
                names.append(name)
                found["offset"].append(member.offset_data)
                found["length"].append(len(data))
                found["crc"].append(zlib.crc32(data))
                found["mtime"].append((mtimes or {}).get(name, int(member.mtime * 10**9)))
                found["size"].append(size)
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{tar} is damaged or cut short: {error}", "copy it again") from error
    except OSError as error:
        raise InputError(f"{tar} cannot be read: {error}", "check the file and its permissions") from error
    arrays = {key: np.array(values, packed.TYPES[key]) for key, values in found.items()}
    return packed.Columns(names, **{**arrays, "size": arrays["size"].reshape(-1, 2)})


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    file = archive.extractfile(member) if member.isreg() else None
    if file is None:
        return None
    data = file.read()
    if len(data) < member.size:
        raise tarfile.ReadError(f"{member.name} has {len(data)} of {member.size} bytes")
    return data


def _is_image(name: str, data: bytes) -> bool:
    if PurePosixPath(name).name.startswith("."):
        return False
    return name.lower().endswith(SUFFIXES) or signatures.kind(data[: signatures.LENGTH]) in signatures.PICTURES


def _copy_notes(folder: Path, out: Path) -> None:
    """Copy what describes the images (manifests, cards, labels, class names) to the same place beside the shards."""
    for name in _files(folder, out):
        last = name.rpartition("/")[2]
        if last.lower().endswith(BESIDE) and last not in (packed.CARD, packed.UNFINISHED) and last[0] != ".":
            data, target = content.read_bytes(folder / name), out / name
            if not target.exists() or target.read_bytes() != data:
                files.write_bytes(target, data)


def _files(folder: Path, out: Path) -> Iterator[str]:
    """Yield the names of the files below a folder, but for those in the folder `out` and in hidden ones."""
    if is_remote(folder):
        own = url_of(out)
        names = remote.find(folder)
        yield from (one for one in names if not own or not (folder / one).is_relative_to(Path(own)))
        return
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and files.real(Path(top, name)) != files.real(out)]
        paths = (Path(top, name) for name in names)
        yield from (path.relative_to(folder).as_posix() for path in paths if path.is_file())


def _refuse_foreign(out: Path, force: bool) -> None:
    """Raise CardError where tar files would be replaced that facekit has not packed."""
    ours = any((out / name).exists() for name in (packed.CARD, packed.UNFINISHED))
    foreign = [] if ours or force else sorted(out.glob("*.tar"))
    if foreign:
        raise CardError(
            f"{foreign[0]} already exists and was not packed by facekit",
            f"choose another folder; or `facekit pack {out}` indexes the tar files that are there",
        )
