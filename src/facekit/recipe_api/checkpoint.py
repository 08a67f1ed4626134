"""Trained weights by path or name: one safetensors file whose header carries the card of its run."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import CardError, MissingError
from ..storage import card, files
from . import base as recipe
from . import registry

FILE = "model.safetensors"
SHIPPED = Path(__file__).parents[1] / "weights"
KEY = "facekit"


@dataclass
class Model:
    """A trained method: its recipe, the nets that translate, and its card."""

    recipe: recipe.Recipe
    nets: nn.ModuleDict
    card: card.TrainCard
    path: Path

    @property
    def directions(self) -> dict[str, str]:
        """The domains that it translates to: name -> what the recipe calls it."""
        return self.recipe.targets(self.card.domains)


def shipped() -> dict[str, Path]:
    """Return the weights that come with facekit, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}


def find_weights(name: str | Path) -> Path:
    """Return the weights file of a run folder, a file or a shipped name; raises MissingError where there is none."""
    path = Path(name)
    if (path / FILE).is_file():
        return path / FILE
    if path.is_file():
        return path
    known = shipped()
    if str(name) in known:  # also where an output folder has the same name
        return known[str(name)]
    if path.is_dir():
        raise MissingError(f"{path} holds no {FILE}", "train into it first, or give another folder")
    raise MissingError(
        f"no weights {str(name)!r}{card.suggest(str(name), known) if known else ''}",
        "give a run folder, a .safetensors file, or the name of weights that come with facekit",
    )


def save_model(path: Path, nets: nn.ModuleDict, values: Mapping[str, Any], half: bool = False) -> None:
    """Write nets with the card `values` in the header, whole; `half` stores 16-bit floats.

    The header has one key: several would be written in random order, and equal models would not be equal files.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {k: _plain(v, dtype) for k, v in nets.state_dict().items()}
    files.write_bytes(path, save(tensors, metadata={KEY: json.dumps(values)}))


def _plain(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).clone(memory_format=torch.contiguous_format)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file and its header; raises MissingError for a file that is cut short or is something else."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise MissingError(
            f"{path} is not a whole safetensors file ({error})",
            "fetch or train it again; pickled checkpoints (.pt, .pth) are not read as models",
        ) from error


def load_model(name: str | Path, device: torch.device | str = "cpu") -> Model:
    """Load the model of a run folder, a safetensors file or a shipped name, ready to translate.

    Raises MissingError for files that are missing, cut short, not ours, or whose weights do not fit their card.
    """
    path = find_weights(name)
    tensors, header = read_tensors(path)
    if KEY not in header:
        raise MissingError(f"{path} carries no facekit card", "give weights that `facekit train` has written")
    try:
        values = card.validate(card.TrainCard, json.loads(header[KEY]), str(path))
        kind, _ = registry.find(values.recipe)
        params = card.validate(kind.Params, {**kind.older_defaults, **values.params}, "params")
        made = kind(params.model_dump(), values.data.size)
        nets = _build(made, tensors)
    except CardError as error:
        hint = "it needs the recipe that it was trained with, in the same place"
        raise MissingError(f"{path} cannot be built: {error.message}", hint) from error
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" …")
        raise MissingError(f"{path} does not fit its card: {reason}", "it is of another version, or damaged") from error
    nets = nets.to(device).to(memory_format=torch.channels_last).requires_grad_(False).eval()
    return Model(made, nets, values, path)


class _Unset(TorchFunctionMode):
    """Leaves weights as they come: to draw them without memory makes torch import its compiler, which takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__:  # they are called by name
            return (kwargs or {}).get("tensor", args[0] if args else None)
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _build(made: recipe.Recipe, tensors: Mapping[str, torch.Tensor]) -> nn.ModuleDict:
    """Build only the nets that translate, without initialising what is loaded."""
    with torch.device("meta"), _Unset():
        every = made.nets()
    nets = nn.ModuleDict({name: every[name] for name in made.exports})
    wide = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    nets.load_state_dict(wide, assign=True)
    return nets


def direction(model: Model, to: str | None) -> str:
    """Return what the recipe calls the domain `to`; None is the only one, or the second of two.

    Names joined by + are several at once, where the recipe combines them. Raises CardError with the names that there
    are.
    """
    known = model.directions
    if not known:
        raise CardError(f"{model.path} translates nothing", "give weights of a recipe that translates")
    hint = f"--to {' or '.join(known)}"
    if to is None and len(known) > 2:
        raise CardError("these weights translate to several domains", hint)
    if to is None:
        return list(known.values())[-1]
    names = to.split("+") if model.recipe.combines else [to]
    for name in names:
        if name not in known:
            raise CardError(f"these weights do not translate to {name!r}{card.suggest(name, known)}", hint)
    return "+".join(known[name] for name in names)
