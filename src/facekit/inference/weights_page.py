"""A page of the weights at hand, with a picture by each: one file that opens in any browser."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from ..errors import CardError, FacekitError
from ..faces import MARGIN, align_face, find_detector, find_faces
from ..recipe_api import checkpoint, weights_list
from ..reports import html
from ..runtime import console
from ..storage import images
from .translator import Translator

SIZE = 192  # px, of a picture of a face
MOST_TARGETS = 5  # shown of one set of weights
OURS = b'<meta name="generator" content="facekit weights">'


def write_page(rows: Sequence[dict[str, Any]], page: Path, photo: Path | None = None) -> None:
    """Write a page of weights, given as rows of `weights_list.overview`: facts, model card, and what they draw.

    Weights that translate photos show the face of `photo`, or of a photo that scikit-image brings, before and after; a
    run of another kind shows its newest preview. Raises CardError where `page` holds something else, InputError for a
    photo that cannot be read or shows no face.
    """
    if page.is_dir():
        raise CardError(f"{page} is a folder", f"--page {page / 'weights.html'}")
    if page.exists() and OURS not in page.read_bytes()[:4000]:
        raise CardError(f"{page} already exists and was not created by facekit", "choose another --page")
    pixels = np.asarray(images.read(photo)) if photo else data.astronaut()
    detector = find_detector("facekit", None)
    face = align_face(pixels, find_faces(detector, pixels, False)[0], 256, MARGIN).image
    shown = []
    with console.progress("weights", len(rows)) as bar:
        for row in rows:
            pictures, reason = draw(row, face)
            embedded = [(title, _embedded(picture)) for title, picture in pictures]
            shown.append({**row, "pictures": embedded, "reason": reason, "card": weights_list.model_card(row["path"])})
            bar.advance(1)
    html.write(page, "weights.html", title="Weights", rows=shown)


def draw(row: dict[str, Any], face: Image.Image) -> tuple[list[tuple[str, Image.Image]], str]:
    """Return pictures, each with a title, of what weights draw; or none, and why."""
    if "problem" in row:
        return [], row["problem"]
    path = Path(row["path"])
    try:
        made = _translations(row, face) if row["to"] else []
    except FacekitError as error:
        return [], error.message
    if made:
        return [("photo", face), *made], ""
    previews = sorted((path.parent / "previews").glob("[0-9]*.png")) if path.name == checkpoint.FILE else []
    if previews:
        return [(f"step {int(previews[-1].stem):,}", images.read(previews[-1]))], ""
    return [], "it draws no face from a photo" if row["to"] else "a helper of other commands: it draws nothing"


def _translations(row: dict[str, Any], face: Image.Image) -> list[tuple[str, Image.Image]]:
    model = checkpoint.load_model(row["path"], "cpu")
    source = model.recipe.previews()
    from_photos = [name for name, to in model.directions.items() if source.get(to, "a") == "a"]
    if not from_photos or model.recipe.needs_source:
        return []
    translator = Translator(model, from_photos[0])
    return [(name, translator.batch([face], name)[0]) for name in from_photos[:MOST_TARGETS]]


def _embedded(picture: Image.Image) -> str:
    """Return a picture as an address that holds it; a face at SIZE px, a sheet as it is up to 2,000 px."""
    small = picture.copy()
    edge = SIZE if picture.width == picture.height else 2000
    small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return "data:image/webp;base64," + base64.b64encode(images.encode(small, ".webp")).decode()
