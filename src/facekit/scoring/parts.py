"""What the parts of a face say about a pair of images: where they are, and which colour they have."""

from __future__ import annotations

import numpy as np
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

LANDED = ("eyes", "nose", "mouth")
PARTS = (*LANDED, "skin", "hair")
COLOURED = ("hair", "skin", "eyes")
Masks = dict[str, np.ndarray]  # part -> bool [H, W]


def overlap(before: Masks, after: Masks) -> dict[str, float]:
    """Return intersection over union of each part that either image shows."""
    found = {}
    for name in PARTS:
        if name in before and (either := (before[name] | after[name]).sum()):
            found[name] = float((before[name] & after[name]).sum() / either)
    return found


def landmark_distance(before: Masks, after: Masks) -> float | None:
    """Return how far eyes, nose and mouth moved on average, in distances between the eyes of `before`.

    A landmark is the centre of a part's pixels; the two eyes are told apart by the centre of both. None if a part is
    missing in either image, or the eyes are closer than 2 px.
    """
    x, y = _landmarks(before), _landmarks(after)
    if x is None or y is None:
        return None
    eyes = float(np.linalg.norm(x[0] - x[1]))
    return float(np.linalg.norm(x - y, axis=1).mean()) / eyes if eyes >= 2 else None


def colour_distances(before: Masks, after: Masks, images: tuple[Image.Image, Image.Image]) -> dict[str, float]:
    """Return the CIEDE2000 difference of the mean colours of each part that both images show; 2.3 is just visible.

    Colours are averaged in CIE Lab (D65). `images` have the size of the masks.
    """
    lab = [rgb2lab(np.asarray(image)) for image in images]
    found = {}
    for name in COLOURED:
        masks = [one.get(name) for one in (before, after)]
        if all(mask is not None and mask.any() for mask in masks):
            means = [colours[mask].mean(0) for colours, mask in zip(lab, masks, strict=True)]
            found[name] = float(deltaE_ciede2000(*means))
    return found


def _landmarks(masks: Masks) -> np.ndarray | None:
    """Return the centres [4, 2] of left eye, right eye, nose and mouth, as (x, y) in px."""
    if not all(name in masks and masks[name].any() for name in LANDED):
        return None
    y, x = np.nonzero(masks["eyes"])
    left = x < x.mean()
    if left.all() or not left.any():
        return None
    eyes = [(x[side].mean(), y[side].mean()) for side in (left, ~left)]
    others = [np.argwhere(masks[name]).mean(0)[::-1] for name in LANDED[1:]]
    return np.array([*eyes, *others])
