"""Contact sheets: tables of images with titles and labels."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ..errors import CardError
from ..storage import files, images

INK, PAPER, GAP = (40, 40, 46), (255, 255, 255), 6


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    titles: Sequence[str] = (),
    labels: Sequence[str] = (),
    size: int = 128,
    groups: int = 1,
) -> Image.Image:
    """Lay out rows of images as a table of cells of `size` px, with column titles and row labels.

    With `groups` > 1 so many rows stand side by side. Images keep their proportions. Short rows leave cells empty.
    """
    columns = max((len(row) for row in rows), default=0) or 1
    groups = max(1, min(groups, len(rows)))
    lines = -(-len(rows) // groups)
    head = 22 if titles else 0
    foot = 15 if labels else 0
    block = columns * (size + GAP) + GAP
    sheet = Image.new("RGB", (groups * block, head + GAP + lines * (size + foot + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for group in range(groups):
        for column, title in enumerate(titles):
            left = group * block + GAP + column * (size + GAP)
            _text(draw, (left, 5), title, size, 13)
    for index, row in enumerate(rows):
        top = head + GAP + (index // groups) * (size + foot + GAP)
        for column, image in enumerate(row):
            left = (index % groups) * block + GAP + column * (size + GAP)
            scale = size / max(image.size)
            shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            small = image if image.size == shape else image.resize(shape, Image.Resampling.BICUBIC)
            sheet.paste(small, (left + (size - small.width) // 2, top + (size - small.height) // 2))
        if labels:
            _text(draw, ((index % groups) * block + GAP, top + size + 1), labels[index], columns * (size + GAP), 11)
    return sheet


def _text(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, width: float, size: int) -> None:
    """Write a line, cut to `width` px."""
    font = ImageFont.load_default(size)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    while text and draw.textlength(text, font) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    draw.text(at, text, INK, font)


def save_sheet(path: Path, rows: Sequence[Sequence[Image.Image]], **options: object) -> None:
    """Write a contact sheet whole, in the format of its name; a PNG says that facekit wrote it.

    What a killed process left of the same sheet is removed.
    """
    sheet = contact_sheet(rows, **options)  # type: ignore[arg-type]
    files.sweep_beside(path)
    if path.suffix.lower() != ".png":
        images.save(sheet, path)
        return
    mark, out = PngInfo(), io.BytesIO()
    mark.add_text("Software", "facekit")
    sheet.save(out, "PNG", compress_level=4, pnginfo=mark)
    files.write_bytes(path, out.getvalue())


def refuse_foreign(path: Path) -> None:
    """Raise CardError where `path` is a file, and no contact sheet of facekit."""
    if not os.path.lexists(path):
        return
    with contextlib.suppress(OSError, ValueError, SyntaxError), Image.open(path, formats=("PNG",)) as image:
        if image.info.get("Software") == "facekit":
            return
    raise CardError(f"{path} already exists and was not created by facekit", "move it, or --force replaces it")
