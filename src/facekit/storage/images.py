"""Reading, resizing and writing images, and conversion between PIL images and tensors."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from . import content, depth, files, repair, signatures
from .colour import to_srgb

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # a multi-picture JPEG counts as JPEG
PLUGINS = {  # kind of file -> Pillow's name of the format, the modules that add it, and what to install
    "AVIF": ("AVIF", ("pillow_avif",), "pillow-avif-plugin"),
    "HEIC": ("HEIF", ("pi_heif.HeifImagePlugin", "pillow_heif.HeifImagePlugin"), "'facekit-anime[heic]'"),
    "JPEG XL": ("JXL", ("pillow_jxl",), "'facekit-anime[jxl]'"),
    "JPEG 2000": ("JPEG2000", ("PIL.Jpeg2KImagePlugin",), "pillow"),
}
TURNED = ("HEIF", "JXL")  # their decoders rotate the image; its EXIF orientation does not apply again
MAX_PIXELS = 2 * 89_478_485  # Pillow's limit
MAX_EDGE = 65_535  # px, the limit of JPEG
MOST_REPAIRED = 500_000_000  # bytes; larger files are not repaired
ORIENTATION = 0x0112  # EXIF tag
WIDTH, HEIGHT = 256, 257  # TIFF tags
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

T = TypeVar("T")


def read(path: str | Path) -> Image.Image:
    """Decode an image file to 8-bit RGB in sRGB, rotated by its EXIF orientation; transparent pixels become white.

    The content decides the format, not the name. Damage outside the pixel data (text, checksums, a missing end marker)
    is repaired. Raises InputError for an empty, truncated or unknown file, and for an image of more than MAX_PIXELS or
    with an edge longer than MAX_EDGE.
    """
    return _read(Path(path))


def decode(data: bytes, name: str = "the image", most: int | None = None) -> Image.Image:
    """Decode an image that is in memory, as `read` does; `name` is what errors call it.

    Raises InputError as `read` does, and for an image of more than `most` px, before its pixels are decoded.
    """
    return _read(Path(name), data, most)


def _read(path: Path, data: bytes | None = None, most: int | None = None) -> Image.Image:
    def pixels(image: Image.Image) -> Image.Image:
        if most is not None and image.width * image.height > most:
            raise InputError(f"{path} has {image.width} x {image.height} px, more than {most:,}", "make it smaller")
        image.load()
        if image.format == "PNG" and image.mode == "RGB" and "transparency" in image.info:
            image = depth.read_transparent_png(content.read_bytes(path) if data is None else data, image)
        return _turned(to_srgb(image, str(path)), _orientation(image))

    return take_from(path, pixels, data)


def read_raw(path: str | Path) -> Image.Image:
    """Decode an image file, rotated by its EXIF orientation, in its own mode: palette indices and 16 bits are kept.

    Raises InputError as `read` does.
    """

    def pixels(image: Image.Image) -> Image.Image:
        image.load()
        return _turned(image, _orientation(image)).copy()

    return take_from(Path(path), pixels)


def size_of(path: str | Path, data: bytes | None = None) -> tuple[int, int]:
    """Return the width and height of the image that `read` returns, from its header or the index of a packed folder.

    `data` is the file's content, if it has been read already. Raises InputError as `read` does.
    """
    known = None if data is not None else content.known_size(Path(path))
    if known:
        return known

    def measure(image: Image.Image) -> tuple[int, int]:
        tags = getattr(image, "tag_v2", None)  # only some versions of Pillow rotate the size of a TIFF
        width, height = (tags[WIDTH], tags[HEIGHT]) if tags else image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)

    return take_from(Path(path), measure, data)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (upright) to 8; 1 if it cannot be read or does not apply."""
    if image.format in TURNED and not getattr(image, "jpeg", False):  # a JPEG packed as JPEG XL comes out as it was
        return 1
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises many kinds of errors on a damaged EXIF
        return 1
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) and value in TURNS else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def take_from(path: Path, take: Callable[[Image.Image], T], data: bytes | None = None) -> T:
    """Return `take(image)` of an image file; whatever Pillow raises becomes an InputError with the reason."""
    kind = None
    try:
        # An open file, not its name: Pillow maps some named TIFFs into memory, and gets rotated ones wrong.
        with content.open_file(path) if data is None else io.BytesIO(data) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            head = file.read(signatures.LENGTH)
            if not head:
                raise InputError(f"{path} is empty", "download or copy it again")
            kind = signatures.kind(head)
            file.seek(0)
            try:
                with Image.open(file, formats=_formats(path, kind)) as image:
                    return take(_of_fit_size(image, path))
            except (InputError, MemoryError, Image.DecompressionBombError):
                raise
            except Exception:  # Pillow's decoders raise many kinds of errors on broken data
                repaired = _repaired(path, data, kind)
                if repaired is None:
                    raise
                with repaired as image:
                    return take(_of_fit_size(image, path))
    except (InputError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}", "check the path") from error
    except UnidentifiedImageError as error:
        if kind in signatures.PICTURES or kind == "TIFF":
            reason = f"it is {kind}, but damaged or of a sort that is not read"
            raise InputError(f"{path} cannot be decoded: {reason}", "fetch it again, or convert it") from error
        why = f": it is {kind}" if kind else ""
        raise InputError(f"{path} is not an image{why}", "remove it, or convert it to PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has more than {MAX_PIXELS:,} px, too many", "make it smaller") from error
    except Exception as error:
        raise InputError(f"{path} cannot be decoded: {error}", "download or copy it again") from error


