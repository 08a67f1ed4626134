"""Repair of image files whose pixel data is complete: damaged parts that do not affect the picture are dropped.

Such parts are text, thumbnails and checksums; decoders fail on them although the picture does not need them.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT")
PNG_MEANING = {b"tRNS": 1, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"iCCP": 4, b"eXIf": 4}
"""Chunks that change how the pixels are shown, and the least number of bytes of each."""
WEBP_PIXELS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
WEBP_MEANING = {b"ICCP": 0x20, b"EXIF": 0x08}  # with their bits in the flags of VP8X
XMP = 0x04
JPEG_MEANING = {b"JFIF\0": 14, b"Exif\0\0": 14, b"ICC_PROFILE\0": 15, b"Adobe": 12}
"""First bytes of JPEG segments that change how the image is shown, and the least number of bytes of each."""
MOST_PIXELS = 4_000_000_000  # bytes of decompressed pixels
MOST = 1_000_000  # bytes of a decompressed profile, Pillow's limit
FILLERS = (b"\xaa" * 999, b"\x37" * 999, b"\xfe" * 999)


def repaired(data: bytes) -> bytes | None:
    """Return an image file without damaged parts that the picture does not need; None if it cannot be repaired."""
    if data.startswith(PNG_START):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    return None


def _png(data: bytes) -> bytes:
    """Keep the chunks of the pixels, and those that change how they are shown if they are intact.

    A wrong checksum of the pixels is corrected if the compressed pixels themselves are complete.
    """
    kept, packed = [], b""
    at = len(PNG_START)
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body, crc = data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        at += 12 + length
        whole = len(body) == length and crc == zlib.crc32(kind + body).to_bytes(4, "big")
        means = whole and len(body) >= PNG_MEANING.get(kind, length + 1) and not _is_bomb(kind, body)
        if kind == b"IDAT":
            packed += body
        elif kind in PNG_PIXELS or means:
            kept.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
        if kind == b"IEND":
            break
    for kind, body in ((b"IDAT", _summed(packed, data[16:24])), (b"IEND", b"")):
        kept.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return PNG_START + b"".join(kept)


def _summed(packed: bytes, size: bytes) -> bytes:
    """Return the pixels of a PNG of width and height `size` (8 bytes) with the checksum that they have."""
    width, height = struct.unpack(">II", size) if len(size) == 8 else (0, 0)
    most = 8 * (width + 8) * (height + 8) * 2  # bytes of 16-bit RGBA, interlaced, with a byte for each row
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)  # without the checksum
    try:
        pixels = inflate.decompress(packed[2:], most) if most < MOST_PIXELS else b""
    except zlib.error:
        return packed
    whole = inflate.eof and inflate.unused_data[:4] != zlib.adler32(pixels).to_bytes(4, "big")
    return zlib.compress(pixels, 1) if whole else packed


def _is_bomb(kind: bytes, body: bytes) -> bool:
    if kind != b"iCCP":
        return False
    try:
        return len(zlib.decompressobj().decompress(body.partition(b"\0")[2][1:], MOST + 1)) > MOST
    except zlib.error:
        return True


def _jpeg(data: bytes) -> bytes | None:
    """Leave out damaged segments before the pixels, and add a missing end marker if the picture is complete without it.

    The decoder reads on to the end marker. So the picture is complete if extra bytes before the marker do not change
    it.
    """
    lean = _lean_jpeg(data)
    if lean != data:
        with contextlib.suppress(OSError, SyntaxError):
            _decoded(lean)
            return lean
    data = lean
    body = data[:-1] if data.endswith(b"\xff") else data
    ended = body + b"\xff\xd9"
    try:
        picture = _decoded(ended)
        complete = all(_decoded(body + filler + b"\xff\xd9") == picture for filler in FILLERS)
    except OSError:
        return None
    return ended if complete else None


def _lean_jpeg(data: bytes) -> bytes:
    """Return a JPEG with only those segments of applications that say how to show it, and are as long as they must be.

    These are JFIF, EXIF, parts of a profile, and Adobe's colour transform; comments and the like go.
    """
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # filling, or without a length
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        least = next((size for start, size in JPEG_MEANING.items() if body.startswith(start)), len(body) + 1)
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or len(body) >= least:
            kept.append(data[at:end])
        at = end
        if marker == 0xDA:
            break
    return b"".join(kept) + data[at:]


def _decoded(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return image.tobytes()


def _webp(data: bytes) -> bytes:
    """Keep the chunks of the pixels, and the profile and EXIF if they are intact."""
    kept, flags = [], 0
    for kind, body, whole in _riff(data):
        if kind in WEBP_PIXELS or (kind in WEBP_MEANING and whole):
            kept.append((kind, body))
            flags |= WEBP_MEANING.get(kind, 0)
    out = b""
    for kind, body in kept:
        if kind == b"VP8X" and body:
            lost = XMP | sum(bit for bit in WEBP_MEANING.values() if not flags & bit)
            body = bytes([body[0] & ~lost]) + body[1:]
        out += kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(out) + 4) + b"WEBP" + out


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield the chunks of a WebP file: name, content, and whether the content is complete."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack("<4sI", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        yield kind, body, len(body) == length
        at += 8 + length + length % 2
