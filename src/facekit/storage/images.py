"""Images in and out: decoding whatever people have, the one resize, encoding, and PIL <-> tensor."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError
from . import files

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # a multi-picture JPEG counts as JPEG
MAX_PIXELS = 200_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow raises DecompressionBombError at twice this; `read` refuses from here on


def read(path: str | Path) -> Image.Image:
    """Decode an image file to RGB, turned as its EXIF says; transparency goes over white, 16 bits become 8.

    The content decides the format, not the name. Raises InputError for an empty, truncated, unknown or enormous
    file (more than MAX_PIXELS).
    """
    with _opened(Path(path)) as image:
        return to_rgb(ImageOps.exif_transpose(image))


def size(path: str | Path) -> tuple[int, int]:
    """Return an image file's width and height from its header alone; raises InputError as `read` does."""
    with _opened(Path(path)) as image:
        return image.size


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever Pillow raises becomes an InputError that says what is wrong with the file."""
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty", "fetch it again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InputError(f"{path} has {image.width} x {image.height} px, too many", "make it smaller")
                yield image
    except (InputError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}", "check the path") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image", "remove it, or convert it to PNG or JPEG") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is enormous: {error}", "make it smaller") from error
    except Exception as error:  # on broken data Pillow's decoders raise whatever comes to hand
        raise InputError(f"{path} cannot be decoded: {error}", "fetch it again") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: 16-bit and float grey scaled to 8 bits, transparency composed over white."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)
        if image.mode == "F" and grey.max() <= 1:
            grey = grey * 255
        elif image.mode.startswith("I;") or grey.max() > 255:
            grey = grey / 257
        return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def resize(image: Image.Image, size: int) -> Image.Image:
    """Resize to a square of `size` px: bicubic, antialiased. Every resize in facekit is this one."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def square(image: Image.Image) -> Image.Image:
    """Crop the middle square."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.crop((left, top, left + edge, top + edge)) if image.width != image.height else image


def encode(image: Image.Image, suffix: str = ".png") -> bytes:
    """Encode an image: PNG (losslessly), or by `suffix` JPEG or WebP at quality 95."""
    out = io.BytesIO()
    if suffix.lower() == ".png":
        image.save(out, "PNG", compress_level=4)
    else:
        image.save(out, Image.registered_extensions()[suffix.lower()], quality=95)
    return out.getvalue()


def save(image: Image.Image, path: str | Path) -> None:
    """Write an image whole, in the format of its name."""
    files.write_bytes(Path(path), encode(image, Path(path).suffix))


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as a float tensor [3, H, W] in [-1, 1]."""
    return from_bytes(np.asarray(image, dtype=np.uint8)[None])[0]


def from_bytes(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Return pixels (uint8 [N, H, W, 3]) as a float tensor [N, 3, H, W] in [-1, 1], in channels-last."""
    import torch

    return torch.from_numpy(np.array(pixels)).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_image(x: Tensor) -> Image.Image:
    """Return a tensor [3, H, W] in [-1, 1] as an RGB image; values outside are cut, NaN becomes black."""
    return to_images(x[None])[0]


def to_images(x: Tensor) -> list[Image.Image]:
    """Return a tensor [N, 3, H, W] in [-1, 1] as RGB images, which leave the device together; see `to_image`."""
    import torch

    pixels = torch.nan_to_num(x.detach().float(), nan=-1.0).add(1).mul(127.5).round_().clamp_(0, 255)
    return [Image.fromarray(image) for image in pixels.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()]
