"""Which part of a face crop is head: what `--paste` lays over the photo."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from ..recipe_api import checkpoint
from ..storage import images

LEAST = 0.15  # share of the crop that a head covers at least; less is a failure of the segmenter
SURE = 0.25, 0.75  # probability of head below which a pixel is left alone, and above which it is replaced


class HeadMask:
    """Finds face and hair in aligned crops with the shipped segmenter `segnet`."""

    def __init__(self) -> None:
        self._model = checkpoint.load_model("segnet")
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, crop: Image.Image) -> Image.Image | None:
        """Return the head in an RGB crop as a soft mask (L, 255: head) of its size; None where no head is found."""
        model = self._model
        recipe: Any = model.recipe
        size = model.card.data.size
        x = images.to_tensor(images.resize(crop, size))[None]
        with self._lock:
            head = 1 - recipe.probabilities(model.nets, x)[0, 0].numpy()  # class 0 is the background
        if (head > 0.5).mean() < LEAST:
            return None
        low, high = SURE
        mask = Image.fromarray((np.clip((head - low) / (high - low), 0, 1) * 255).astype(np.uint8))
        grown = mask.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.GaussianBlur(size / 50))
        return grown.resize(crop.size, Image.Resampling.BICUBIC)
