"""The kind of a file by its first bytes, whatever its name says."""

from __future__ import annotations

from pathlib import Path

from . import content

LENGTH = 64  # bytes that `kind` needs
STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"\0\x05\x16\x07", "an AppleDouble file of macOS, not the picture itself"),
    (b"version https://git-lfs", "a Git LFS pointer, not the picture itself"),
)
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"hevx": "HEIC"}
BRANDS |= {b"heim": "HEIC", b"heis": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # possible sizes, in bytes, of the header at offset 14
PICTURES = ("JPEG", "PNG", "GIF", "WebP", "BMP", "AVIF", "HEIC", "JPEG XL")


def kind(head: bytes) -> str | None:
    """Return the kind of a file with these first bytes (LENGTH are enough): "PNG", "HEIC", "a PDF", or None."""
    for start, name in STARTS:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"AVI ": "an AVI video"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, len(head), 4))]
        kinds = {BRANDS.get(brand) for brand in brands}
        return "AVIF" if "AVIF" in kinds else "HEIC" if "HEIC" in kinds else "an MP4 or QuickTime video"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return "BMP"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page"
    return "SVG" if text.startswith(b"<svg") else "an XML file" if text.startswith(b"<?xml") else None


def kind_of(path: Path) -> str | None:
    """Return the kind of a file; None if it is unknown or the file cannot be read."""
    try:
        with content.open_file(path) as file:
            return kind(file.read(LENGTH))
    except OSError:
        return None
