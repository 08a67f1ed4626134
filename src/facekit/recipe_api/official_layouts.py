"""Layouts of the authors' checkpoints: how they name and order their weights, and how these map to ours.

Nets correspond one to one in execution order. A layout gives the order in which the modules of a file run, and the
parameters of the net that the file implies. Tensors are matched in that order, and every shape is checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
Module = tuple[str, dict[str, Tensor]]  # its name, and its tensors by what they are
FIELDS = {  # what a tensor is by the end of its name, in the order of ours
    **dict.fromkeys(("weight", "weight_orig", "scale"), "weight"),
    **dict.fromkeys(("bias", "shift"), "bias"),
    "weight_u": "u",
    "weight_v": "v",
    **{name: name for name in ("u", "v", "rho", "gamma", "beta")},
}
DROPPED = ("running_mean", "running_var", "num_batches_tracked", "filt")
UGATIT_G = ("DownBlock", "gap_fc", "gmp_fc", "conv1x1", "FC", "gamma", "beta", "UpBlock1_", "UpBlock2")
UGATIT_D = ("model", "gap_fc", "gmp_fc", "conv1x1", "conv")


class Unfit(Exception):
    """Weights that do not match a layout; the message says what does not fit."""


@dataclass
class Found:
    """The content of a file: parameters of the recipe, the modules of each net in execution order, the size in px."""

    params: dict[str, Any]
    nets: dict[str, list[Module]]
    size: int | None = None
    labels: int = 0
    notes: list[str] = field(default_factory=list)


def modules_of(state: State) -> list[Module]:
    """Group a state dict by module, in its own order; a block's convolution comes before its norm.

    `module.` in front of the names is removed, running statistics and fixed filters are dropped. Raises Unfit for a
    tensor whose kind is unknown.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        module, _, kind = name.removeprefix("module.").rpartition(".")
        if kind in DROPPED:
            continue
        if kind not in FIELDS or not isinstance(value, Tensor):
            raise Unfit(f"{name} is not a weight of a known kind")
        found.setdefault(module, {})[FIELDS[kind]] = value
    modules = list(found.items())
    for i in range(len(modules) - 1):
        (name, _), (following, _) = modules[i : i + 2]
        if name.endswith(".norm") and following == name.removesuffix("norm") + "conv":
            modules[i], modules[i + 1] = modules[i + 1], modules[i]
    return [(name, _spectral(parts)) for name, parts in modules]


