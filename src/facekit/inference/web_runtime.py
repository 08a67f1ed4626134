"""The files of onnxruntime-web that a page needs, from the npm package: downloaded once, checked, and cached."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError, MissingError
from ..runtime import console
from ..sources.download import download
from ..sources.errors import FetchError
from ..sources.url_guard import Hosts, PublicHosts
from ..storage import files
from ..storage.cache import cache_folder

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
LARGEST = 500_000_000  # bytes of the package, and of any file in it
FILES = (  # a processor's files, then a graphics card's
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
LICENCE = "onnxruntime-web: MIT licence, copyright Microsoft Corporation; https://github.com/microsoft/onnxruntime\n"


def hosts() -> Hosts:
    """Return which hosts the download may contact."""
    return PublicHosts()


def find(given: Path | None = None) -> Path:
    """Return the npm package's archive: `given`, or else the one in the cache, downloaded where it is not there.

    Raises InputError for a file that is missing, and where the download fails or is not the file that was meant.
    """
    if given is not None:
        if not given.is_file():
            raise InputError(f"no file {given}", f"npm pack onnxruntime-web@{VERSION} makes one")
        return given
    path = cache_folder() / "onnxruntime-web" / URL.rpartition("/")[2]
    if path.is_file() and files.sha256(path) == SHA256:
        return path
    console.note(f"export: downloading onnxruntime-web {VERSION}")
    try:
        download(URL, path, hosts(), LARGEST, SHA256)
    except FetchError as error:
        hint = f"--runtime FILE, which `npm pack onnxruntime-web@{VERSION}` writes on another machine"
        raise InputError(f"onnxruntime-web cannot be downloaded: {error.message}", hint) from error
    return path


def unpack(archive: Path) -> Mapping[str, bytes]:
    """Return the files that a page needs, by name; raises MissingError for an archive that lacks them."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as opened:
            for name in FILES:
                member = opened.getmember(f"package/dist/{name}")
                data = opened.extractfile(member) if member.isfile() and member.size <= LARGEST else None
                if data is None:
                    raise KeyError(name)
                found[name] = data.read()
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise MissingError(
            f"{archive} is not the package onnxruntime-web: {error}", f"npm pack onnxruntime-web@{VERSION} makes one"
        ) from error
    return {**found, "LICENSE.txt": LICENCE.encode()}
