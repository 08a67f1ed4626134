"""What of the photo stays in a translation: its colours, its background, or a share of the whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import lab2rgb, rgb2lab
from torch import Tensor

from ..recipe_api import checkpoint

COLOURED = {"skin": ("skin", "nose"), "hair": ("hair",)}  # what is recoloured, and the segmenter's classes of it
LEAST = 0.005  # share of the image that a part covers at least, in both images, for its colour to count
CURVES = 0.4, 2.5  # exponents between which the lightness of a part is changed
NEAR = 20.0  # in CIE Lab: how far colours of one part of a drawing lie from its mean
OTHER = 0.3  # how well a colour fits to neither skin nor hair
DOUBT = 0.05  # probability of each part where the segmenter sees none of it
REACH = 10  # of the edge: how far a drawn head, with its hair, reaches beyond that of the photo
SURE = 0.25, 0.75  # probability of head below which a pixel is background, and above which it is none


class PhotoKeeper:
    """Brings parts of faces back into their translations: images [N, 3, H, W] in [-1, 1], aligned to one another.

    `colours` gives hair and skin of the translation the photo's colour, `background` leaves what is around head and
    neck as in the photo, and `strength` blends face and translation. The shipped `segnet` names the parts.
    """

    def __init__(self, strength: float = 1.0, colours: bool = False, background: bool = False):
        self.strength, self.colours, self.background = strength, colours, background
        self._segnet = checkpoint.load_model("segnet") if colours or background else None

    @torch.inference_mode()
    def __call__(self, face: Tensor, translation: Tensor) -> Tensor:
        """Return the translation with what stays."""
        out = translation
        if self._segnet is not None:
            before, after = self._parts(face), self._parts(translation)
            if self.colours:
                out = self._recoloured(face, out, before, after)
            if self.background:
                head = _head(before, after)
                low, high = SURE
                soft = _blurred(((head - low) / (high - low)).clamp(0, 1), max(1, face.shape[-1] // 64))
                out = torch.lerp(face, out, soft.to(out))
        return torch.lerp(face, out, self.strength) if self.strength != 1 else out

    def _parts(self, x: Tensor) -> Tensor:
        """Return the probability of each part of the segmenter in each pixel, [N, classes, H, W], on the processor."""
        model: Any = self._segnet
        scale = model.card.data.size / min(x.shape[2:])
        size = [max(16, round(edge * scale / 16) * 16) for edge in x.shape[2:]]
        seen = F.interpolate(x.float().cpu(), size, mode="bilinear", antialias=True, align_corners=False)
        found = model.recipe.probabilities(model.nets, seen)
        return F.interpolate(found, x.shape[2:], mode="bilinear", align_corners=False)

    def _recoloured(self, face: Tensor, drawn: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Move the mean colour of hair and skin, in CIE Lab, to that of the photo.

        Lightness goes along a power curve, so that black lines stay black and highlights white; a and b are shifted.
        """
        assert self._segnet is not None
        classes = self._segnet.recipe.params.classes
        groups = {name: [classes.index(one) for one in seen if one in classes] for name, seen in COLOURED.items()}
        made = []
        heads = _head(before, after).numpy()
        for x, y, p, q, (head,) in zip(face, drawn, before.numpy(), after.numpy(), heads, strict=True):
            photo, lab = to_lab(x), to_lab(y)
            means, priors = {}, {}
            for name, members in groups.items():
                there, here = p[members].sum(0), q[members].sum(0)
                sure = [np.clip(2 * probability - 1, 0, 1) for probability in (there, here)]
                if min(weight.mean() for weight in sure) >= LEAST:
                    means[name] = _mean(photo, sure[0]), _mean(lab, sure[1])
                    priors[name] = here
            change = np.zeros_like(lab)
            for name, share in shares(lab, {name: mean[1] for name, mean in means.items()}, priors).items():
                change += (_shifted(lab, *means[name]) - lab) * (share * head)[..., None]
            rgb = lab2rgb(lab + change)
            made.append(torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))) * 2 - 1)
        return torch.stack(made).to(drawn)


def _head(before: Tensor, after: Tensor) -> Tensor:
    """Return the probability of head in face or drawing, [N, 1, H, W]: a drawn head stays near that of the photo."""
    photo, drawn = 1 - before[:, :1], 1 - after[:, :1]  # class 0 is the background
    reach = photo.shape[-1] // REACH
    return torch.maximum(photo, torch.minimum(drawn, F.max_pool2d(photo, 2 * reach + 1, 1, reach)))


def shares(lab: np.ndarray, means: dict[str, np.ndarray], priors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return how much each pixel belongs to each part, by what the segmenter says and by its colour.

    The segmenter errs on drawings, and drawings have flat colours: both together follow the drawn edges.
    """
    fits = {}
    for name, mean in means.items():
        apart = (lab - mean) * (0.5, 1, 1)  # shading changes lightness most
        fits[name] = (priors[name] + DOUBT) * np.exp(-(apart**2).sum(-1) / (2 * NEAR**2))
    rest = OTHER * (1 - sum(priors.values()) + DOUBT) if priors else OTHER
    total = sum(fits.values()) + rest
    return {name: fit / total for name, fit in fits.items()}


def to_lab(x: Tensor) -> np.ndarray:
    """Return an image [3, H, W] in [-1, 1] as CIE Lab, [H, W, 3]."""
    return rgb2lab((x.float().cpu().permute(1, 2, 0).numpy() * 0.5 + 0.5).clip(0, 1))


def _mean(lab: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return (lab * weight[..., None]).sum((0, 1)) / weight.sum()


def _shifted(lab: np.ndarray, wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return colours of which the mean `found` becomes about `wanted`."""
    goal, now = (math.log(min(97.0, max(3.0, mean[0])) / 100) for mean in (wanted, found))
    curve = min(CURVES[1], max(CURVES[0], goal / now))
    lightness = 100 * (lab[..., :1].clip(0, 100) / 100) ** curve
    return np.concatenate([lightness, lab[..., 1:] + (wanted - found)[1:]], -1)


def _blurred(x: Tensor, radius: int) -> Tensor:
    """Blur [N, 1, H, W] with a triangle that reaches 2 `radius` px, edges repeated."""
    for _ in range(2):
        x = F.avg_pool2d(F.pad(x, [radius] * 4, mode="replicate"), 2 * radius + 1, 1)
    return x
