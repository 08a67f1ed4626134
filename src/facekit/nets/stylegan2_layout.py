"""How public PyTorch checkpoints name the tensors of StyleGAN2's nets (the layout of rosinality/stylegan2-pytorch)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

GENERATOR = (  # their name, ours; the number counts from what the lambda says
    (r"style\.(\d+)\.(weight|bias)", lambda m: f"mapping.layers.{int(m[1]) - 1}.{m[2]}"),
    (r"input\.input", lambda m: "const"),
    (r"conv1\.(.+)", lambda m: f"layers.0.{_layer(m[1])}"),
    (r"convs\.(\d+)\.(.+)", lambda m: f"layers.{int(m[1]) + 1}.{_layer(m[2])}"),
    (r"to_rgb1\.(.+)", lambda m: f"to_rgb.0.{_layer(m[1])}"),
    (r"to_rgbs\.(\d+)\.(.+)", lambda m: f"to_rgb.{int(m[1]) + 1}.{_layer(m[2])}"),
    (r"noises\.noise_(\d+)", lambda m: f"noise_{m[1]}"),
)
LAYER = {
    "conv.weight": "conv.weight",
    "conv.modulation.weight": "conv.affine.weight",
    "conv.modulation.bias": "conv.affine.bias",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
    "bias": "bias",
}
BLOCK = {
    "conv1.0.weight": "first.weight",
    "conv1.1.bias": "first_bias",
    "conv2.1.weight": "second.weight",
    "conv2.2.bias": "second_bias",
    "skip.1.weight": "skip.weight",
}
DISCRIMINATOR = {
    "convs.0.0.weight": "from_rgb.weight",
    "convs.0.1.bias": "rgb_bias",
    "final_conv.0.weight": "last.weight",
    "final_conv.1.bias": "last_bias",
    "final_linear.0.weight": "hidden.weight",
    "final_linear.0.bias": "hidden.bias",
    "final_linear.1.weight": "out.weight",
    "final_linear.1.bias": "out.bias",
}


def _layer(name: str) -> str | None:
    return LAYER.get(name)


def is_public_layout(state: Mapping[str, object]) -> bool:
    """Whether a checkpoint holds a generator in the public layout, under `g_ema` or `g`, or by itself."""
    found = state.get("g_ema", state.get("g", state))
    return isinstance(found, Mapping) and "input.input" in found and "style.1.weight" in found


def generator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a public generator's tensors by our names; FIR kernels, which are constants, are left out."""
    found = {}
    for name, value in state.items():
        for pattern, ours in GENERATOR:
            match = re.fullmatch(pattern, name)
            if match and not ours(match).endswith("None"):
                key = ours(match)
                found[key] = _shaped(key, value)
    return found


def _shaped(key: str, value: Tensor) -> Tensor:
    """Take away the axes that the public layout keeps for broadcasting."""
    if key.endswith("conv.weight"):
        return value[0]
    return value.reshape(()) if key.endswith("noise_strength") else value.flatten() if key.endswith("bias") else value


def discriminator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a public discriminator's tensors by our names; FIR kernels are left out."""
    found = {}
    for name, value in state.items():
        match = re.fullmatch(r"convs\.(\d+)\.(.+)", name)
        if name in DISCRIMINATOR:
            found[DISCRIMINATOR[name]] = value
        elif match and match[2] in BLOCK:
            found[f"blocks.{int(match[1]) - 1}.{BLOCK[match[2]]}"] = value
    return found
