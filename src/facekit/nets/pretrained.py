"""Pretrained networks, mostly frozen ones for losses; their weights are read from a file or downloaded."""

from __future__ import annotations

import hashlib
import tarfile
import warnings
from collections.abc import Collection, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CardError, MissingError
from ..runtime import console
from .vgg import VGG

PUBLISHED = {  # published VGG files: first digits of the SHA-256 -> the preprocessing that they expect
    "00b39a1b": "caffe-bgr",
    "d01eb7cb": "caffe-bgr",
    "397923af": "torchvision",
    "dcbb9e9d": "torchvision",
}
CAFFE_VGG16 = (0.42947057, 0.55037946, 0.4800154)  # one pixel of its first filter: blue, green, red
VGG_FILES = {k: f"{k.upper()}_Weights" for k in ("vgg16", "vgg19", "vgg16_bn", "vgg19_bn")}


def vgg_weights(source: str, kind: str = "vgg19") -> Mapping[str, Tensor]:
    """Return VGG's trunk weights under torchvision's names (`features.N.weight`).

    `source` is a safetensors or torch file with at least the layers that are used, or "download" for torchvision's
    ImageNet weights. Raises MissingError where they cannot be read or downloaded.
    """
    if source != "download":
        return read_weights(Path(source), "check the path, or give another file: --set params.vgg=FILE")
    import torchvision.models as models

    try:
        return getattr(models, VGG_FILES[kind]).IMAGENET1K_V1.get_state_dict(progress=False)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: the download has another hash
        raise MissingError(
            f"the ImageNet weights of {kind} cannot be downloaded: {error}",
            "connect to the internet, or give a file that holds them: --set params.vgg=FILE",
        ) from error


def vgg(
    kind: str,
    layers: Sequence[str],
    source: str,
    preprocessing: str = "torchvision",
    without: Collection[str] = (),
) -> VGG:
    """Return a frozen VGG up to the deepest of `layers`, without some poolings, with its weights from `source`.

    Raises CardError for a layer that it does not have, MissingError where `source` lacks weights that it needs.
    """
    try:
        net = VGG(kind, layers, preprocessing, without)
    except ValueError as error:
        raise CardError(str(error), "--set params.layer=NAME") from error
    if next(net.parameters()).device.type != "meta":  # the memory estimate asks for shapes only
        load_vgg(net, source, kind)
        check_preprocessing(net, source, preprocessing)
    return net


def load_vgg(net: VGG, source: str, kind: str = "vgg19") -> None:
    """Load the weights of a VGG trunk; raises MissingError if `source` lacks any of them."""
    weights = vgg_weights(source, kind)
    needed = net.state_dict()
    wrong = [key for key, value in needed.items() if key not in weights or weights[key].shape != value.shape]
    if wrong and (wrong[0] in weights or wrong[0] == "features.0.weight"):
        raise MissingError(
            f"{source} does not hold weights of {kind}: {wrong[0]} is missing or of another shape",
            "give another file",
        )
    if wrong:
        deepest = net.names[int(wrong[0].split(".")[1]) - 1]
        raise MissingError(
            f"{source} does not reach {net.names[-1]}, only {deepest}",
            f"give another file, or --set params.layer={deepest}",
        )
    net.load_state_dict({key: weights[key] for key in needed})


def known_preprocessing(net: VGG, source: str) -> str | None:
    """Return what published weights expect, known by their first numbers or their digest; None for any others."""
    if source == "download":
        return "torchvision"
    first = net.state_dict()["features.0.weight"][0, :, 0, 0].cpu()
    if torch.allclose(first, torch.tensor(CAFFE_VGG16), atol=1e-4):
        return "caffe-bgr"
    if torch.allclose(first.flip(0), torch.tensor(CAFFE_VGG16), atol=1e-4):
        return "caffe"
    if not source.endswith((".pth", ".pt")):
        return None
    digest = hashlib.sha256()
    with Path(source).open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return PUBLISHED.get(digest.hexdigest()[:8])


def check_preprocessing(net: VGG, source: str, preprocessing: str) -> None:
    """Raise CardError for published weights that expect another preprocessing."""
    expected = known_preprocessing(net, source)
    if expected and expected != preprocessing:
        raise CardError(
            f"the VGG weights {source} expect preprocessing {expected}, not {preprocessing}",
            f"--set params.preprocessing={expected}",
        )


def read_weights(path: Path, hint: str = "check the path") -> Mapping[str, Tensor]:
    """Read a state dict from a safetensors file, or from a torch file without running code in it.

    Raises MissingError if the file is missing, with `hint`, or broken.
    """
    if not path.is_file():
        raise MissingError(f"no weights file {path}", hint)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if not _is_of_torch(path):
            raise ValueError("torch.save did not write it")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the two readers raise on broken files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MissingError(f"{path} is not a complete weights file: {reason}", "download it again") from error
    if not isinstance(found, Mapping):
        raise MissingError(f"{path} holds no weights by name", "give a file that `state_dict()` was saved to")
    return found


def _is_of_torch(path: Path) -> bool:
    """Whether a file is of one of the kinds that torch.save has written: a ZIP archive, a pickle or a tar archive."""
    with path.open("rb") as file:
        head = file.read(4)
    return head.startswith((b"PK\x03\x04", b"\x80")) or tarfile.is_tarfile(path)


def load_trunk(features: nn.Sequential, source: str, kind: str) -> None:
    """Load initial weights into a trunk with torchvision's layer numbers, as deep as `source` reaches.

    Raises MissingError if `source` lacks the first layer, or has a layer of another shape.
    """
    weights = vgg_weights(source, kind)
    own = features.state_dict()
    fitting = {key: weights[f"features.{key}"] for key in own if f"features.{key}" in weights}
    wrong = [key for key, value in fitting.items() if value.shape != own[key].shape]
    if "0.weight" not in fitting or wrong:
        layer = (wrong or ["0.weight"])[0]
        raise MissingError(f"{source} does not hold weights of {kind}: see {layer}", "give another file")
    features.load_state_dict(fitting, strict=False)
    depth = max(int(key.split(".")[0]) for key in fitting)
    console.note(f"{kind}: weights from {source} up to features.{depth} of {len(features) - 1}")