def _spectral(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring the singular vectors of a spectral norm into our order of the weight, [k k in]; a linear layer has none."""
    if "u" not in parts:
        return parts
    weight = parts["weight"]
    if weight.ndim < 4:
        return {kind: value for kind, value in parts.items() if kind not in ("u", "v")}
    v = parts.get("v")
    v = F.normalize(weight.flatten(1).T @ parts["u"], dim=0) if v is None else v
    return {**parts, "v": v.view(weight.shape[1:]).permute(1, 2, 0).flatten()}


def staged(modules: Sequence[Module], stages: Sequence[str]) -> list[Module]:
    """Sort modules by the stage that their names begin with; raises Unfit for one that has none."""

    def stage(module: Module) -> int:
        first = module[0].partition(".")[0]
        for number, name in enumerate(stages):
            if first == name or (name.endswith("_") and first.startswith(name)):
                return number
        raise Unfit(f"{module[0]} is not part of it")

    return sorted(modules, key=stage)


def fit(own: State, modules: Sequence[Module]) -> dict[str, Tensor]:
    """Give tensors of ours their values, both in execution order; raises Unfit with the first that does not fit."""
    given = [(f"{name}.{kind}", parts[kind]) for name, parts in modules for kind in _order(parts)]
    names = [f"{name}.{kind}" for name, parts in modules_of(own) for kind in _order(parts)]
    wanted = [(name, own[name]) for name in names]
    for (name, value), (ours, place) in zip(given, wanted, strict=False):
        if value.numel() != place.numel() or [n for n in value.shape if n > 1] != [n for n in place.shape if n > 1]:
            raise Unfit(f"{name} {list(value.shape)} stands where {ours} {list(place.shape)} is expected")
    if len(given) != len(wanted):
        more = given[len(wanted) :] or wanted[len(given) :]
        raise Unfit(f"{more[0][0]} {'is not in' if len(given) > len(wanted) else 'is missing for'} the net")
    pairs = zip(given, wanted, strict=True)
    return {ours: value.detach().float().reshape(place.shape) for (_, value), (ours, place) in pairs}


def _order(parts: Mapping[str, Tensor]) -> list[str]:
    return [kind for kind in dict.fromkeys(FIELDS.values()) if kind in parts]


def _first(modules: Sequence[Module]) -> Tensor:
    """Return the first convolution's weight; raises Unfit where there is none."""
    for _, parts in modules:
        if parts.get("weight") is not None and parts["weight"].ndim == 4:
            return parts["weight"]
    raise Unfit("it holds no convolution")


def _residual_blocks(modules: Sequence[Module], pattern: str) -> int:
    """Count the residual blocks: convolutions whose module's name matches, two to a block."""
    return sum(bool(re.search(pattern, name)) and parts["weight"].ndim == 4 for name, parts in modules) // 2


def cyclegan(files: Mapping[str, State]) -> Found:
    """Read CycleGAN's and CUT's ResNet generators `ab`, `ba` and discriminators `da`, `db`."""
    nets = {name: modules_of(state) for name, state in files.items()}
    generators = {name: nets[name] for name in ("ab", "ba") if name in nets}
    if not generators:
        raise Unfit("it holds no generator")
    modules = next(iter(generators.values()))
    blocks = _residual_blocks(modules, r"\.conv_block\.")
    params: dict[str, Any] = {"width": _first(modules).shape[0], "blocks": blocks}
    params["antialias"] = any(name.endswith(".filt") for state in files.values() for name in state)
    if len(generators) == 1:
        params["only"] = "b" if "ab" in generators else "a"
    for judge in ("da", "db"):
        if judge in nets:
            params["d_width"] = _first(nets[judge]).shape[0]
    return Found(params, nets)


def ugatit(files: Mapping[str, State]) -> Found:
    """Read U-GAT-IT's file of two generators and four discriminators."""
    whole: Any = files["all"]
    names = {"ab": "genA2B", "ba": "genB2A", "ga": "disGA", "gb": "disGB", "la": "disLA", "lb": "disLB"}
    missing = [theirs for theirs in ("genA2B", "genB2A") if not isinstance(whole.get(theirs), Mapping)]
    if missing:
        raise Unfit(f"it holds no {missing[0]}")
    if any("HourGlass" in name for name in whole["genA2B"]):
        raise Unfit("photo2cartoon's generator has hourglass blocks and soft AdaLIN, which U-GAT-IT does not have")
    nets = {}
    for ours, theirs in names.items():
        if theirs in whole:
            nets[ours] = staged(modules_of(whole[theirs]), UGATIT_G if ours in ("ab", "ba") else UGATIT_D)
    state = whole["genA2B"]
    width = _first(nets["ab"]).shape[0]
    blocks = len({name.split(".")[0] for name, _ in nets["ab"] if name.startswith("UpBlock1_")})
    linear = next(value for name, value in state.items() if name.removeprefix("module.") == "FC.0.weight")
    light = linear.shape[1] == 4 * width
    params = {"width": width, "blocks": blocks, "light": light}
    if "la" in nets:
        params["d_width"] = _first(nets["la"]).shape[0]
    return Found(params, nets, None if light else 4 * round((linear.shape[1] / (4 * width)) ** 0.5))


def stargan(files: Mapping[str, State]) -> Found:
    """Read StarGAN's generator `g` and discriminator `d`; the running statistics, which nothing uses, are dropped."""
    nets = {name: modules_of(state) for name, state in files.items()}
    stem = _first(nets["g"])
    params: dict[str, Any] = {"width": stem.shape[0], "blocks": _residual_blocks(nets["g"], r"^main\.\d+\.main\.")}
    found = Found(params, nets, labels=stem.shape[1] - 3)
    if "d" in nets:
        trunk = [parts["weight"] for name, parts in nets["d"] if name.startswith("main.")]
        params |= {"d_width": trunk[0].shape[0], "d_layers": len(trunk)}
        found.size = nets["d"][-1][1]["weight"].shape[-1] * 2 ** len(trunk)
    return found


def unit(files: Mapping[str, State]) -> Found:
    """Read UNIT's file of both auto-encoders, and that of both discriminators (`d`)."""
    whole: Any = files["all"]
    if not all(isinstance(whole.get(domain), Mapping) for domain in "ab"):
        raise Unfit("it holds no auto-encoders a and b")
    parts = {domain: staged(modules_of(whole[domain]), ("enc", "dec")) for domain in "ab"}
    halves = [[m for m in parts[domain] if m[0].startswith(half)] for half in ("enc", "dec") for domain in "ab"]
    nets = {"g": [module for half in halves for module in half]}
    blocks = _residual_blocks(parts["a"], r"^enc\.model\.\d+\.model\.\d+\.model\.")
    params = {"width": _first(nets["g"]).shape[0], "blocks": blocks}
    judges: Any = files.get("d", {})
    for domain in "ab":
        if domain in judges:
            nets[f"d{domain}"] = modules_of(judges[domain])
            params["d_width"] = _first(nets[f"d{domain}"]).shape[0]
    return Found(params, nets)


def combogan(files: Mapping[str, State]) -> Found:
    """Read ComboGAN's files, in the order of their numbers: the encoders of all domains, then the decoders."""
    parts = [modules_of(files[name]) for name in sorted(files, key=int)]
    count = len(parts) // 2
    if not parts or len(parts) % 2:
        raise Unfit(f"{len(parts)} files are not an encoder and a decoder for each domain")
    encoders, decoders = parts[:count], parts[count:]
    params = {
        "width": _first(encoders[0]).shape[0],
        "encoder_blocks": _residual_blocks(encoders[0], r"\.conv_block\."),
        "decoder_blocks": _residual_blocks(decoders[0], r"\.conv_block\."),
    }
    nets = {"encoders": [m for part in encoders for m in part], "decoders": [m for part in decoders for m in part]}
    return Found(params, nets, labels=count)


def cartoongan(files: Mapping[str, State]) -> Found:
    """Read CartoonGAN's released weights as Yijunmaverick's port has them, or a generator of znxlwm's code.

    The port takes and gives blue, green, red: its first and last convolution are turned round. Its norms have an
    epsilon of 1e-9. The other code pads with zeros and has norms without scale and shift.
    """
    modules = modules_of(files["ab"])
    params: dict[str, Any] = {"width": _first(modules).shape[0]}
    if any(name.startswith("conv01_1") for name, _ in modules):
        params["blocks"] = sum(bool(re.fullmatch(r"conv(0[4-9]|1\d)_2", name)) for name, _ in modules)
        params |= {"affine": True, "norm_eps": 1e-9}
        modules[0][1]["weight"] = modules[0][1]["weight"].flip(1)
        modules[-1][1].update({kind: value.flip(0) for kind, value in modules[-1][1].items()})
    else:
        params["blocks"] = _residual_blocks(modules, r"^resnet_blocks\.")
        params |= {"affine": False, "padding": "zeros"}
    return Found(params, {"ab": modules})


def animegan2(files: Mapping[str, State]) -> Found:
    """Read the generator of the public PyTorch port of AnimeGANv2."""
    modules = modules_of(files["ab"])
    return Found({"net": "v2", "width": _first(modules).shape[0], "details": "pytorch"}, {"ab": modules})


@dataclass(frozen=True)
class OfficialLayout:
    """How a method's official files are read; `files` names them in a folder, by what they hold."""

    read: Callable[[Mapping[str, State]], Found]
    single: str  # what one file alone holds
    files: dict[str, str]  # patterns of file names, in order of preference by `latest`, then the highest number


LAYOUTS = {
    "cyclegan": OfficialLayout(
        cyclegan,
        "ab",
        {"ab": "*_net_G_A.pth", "ba": "*_net_G_B.pth", "db": "*_net_D_A.pth", "da": "*_net_D_B.pth"},
    ),
    "ugatit": OfficialLayout(ugatit, "all", {"all": "*_params_*.pt"}),
    "stargan": OfficialLayout(stargan, "g", {"g": "*-G.ckpt", "d": "*-D.ckpt"}),
    "unit": OfficialLayout(unit, "all", {"all": "gen_*.pt", "d": "dis_*.pt"}),
    "combogan": OfficialLayout(combogan, "0", {}),
    "cartoongan": OfficialLayout(cartoongan, "ab", {"ab": "*.pth"}),
    "animegan": OfficialLayout(animegan2, "ab", {"ab": "*.pt"}),
}
