"""What a translation keeps of its source: whether eyes, nose and mouth landed where they were, and whose face it is.

Both look at pairs of images, so they need the faces that were translated, not the photos those were cut from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import CardError, InputError
from ..runtime import console
from ..storage import images
from ..storage.folder import Folder, Source, output_names

if TYPE_CHECKING:
    from ..recipe_api.checkpoint import Model

LANDED = ("eyes", "nose", "mouth")
PARTS = (*LANDED, "skin", "hair")
BATCH = 16
NEAR = 16  # of 255: what a pixel may move by and count as unchanged


def measure(
    source: str | Path, out: str | Path, segnet: Model | None, face: Model | None, limit: int | None = None
) -> dict[str, float]:
    """Return what the images of `out` keep of those of the same name in `source`.

    "IoU-parts": intersection over union of a part's pixels in source and translation, mean over pairs, then over eyes,
    nose and mouth; "IoU-NAME" for each of these and for skin and hair. "identity-cosine": cosine of the two face
    embeddings, mean over pairs. "unchanged": share of pixels that moved by at most `NEAR` in every colour, mean over
    pairs. "pairs": how many there were. Without `segnet` or `face` their figures are left out.
    Both images are brought to the model's own size. Raises InputError where no pair is left or no part is seen,
    CardError for a model that is not of the kind.
    """
    classes = _classes(segnet) if segnet else ()
    if face and not callable(getattr(face.recipe, "embed", None)):
        raise CardError("the face model makes no embeddings", "give weights of the recipe facefeat")
    agreement: dict[str, list[float]] = defaultdict(list)
    cosines: list[float] = []
    still: list[float] = []
    count = 0
    found = pairs(source, out)[:limit]
    with console.progress("keeping", len(found)) as bar:
        for before, after in _batches(found):
            if segnet:
                for name, values in _agreement(segnet, classes, before, after).items():
                    agreement[name] += values
            if face:
                cosines += _cosines(face, before, after)
            still += [_unchanged(*pair) for pair in zip(before, after, strict=True)]
            count += len(before)
            bar.advance(len(before))
    if not count:
        raise InputError(f"no pair of {source} and {out} can be read", "look at the warnings")
    scores = {f"IoU-{name}": float(np.mean(agreement[name])) for name in PARTS if agreement[name]}
    landed = [scores[f"IoU-{name}"] for name in LANDED if f"IoU-{name}" in scores]
    if segnet and not landed:
        raise InputError(f"the segnet sees no eyes, nose or mouth in {source} or {out}", "are these faces?")
    if landed:
        unseen = [name for name in LANDED if f"IoU-{name}" not in scores]
        if unseen:
            console.warn(f"the segnet sees no {' and no '.join(unseen)} in any image: IoU-parts is without")
        scores = {"IoU-parts": float(np.mean(landed)), **scores}
    if face:
        scores["identity-cosine"] = float(np.mean(cosines))
    return {**scores, "unchanged": float(np.mean(still)), "pairs": count}


def unmasked(masks: str | Path) -> float:
    """Return the share of the faces that their masks, as `translate --mask` writes them, leave alone: 1 - mean mask.

    Raises InputError where there is no mask.
    """
    grey = [np.asarray(images.read(source.path).convert("L"), np.float32) for source in Folder(masks).sources()]
    return 1 - float(np.mean([mask.mean() for mask in grey])) / 255


def _unchanged(before: Image.Image, after: Image.Image) -> float:
    """Return the share of pixels that moved by at most `NEAR` of 255 in every colour, at the translation's size."""
    if before.size != after.size:
        before = before.resize(after.size, Image.Resampling.BICUBIC)
    apart = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)).max(2)
    return float((apart <= NEAR).mean())


def pairs(source: str | Path, out: str | Path) -> list[tuple[Path, Path]]:
    """Return the images of two folders that belong together: same name and sub-folder, whatever the file type.

    `a.jpg` beside `a.png` pair with the `a_jpg` and `a_png` that `translate` makes of them. Images without a partner
    are warned about; raises InputError where no image has one.
    """
    befores, afters = _by_stem(Folder(source).sources()), {_stem(s): s for s in Folder(out).sources()}
    both = [name for name in afters if name in befores]
    if not both:
        raise InputError(
            f"no image in {out} has the name of one in {source}", "give the folder that was translated as --source"
        )
    if len(both) < len(afters):
        console.warn(f"{len(afters) - len(both)} of {len(afters)} images in {out} have no source in {source}")
    return [(befores[name].path, afters[name].path) for name in sorted(both)]


def _stem(source: Source) -> str:
    return source.name.rpartition(".")[0]


def _by_stem(sources: list[Source]) -> dict[str, Source]:
    names = output_names(sources, "")
    return {names[source.name]: source for source in sources}


def _classes(model: Model) -> tuple[str, ...]:
    """Return a segnet's classes; raises CardError where the model is none or lacks eyes, nose or mouth."""
    classes = tuple(getattr(model.recipe.params, "classes", ()))
    if not callable(getattr(model.recipe, "label", None)) or not set(LANDED) <= set(classes):
        raise CardError(f"the segnet does not label {', '.join(LANDED)}", "give weights of the recipe segnet")
    return classes


def _batches(found: list[tuple[Path, Path]]) -> Iterator[tuple[list, list]]:
    """Yield readable pairs as lists of sources and translations; the others are warned about."""
    for start in range(0, len(found), BATCH):
        befores, afters = [], []
        for before, after in found[start : start + BATCH]:
            try:
                pair = images.read(before), images.read(after)
            except InputError as error:
                console.warn(f"left out: {error.message}")
                continue
            befores.append(pair[0])
            afters.append(pair[1])
        if befores:
            yield befores, afters


def _tensor(model: Model, pictures: list) -> Tensor:
    """Return images as [N, 3, size, size] in the model's size and on its device."""
    weights = next(iter(model.nets.parameters()), None)
    x = torch.stack([images.to_tensor(images.resize(picture, model.card.data.size)) for picture in pictures])
    return x if weights is None else x.to(weights.device)


@torch.inference_mode()
def _agreement(model: Model, classes: tuple[str, ...], before: list, after: list) -> dict[str, list[float]]:
    """Return the intersection over union of each part, of those pairs that show it in one image or both."""
    recipe: Any = model.recipe
    labels = [recipe.label(model.nets, _tensor(model, pictures)) for pictures in (before, after)]
    found = {}
    for name in set(PARTS) & set(classes):
        x, y = (label == classes.index(name) for label in labels)
        both, either = (x & y).flatten(1).sum(1), (x | y).flatten(1).sum(1)
        found[name] = (both[either > 0] / either[either > 0]).tolist()
    return found


@torch.inference_mode()
def _cosines(model: Model, before: list, after: list) -> list[float]:
    recipe: Any = model.recipe
    x, y = (recipe.embed(model.nets, _tensor(model, pictures)).float() for pictures in (before, after))
    return torch.nn.functional.cosine_similarity(x, y).tolist()
