"""ICC profiles for tests, by the layout of ICC.1:2022: RGB, grey and CMYK."""

import io
import itertools
import struct

from PIL import Image, ImageCms

D50 = (0.9642, 1.0, 0.8249)


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _profile(space: bytes, kind: bytes, lab: bool, tags: dict[bytes, bytes]) -> bytes:
    name = b"test\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78),
        b"cprt": b"text" + bytes(4) + name,
        b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50),
        **tags,
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, value in tags.items():
        table += struct.pack(">4sII", tag, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI", start + len(body), b"test", 0x02400000) + kind + space + (b"Lab " if lab else b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(*D50)
    return head.ljust(128, b"\0") + table + body


def _curve(exponent: float | None) -> bytes:
    values = (exponent,) if exponent else (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para" + bytes(4) + struct.pack(">HH", 0 if exponent else 3, 0) + _fixed(*values)


def rgb(*primaries: tuple[float, float, float], exponent: float | None = None) -> bytes:
    """Primaries as XYZ relative to D50, and a power curve; without `exponent` the curve is sRGB's."""
    colours = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True))
    tags = {name: b"XYZ " + bytes(4) + _fixed(*value) for name, value in colours.items()}
    return _profile(b"RGB ", b"mntr", False, {**tags, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(exponent))})


def grey(exponent: float) -> bytes:
    return _profile(b"GRAY", b"mntr", False, {b"kTRC": _curve(exponent)})


def cmyk() -> bytes:
    """Ink makes darker: L* falls with C + M + Y and K, and a* and b* follow the inks, as a table of 2 points."""
    table = b""
    for c, m, y, k in itertools.product((0, 1), repeat=4):
        light = 255 * (1 - (c + m + y) / 4) * (1 - k)
        table += bytes([round(light), 128 - 40 * c * (1 - k) + 40 * m * (1 - k), 128 + 50 * y * (1 - k)])
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += bytes(range(256)) * 4 + table + bytes(range(256)) * 3
    return _profile(b"CMYK", b"prtr", True, {b"A2B0": lut})


SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
P3 = rgb((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
ADOBE = rgb((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457), exponent=2.19922)
SWAPPED = rgb(SRGB[1], SRGB[0], SRGB[2])
GREY, CMYK = grey(1.4), cmyk()


def shown(image: Image.Image, profile: bytes) -> Image.Image:
    """What littleCMS makes of an image: the right answer."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    out = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert out is not None
    return out
