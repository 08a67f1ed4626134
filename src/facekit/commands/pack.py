"""`facekit pack`: a folder of images into tar files that every command reads as that folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import options, outputs


@outputs.may_be_urls("shards")
def pack(
    source: Annotated[Path, typer.Argument(help="a folder of images; without SHARDS a folder of tar files to index")],
    shards: Annotated[Optional[Path], typer.Argument(help="folder for the tar files and their indices")] = None,
    *,
    shard_size: Annotated[int, typer.Option(min=1, help="bytes of a tar file, in millions")] = 256,
    engine: options.EngineName = "local",
    address: options.Address = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Pack a folder of images into tar files in WebDataset's layout, with an index that finds each image.

    Wherever facekit takes a folder it takes SHARDS, and the sub-folders in it: the images have the names that they had.
    Manifests, cards, labels and class names are copied beside the tar files. A second run packs only what has changed.
    """
    from ..errors import CardError
    from ..runtime import console
    from ..runtime.engine import Engine
    from ..storage import files, pack_folder
    from ..storage.folder import Folder

    source = Path(source)
    if shards is None:
        done = pack_folder.index(source)
        console.result(
            f"pack: {done.images} images in {source}; of {done.shards} tar files {done.written} were indexed now",
            images=done.images,
            shards=done.shards,
            written=done.written,
        )
        return source
    shards = Path(shards)
    folder = Folder(source, without=shards)
    if files.real(shards) == files.real(source):
        raise CardError(f"{shards} is both input and output", "choose another output")
    given = {"source": str(source), "out": str(shards), "shard_size": shard_size}
    if dry_run:
        found = folder.sources()
        console.result(f"pack: {len(found)} images into {shards}", sources=len(found), options=given)
        return shards
    values = {"facekit": 1, "command": "pack", "options": given}
    done = pack_folder.pack(folder, shards, shard_size * 10**6, values, force, Engine(engine, address))
    console.result(
        f"pack: {done.images} images in {shards}; of {done.shards} tar files {done.written} were written now",
        images=done.images,
        shards=done.shards,
        written=done.written,
    )
    return shards