def _formats(path: Path, kind: str | None) -> tuple[str, ...]:
    """Return the Pillow formats to try for a file; raises InputError if no installed plugin reads its kind."""
    if kind not in PLUGINS:
        return FORMATS
    name, modules, package = PLUGINS[kind]
    Image.init()
    for module in modules:
        if name not in Image.OPEN:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
    if name not in Image.OPEN:
        raise InputError(f"{path} is {kind}, which Pillow does not read here", f"convert it, or pip install {package}")
    return (name,)


def _of_fit_size(image: Image.Image, path: Path) -> Image.Image:
    if max(image.size) > MAX_EDGE or image.width * image.height > MAX_PIXELS:
        raise InputError(f"{path} has {image.width} x {image.height} px, too many", "make it smaller")
    return image


def _repaired(path: Path, data: bytes | None, kind: str | None) -> Image.Image | None:
    """Open an image that Pillow cannot read as it is; None if it cannot be repaired or its pixels are damaged."""
    if data is None and content.stat(path).st_size > MOST_REPAIRED:
        return None
    data = content.read_bytes(path) if data is None else data
    if kind == "TIFF":
        return depth.read_packed_tiff(data)
    whole = repair.repaired(data)
    return None if whole is None else Image.open(io.BytesIO(whole), formats=FORMATS)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as 8-bit RGB in sRGB; transparent pixels become white."""
    return to_srgb(image)


def resize(image: Image.Image, size: int) -> Image.Image:
    """Resize to a square of `size` px: bicubic, antialiased. Every resize in facekit is this one."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def square(image: Image.Image) -> Image.Image:
    """Crop the central square."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.crop((left, top, left + edge, top + edge)) if image.width != image.height else image


def encode(image: Image.Image, suffix: str = ".png") -> bytes:
    """Encode an image in the format of `suffix`: PNG (lossless), or JPEG or WebP at quality 95."""
    out = io.BytesIO()
    if suffix.lower() == ".png":
        image.save(out, "PNG", compress_level=1)  # a tenth more bytes than 4 makes, in half the time
    else:
        image.save(out, Image.registered_extensions()[suffix.lower()], quality=95)
    return out.getvalue()


def save(image: Image.Image, path: str | Path) -> None:
    """Write an image atomically, in the format of its suffix."""
    files.write_bytes(Path(path), encode(image, Path(path).suffix))


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as a float tensor [3, H, W] in [-1, 1]."""
    return from_bytes(np.asarray(image, dtype=np.uint8)[None])[0]


def from_bytes(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Return pixels (uint8 [N, H, W, 3]) as a float tensor [N, 3, H, W] in [-1, 1], channels-last in memory."""
    import torch

    return torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_image(x: Tensor) -> Image.Image:
    """Return a tensor [3, H, W] in [-1, 1] as an RGB image; values outside are clipped, NaN becomes black."""
    return to_images(x[None])[0]


def to_images(x: Tensor) -> list[Image.Image]:
    """Return a tensor [N, 3, H, W] in [-1, 1] as RGB images, in one transfer from the device; see `to_image`."""
    import torch

    pixels = torch.nan_to_num(x.detach().float(), nan=-1.0).add(1).mul(127.5).round_().clamp_(0, 255)
    return [Image.fromarray(image) for image in pixels.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()]
