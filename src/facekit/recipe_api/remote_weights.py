"""Weights by URL: downloaded once, checked, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import CardError
from ..runtime import console
from ..sources.download import download
from ..sources.errors import AddressRefused
from ..sources.url_guard import Hosts, PublicHosts, redacted
from ..storage import files
from ..storage.cache import cache_folder

LARGEST = 4_000_000_000  # bytes
HUB = "hf://"  # hf://USER/NAME[@REVISION][/FILE] on the Hugging Face Hub, or on that of HF_ENDPOINT
HUB_FILE = "model.safetensors"
NOTES = "source.json"  # beside a downloaded file: where it comes from


@dataclass(frozen=True)
class Address:
    """Where weights are, and the SHA-256 that their file must have: `https://host/file.safetensors#sha256=HEX`."""

    url: str
    sha256: str | None = None

    @property
    def folder(self) -> Path:
        """Where the cache keeps them."""
        return cache_folder() / "weights" / hashlib.sha256(self.url.encode()).hexdigest()[:16]

    @property
    def file(self) -> Path:
        """The file in the cache; it may not exist yet."""
        stem = re.sub(r"[^\w.-]+", "_", unquote(urlsplit(self.url).path).rpartition("/")[2]).strip(".")
        return self.folder / f"{stem.removesuffix('.safetensors')[:80] or 'weights'}.safetensors"


def is_url(name: object) -> bool:
    """Return whether the name of weights is an address of the web."""
    return str(name).lower().startswith(("http://", "https://", HUB))


def with_digest(weights: str, sha256: str | None) -> str:
    """Return the name of weights with the digest that they must have; raises CardError where that makes no sense."""
    if sha256 is None:
        return weights
    if not is_url(weights):
        raise CardError("--sha256 is for weights by URL", "leave it out")
    return f"{weights.partition('#')[0]}#sha256={sha256}"


def parse(name: str) -> Address:
    """Return the address in the name of weights; raises CardError for a digest that is none and for plain http."""
    url, _, fragment = name.partition("#")
    if url.lower().startswith(HUB):
        url = _on_the_hub(url[len(HUB) :])
    if not fragment:
        if not url.lower().startswith("https://"):
            raise CardError(f"{redacted(url)} is not https, so anyone on the way could change it", "add --sha256 HEX")
        return Address(url)
    digest = fragment.removeprefix("sha256=").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise CardError(f"{fragment[:80]!r} is not a SHA-256", "give 64 hexadecimal digits, as sha256sum prints them")
    return Address(url, digest)


def _on_the_hub(place: str) -> str:
    """Return the URL of USER/NAME[@REVISION][/FILE]; raises CardError for anything else."""
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w./-]+))?", place)
    if not found or ".." in place:
        raise CardError(f"{HUB}{place[:80]} is no address", "hf://USER/NAME, hf://USER/NAME@REVISION/FILE.safetensors")
    base = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{base}/{found[1]}/resolve/{found[2] or 'main'}/{found[3] or HUB_FILE}"


def hosts_of(address: Address) -> Hosts:
    """Return which hosts a download may contact: those of the public internet, because redirects lead to others.

    Plain http is enough where the digest is known.
    """
    try:
        port = urlsplit(address.url).port
    except ValueError:
        port = None
    return PublicHosts([port] if port else [], secure=address.sha256 is None)


def fetch(name: str) -> Path:
    """Return the file of weights by URL: from the cache, or downloaded into it.

    Raises CardError for an address that is malformed, InputError (FetchError) where it cannot be downloaded, or where
    the file is not the one that the digest is of.
    """
    address = parse(name)
    path = address.file
    if path.is_file():
        found = files.sha256(path)
        if found == (address.sha256 or _noted(address)):
            return path
        console.warn(f"{path} in the cache is not what it should be: it is downloaded again")
    console.note(f"weights: downloading {redacted(address.url)}")
    try:
        found = download(address.url, path, hosts_of(address), LARGEST, address.sha256)
    except AddressRefused as error:
        raise CardError(error.message, "download it yourself, and give the file") from error
    notes = {"url": redacted(address.url), "sha256": found, "bytes": path.stat().st_size}
    files.write_text(address.folder / NOTES, json.dumps(notes, indent=1) + "\n")
    if address.sha256 is None:
        console.note(f"weights: to be sure of the same file everywhere, add --sha256 {found}")
    return path


def downloaded() -> dict[Path, str]:
    """Return the weights in the cache, with the addresses that they come from."""
    found: dict[Path, str] = {}
    for notes in sorted((cache_folder() / "weights").glob(f"*/{NOTES}")):
        try:
            url = str(json.loads(notes.read_text(encoding="utf-8"))["url"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found |= dict.fromkeys(sorted(notes.parent.glob("*.safetensors")), url)
    return found


def _noted(address: Address) -> str | None:
    try:
        return str(json.loads((address.folder / NOTES).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
