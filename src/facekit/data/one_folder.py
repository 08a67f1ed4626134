"""Training data for methods that learn from one folder of images."""

from __future__ import annotations

from ..errors import CardError
from ..runtime import console
from ..storage import card, files
from ..storage.folder import Folder
from .dataset import Layout, spread, usable_images, without


def open_one_folder(data: card.Data) -> Layout:
    """List the images of `data.a` (or `data.root`); a few are kept out of training for previews.

    Raises CardError where the card names no folder, or a second one; InputError where no image is readable.
    """
    if data.b:
        raise CardError("this method learns from one folder", "leave out --b")
    folder = data.a or data.root
    if not folder:
        raise CardError("no training data", "give --a DIR, a folder of images")
    images, line = usable_images(Folder(folder), data.limit)
    count = data.holdout if data.holdout is not None else min(16, len(images) // 16)
    kept_out = spread(images, min(count, len(images) - 1))
    training = without(images, kept_out)
    shown = kept_out or training[:4]
    name = files.real(folder).name
    console.note(f"{name}: {line}; previews of {len(shown)}")
    console.fact("data", a={"folder": str(folder), "images": len(training), "held_out": len(kept_out)})
    return Layout({"a": training}, {"a": shown}, {"a": "a" if name == "b" else name}, {"a": shown})
