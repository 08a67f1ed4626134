"""Networks of others that `score-fid` knows by name; their files are given: what they take and what of it are features.

DINOv2: Oquab et al., "DINOv2: learning robust visual features without supervision", 2023. CMMD: Jayasumana et al.,
"Rethinking FID: towards a better evaluation metric for image generation", CVPR 2024, on CLIP (Radford et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

OWN = "facekit"


@dataclass(frozen=True)
class Named:
    """A network by its name.

    `unit` ends the names of its scores, `edge` is its input in px where the file leaves that open, `preprocessing` one
    of SCALES; `pooled` makes rows of features of its output; `gaussian`: CMMD is defined on them; `needs` says which
    file to give.
    """

    unit: str
    edge: int
    preprocessing: str
    pooled: Callable[[np.ndarray], np.ndarray]
    needs: str
    gaussian: bool = False


def first_token(found: np.ndarray) -> np.ndarray:
    """Return the class token [n, d] of a transformer's tokens [n, tokens, d]; rows [n, d] as they are."""
    return found[:, 0] if found.ndim == 3 else found


def unit_length(found: np.ndarray) -> np.ndarray:
    """Return embeddings [n, d] at length 1."""
    return found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-12)


CLIP = "the image encoder of CLIP ViT-L/14 at 336 px with its projection"
NAMED = {
    "dinov2": Named("dinov2", 224, "imagenet", first_token, "DINOv2-small as ONNX or TorchScript"),
    "cmmd": Named("clip", 336, "clip", unit_length, f"{CLIP}, as ONNX or TorchScript", gaussian=True),
}


def split(spec: str | Path) -> tuple[str, str]:
    """Return the name and the file of "NAME:FILE"; no name for anything else."""
    name, colon, file = str(spec).partition(":")
    return (name, file) if colon and name in NAMED else ("", str(spec))
