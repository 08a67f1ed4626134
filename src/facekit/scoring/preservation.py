"""What a translation preserves of its source: where the parts of the face are, their colours, and whose face it is.

All of it compares pairs of images, so it needs the aligned faces that were translated, not the photos they come from.
"""

from __future__ import annotations

from array import array
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
from ..storage.folder import Folder
from . import pairing
from .parts import LANDED, PARTS, Masks, colour_distances, landmark_distance, overlap

if TYPE_CHECKING:
    from ..recipe_api.checkpoint import Model

NEAR = 16  # of 255: largest change of a pixel that counts as unchanged


def measure(
    source: str | Path, out: str | Path, segnet: Model | None, face: Model | None, limit: int | None = None
) -> dict[str, float]:
    """Return what the images of `out` preserve of those of the same name in `source`; see `parts` for the measures.

    With a segnet: "IoU-parts", the mean of "IoU-eyes", "IoU-nose" and "IoU-mouth" (also "IoU-skin" and "IoU-hair");
    "landmark-distance" in distances between the eyes; "colour-hair", "colour-skin" and "colour-eyes" in CIEDE2000. Each
    is a mean over the pairs that show the part; the last two have a "std" over pairs. With a face net:
    "identity-cosine", the mean cosine of the two face embeddings. "unchanged": mean share of pixels that changed by at
    most NEAR in every colour. "pairs": how many there were.
    Both images are resized to the model's own size. Raises InputError if no pair is left, no part is seen or a net
    gives numbers that are not finite; CardError for a model of another kind.
    """
    classes = _classes(segnet) if segnet else ()
    if face and not callable(getattr(face.recipe, "embed", None)):
        raise CardError("the face model does not compute embeddings", "give weights of the recipe facefeat")
    seen: dict[str, array[float]] = defaultdict(lambda: array("d"))
    found = pairing.pairs(source, out, "give the folder that was translated as --source")[:limit]
    with console.progress("preservation", len(found)) as bar:
        for before, after in pairing.batches(found):
            if segnet:
                for name, value in _parts(segnet, classes, before, after):
                    seen[name].append(value)
            if face:
                seen["identity-cosine"].extend(_cosines(face, before, after))
            seen["unchanged"].extend(_unchanged(*pair) for pair in zip(before, after, strict=True))
            bar.advance(len(before))
    count = len(seen["unchanged"])
    if not count:
        raise InputError(f"no pair of {source} and {out} can be read", "the warnings say why")
    landed = [f"IoU-{name}" for name in LANDED if f"IoU-{name}" in seen]
    if segnet and not landed:
        raise InputError(f"the segnet sees no eyes, nose or mouth in {source} or {out}", "are these faces?")
    unseen = [name for name in LANDED if f"IoU-{name}" not in seen]
    if segnet and unseen:
        console.warn(f"the segnet sees no {' and no '.join(unseen)} in any image: IoU-parts leaves it out")
    means = {name: float(np.mean(values)) for name, values in seen.items()}
    if not all(np.isfinite(list(means.values()))):
        raise InputError("the segnet or the face net gives numbers that are not finite", "are its weights damaged?")
    scores = {"IoU-parts": float(np.mean([means[name] for name in landed]))} if landed else {}
    scores |= {f"IoU-{name}": means[f"IoU-{name}"] for name in PARTS if f"IoU-{name}" in means}
    for name in sorted(name for name in means if name.startswith(("landmark-", "colour-"))):
        scores |= {name: means[name], f"{name} std": float(np.std(seen[name]))}
    scores |= {name: means[name] for name in ("identity-cosine", "unchanged") if name in means}
    return {**scores, "pairs": count}


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
def _parts(model: Model, classes: tuple[str, ...], before: list, after: list) -> Iterator[tuple[str, float]]:
    """Yield the measures of parts of each pair, by name."""
    recipe: Any = model.recipe
    size = model.card.data.size
    labels = [recipe.label(model.nets, _tensor(model, pictures)).cpu().numpy() for pictures in (before, after)]
    for index, pair in enumerate(zip(before, after, strict=True)):
        x, y = (_masks(label[index], classes) for label in labels)
        yield from ((f"IoU-{name}", value) for name, value in overlap(x, y).items())
        moved = landmark_distance(x, y)
        if moved is not None:
            yield "landmark-distance", moved
        resized = images.resize(pair[0], size), images.resize(pair[1], size)
        yield from ((f"colour-{name}", value) for name, value in colour_distances(x, y, resized).items())


def _masks(labels: np.ndarray, classes: tuple[str, ...]) -> Masks:
    return {name: labels == classes.index(name) for name in PARTS if name in classes}


@torch.inference_mode()
def _cosines(model: Model, before: list, after: list) -> list[float]:
    recipe: Any = model.recipe
    x, y = (recipe.embed(model.nets, _tensor(model, pictures)).float() for pictures in (before, after))
    return torch.nn.functional.cosine_similarity(x, y).tolist()
