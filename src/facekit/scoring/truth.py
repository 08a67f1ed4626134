"""How near images are to the right answers: for pairs whose other side is known, as colouring or pix2pix have them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from skimage.metrics import structural_similarity

from ..errors import InputError
from ..nets import pretrained
from ..nets.vgg import VGG
from ..ops import losses
from ..runtime import console
from ..storage import images
from . import pairing

if TYPE_CHECKING:
    from torch import Tensor

LAYERS = ("relu1_2", "relu2_2", "relu3_1")  # as deep as the smallest files of VGG reach
SMALLEST = 16  # px; SSIM's window has 11, and VGG halves twice
MOST = 100.0  # dB; of equal images, whose PSNR has no bound


def load_vgg(file: str | Path, device: str) -> VGG:
    """Return the first layers of a VGG with the weights in a file, and the preprocessing that they expect.

    `file` may be "download", for torchvision's ImageNet weights. Files that are not known are taken for torchvision's.
    Raises MissingError for a file without these weights.
    """
    net = VGG("vgg19", LAYERS)
    pretrained.load_vgg(net, str(file))
    expected = pretrained.known_preprocessing(net, str(file))
    if expected:
        known = VGG("vgg19", LAYERS, expected)
        known.load_state_dict(net.state_dict())
        net = known
    return net.eval().requires_grad_(False).to(device)


def measure(
    truth: str | Path, out: str | Path, vgg: VGG | None = None, *, resize: int | None = None, limit: int | None = None
) -> dict[str, float]:
    """Return the means of `table` over pairs, each with a "std"; "truths": how many pairs there were."""
    return summary(table(truth, out, vgg, resize=resize, limit=limit))


def summary(found: pairing.Table) -> dict[str, float]:
    """Return the means of measures over pairs, each with a "std"; "truths": how many pairs there were."""
    scores: dict[str, float] = {}
    for name, values in found.columns.items():
        scores |= {name: float(np.mean(values)), f"{name} std": float(np.std(values))}
    return {**scores, "truths": len(found.rows)}


def table(
    truth: str | Path, out: str | Path, vgg: VGG | None = None, *, resize: int | None = None, limit: int | None = None
) -> pairing.Table:
    """Return how near each image of `out` is to that of the same name in `truth`.

    "PSNR" in dB (100 for equal images) and "SSIM" of the colours in 8 bits (Wang et al. 2004, Gaussian window of 11
    px); with a VGG "VGG-distance", the squared distance of the directions of its features, averaged over LAYERS (Zhang
    et al. 2018, eq. 1, without learned weights). `resize`: take the middle square of both at so many px. Raises
    InputError if no pair can be read, for pairs of unequal size and for images under SMALLEST px.
    """
    measured = pairing.Table()
    found = pairing.pairs(truth, out, "give the right answers under the names of OUT as --truth")[:limit]
    with console.progress("truth", len(found)) as bar:
        for rights, mades, names in pairing.batches(found):
            for right, made, name in zip(rights, mades, names, strict=True):
                if resize:
                    right, made = images.resize(right, resize), images.resize(made, resize)
                _check(right, made)
                values = {"PSNR": psnr(right, made), "SSIM": ssim(right, made)}
                if vgg is not None:
                    values["VGG-distance"] = vgg_distance(vgg, right, made)
                measured.add(name, values)
            bar.advance(len(rights))
    if not measured.rows:
        raise InputError(f"no pair of {truth} and {out} can be read", "the warnings say why")
    return measured


def psnr(right: Image.Image, made: Image.Image) -> float:
    """Return the peak signal-to-noise ratio of two images of one size, in dB; MOST for equal ones."""
    apart = np.asarray(right, np.float64) - np.asarray(made, np.float64)
    squared = float((apart**2).mean())
    return min(MOST, 10 * float(np.log10(255**2 / squared))) if squared else MOST


def ssim(right: Image.Image, made: Image.Image) -> float:
    """Return the structural similarity of two images of one size (Wang et al. 2004); 1 for equal ones."""
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return float(structural_similarity(np.asarray(right), np.asarray(made), channel_axis=2, **settings))


@torch.inference_mode()
def vgg_distance(vgg: VGG, right: Image.Image, made: Image.Image) -> float:
    """Return how far two images of one size are apart to a VGG: from 0, for equal ones, to 4."""
    device = next(vgg.parameters()).device
    x, y = (vgg(images.to_tensor(one)[None].to(device)) for one in (right, made))
    apart: list[Tensor] = [losses.direction_distance(x[name], y[name]) for name in x]
    return float(torch.stack(apart).mean())


def _check(right: Image.Image, made: Image.Image) -> None:
    """Raise InputError for two images that cannot be compared pixel by pixel."""
    if right.size != made.size:
        sizes = " and ".join(f"{one.width} x {one.height} px" for one in (right, made))
        raise InputError(
            f"the right answer has another size: {sizes}", "--resize N crops squares and resizes all images to one size"
        )
    if min(made.size) < SMALLEST:
        raise InputError(f"images of {made.width} x {made.height} px are too small", f"at least {SMALLEST} px")
