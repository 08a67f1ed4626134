"""What a translation preserves of its source: where the parts of the face are, their colours, and whose face it is.

All of it compares pairs of images, so it needs the aligned faces that were translated, not the photos they come from.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import CardError, InputError
from ..runtime import console
from ..storage import images
from ..storage.folder import Folder
from . import pairing
from .pairing import Table
from .parts import LANDED, PARTS, Masks, colour_distances, landmark_distance, overlap

if TYPE_CHECKING:
    from ..recipe_api.checkpoint import Model

NEAR = 16  # of 255: largest change of a pixel that counts as unchanged


def measure(
    source: str | Path, out: str | Path, segnet: Model | None, face: Model | None, limit: int | None = None
) -> dict[str, float]:
    """Return the means of `table` over pairs, as `summary` does."""
    return summary(table(source, out, segnet, face, limit))


def summary(found: Table) -> dict[str, float]:
    """Return the means of measures over the pairs that show the part, and "pairs": how many pairs there were.

    "IoU-parts" is the mean of "IoU-eyes", "IoU-nose" and "IoU-mouth"; landmarks and colours have a "std" over pairs.
    """
    means = {name: float(np.mean(found.seen(name))) for name in found.columns}
    landed = [f"IoU-{name}" for name in LANDED if f"IoU-{name}" in means]
    scores = {"IoU-parts": float(np.mean([means[name] for name in landed]))} if landed else {}
    scores |= {f"IoU-{name}": means[f"IoU-{name}"] for name in PARTS if f"IoU-{name}" in means}
    for name in sorted(name for name in means if name.startswith(("landmark-", "colour-"))):
        scores |= {name: means[name], f"{name} std": float(np.std(found.seen(name)))}
    scores |= {name: means[name] for name in ("identity-cosine", "unchanged") if name in means}
    return {**scores, "pairs": len(found.rows)}


def table(
    source: str | Path, out: str | Path, segnet: Model | None, face: Model | None, limit: int | None = None
) -> Table:
    """Return what each image of `out` preserves of that of the same name in `source`; see `parts` for the measures.

    With a segnet: "IoU-eyes", "IoU-nose", "IoU-mouth", "IoU-skin" and "IoU-hair"; "landmark-distance" in distances
    between the eyes; "colour-hair", "colour-skin" and "colour-eyes" in CIEDE2000; each where the pair shows the part.
    With a face net: "identity-cosine", the cosine of the two face embeddings. "unchanged": share of pixels that changed
    by at most NEAR in every colour.
    Both images are resized to the model's own size. Raises InputError if no pair is left, no part is seen or a net
    gives numbers that are not finite; CardError for a model of another kind.
    """
    classes = _classes(segnet) if segnet else ()
    if face and not callable(getattr(face.recipe, "embed", None)):
        raise CardError("the face model does not compute embeddings", "give weights of the recipe facefeat")
    measured = Table()
    found = pairing.pairs(source, out, "give the folder that was translated as --source")[:limit]
    with console.progress("preservation", len(found)) as bar:
        for before, after, names in pairing.batches(found):
            parts = _parts(segnet, classes, before, after) if segnet else [{} for _ in names]
            cosines = _cosines(face, before, after) if face else []
            for index, (name, values) in enumerate(zip(names, parts, strict=True)):
                if face:
                    values["identity-cosine"] = cosines[index]
                values["unchanged"] = _unchanged(before[index], after[index])
                measured.add(name, values)
            bar.advance(len(before))
    if not measured.rows:
        raise InputError(f"no pair of {source} and {out} can be read", "the warnings say why")
    unseen = [name for name in LANDED if f"IoU-{name}" not in measured.columns]
    if segnet and len(unseen) == len(LANDED):
        raise InputError(f"the segnet sees no eyes, nose or mouth in {source} or {out}", "are these faces?")
    if segnet and unseen:
        console.warn(f"the segnet sees no {' and no '.join(unseen)} in any image: IoU-parts leaves it out")
    return measured


def unmasked(masks: str | Path) -> float:
    """Return 1 - the mean of the masks that `translate --mask` wrote: the share of the faces that they leave alone.

    Raises InputError if there is no mask.
    """
    means = [np.asarray(images.read(source.path).convert("L")).mean() for source in Folder(masks).sources()]
    return 1 - float(np.mean(means)) / 255


def _unchanged(before: Image.Image, after: Image.Image) -> float:
    """Return the share of pixels that changed by at most NEAR in every colour, at the translation's size."""
    if before.size != after.size:
        before = before.resize(after.size, Image.Resampling.BICUBIC)
    apart = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)).max(2)
    return float((apart <= NEAR).mean())


def _classes(model: Model) -> tuple[str, ...]:
    """Return a segnet's classes; raises CardError if the model is no segnet or lacks eyes, nose or mouth."""
    classes = tuple(getattr(model.recipe.params, "classes", ()))
    if not callable(getattr(model.recipe, "label", None)) or not set(LANDED) <= set(classes):
        raise CardError(f"the segnet does not label {', '.join(LANDED)}", "give weights of the recipe segnet")
    return classes


def _tensor(model: Model, pictures: list) -> Tensor:
    """Return images as [N, 3, size, size] in the model's size and on its device."""
    weights = next(iter(model.nets.parameters()), None)
    x = torch.stack([images.to_tensor(images.resize(picture, model.card.data.size)) for picture in pictures])
    return x if weights is None else x.to(weights.device)


@torch.inference_mode()
def _parts(model: Model, classes: tuple[str, ...], before: list, after: list) -> list[dict[str, float]]:
    """Return the measures of parts of each pair, by name."""
    recipe: Any = model.recipe
    size = model.card.data.size
    labels = [recipe.label(model.nets, _tensor(model, pictures)).cpu().numpy() for pictures in (before, after)]
    found = []
    for index, pair in enumerate(zip(before, after, strict=True)):
        x, y = (_masks(label[index], classes) for label in labels)
        values = {f"IoU-{name}": value for name, value in overlap(x, y).items()}
        moved = landmark_distance(x, y)
        if moved is not None:
            values["landmark-distance"] = moved
        resized = images.resize(pair[0], size), images.resize(pair[1], size)
        found.append(values | {f"colour-{name}": value for name, value in colour_distances(x, y, resized).items()})
    return found


def _masks(labels: np.ndarray, classes: tuple[str, ...]) -> Masks:
    return {name: labels == classes.index(name) for name in PARTS if name in classes}


@torch.inference_mode()
def _cosines(model: Model, before: list, after: list) -> list[float]:
    recipe: Any = model.recipe
    x, y = (recipe.embed(model.nets, _tensor(model, pictures)).float() for pictures in (before, after))
    return torch.nn.functional.cosine_similarity(x, y).tolist()
