"""How often a classifier recognises the label that images were translated to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import CardError, InputError
from ..runtime import console
from ..storage import images
from ..storage.card import suggest
from ..storage.folder import Folder

if TYPE_CHECKING:
    from ..recipe_api.checkpoint import Model

BATCH = 32


@torch.inference_mode()
def accuracy(out: str | Path, model: Model, label: str, limit: int | None = None) -> float:
    """Return the share of a folder's images in which a model of recipe `classifier` recognises `label`.

    Of labels that exclude each other the most probable counts; an attribute needs a probability above 0.5. Raises
    CardError for a model that is not a classifier or does not know the label, InputError if no image can be read.
    """
    recipe: Any = model.recipe
    known = getattr(recipe.params, "labels", ())
    if not callable(getattr(recipe, "probabilities", None)):
        raise CardError(f"{model.path} is not a classifier", "give weights of the recipe classifier")
    if label not in known:
        raise CardError(f"the classifier does not know {label!r}{suggest(label, known)}", "train it on these labels")
    place = next(model.nets.parameters()).device
    column, right, count = known.index(label), 0, 0
    sources = Folder(out).sources()[:limit]
    for start in range(0, len(sources), BATCH):
        pictures = []
        for source in sources[start : start + BATCH]:
            try:
                pictures.append(images.resize(images.square(images.read(source.path)), model.card.data.size))
            except InputError as error:
                console.warn(f"skipped: {error.message}")
        if not pictures:
            continue
        seen = recipe.probabilities(model.nets, torch.stack([images.to_tensor(p) for p in pictures]).to(place))
        hit = seen.argmax(1) == column if recipe.params.single else seen[:, column] > 0.5
        right, count = right + int(hit.sum()), count + len(pictures)
    if not count:
        raise InputError(f"no image of {out} can be read", "the warnings say why")
    return right / count
