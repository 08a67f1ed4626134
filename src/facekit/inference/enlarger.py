"""Makes translations larger than their own net draws them."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import CardError
from ..recipe_api import checkpoint
from ..storage import images

NONE = "none"  # instead of weights: by interpolation
SHIPPED = "upscaler"
LEAST = 1.1  # times: what grows less is interpolated
MOST = 2  # doublings by the net; what grows more is interpolated from there
LARGEST = 2048  # px of the longer edge that the net may make, for its memory (0.6 GB)


class Enlarger:
    """Enlarges pictures with weights of the recipe `upscaler`, or by interpolation where they are called "none".

    Raises MissingError for weights that are not there, CardError for those of another recipe.
    """

    def __init__(self, weights: str = SHIPPED, device: str = "cpu"):
        self.model = None if weights == NONE else checkpoint.load_model(weights, device)
        if self.model is not None and not hasattr(self.model.recipe, "doubled"):
            raise CardError(f"{weights} holds no upscaler", f"--upscaler {SHIPPED}, or {NONE} for interpolation")

    @torch.inference_mode()
    def __call__(self, x: Tensor, edge: int) -> Image.Image:
        """Return a translation [3, H, W] in [-1, 1] as a picture with a shorter edge of `edge` px; proportions stay."""
        height, width = x.shape[1:]
        scale = edge / min(height, width)
        if self.model is not None and scale >= LEAST:
            recipe: Any = self.model.recipe
            x = x[None].to(next(self.model.nets.parameters())).contiguous()
            for _ in range(min(MOST, math.ceil(math.log2(scale)))):
                if 2 * max(x.shape) <= LARGEST:
                    x = recipe.doubled(self.model.nets, x)
            x = x[0]
        picture = images.to_image(x)
        wanted = max(1, round(width * scale)), max(1, round(height * scale))
        return picture if picture.size == wanted else picture.resize(wanted, Image.Resampling.LANCZOS)


@functools.lru_cache(maxsize=4)
def open_enlarger(weights: str = SHIPPED, device: str = "cpu") -> Enlarger:
    """Return an Enlarger, the same one each time."""
    return Enlarger(weights, device)
