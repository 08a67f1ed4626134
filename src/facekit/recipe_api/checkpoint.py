"""Trained weights by path or name: one safetensors file whose header carries the card of its run."""

from __future__ import annotations

import contextlib
import json
import math
import textwrap
from collections.abc import Iterator, Mapping
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
from . import registry, remote_weights

FILE = "model.safetensors"
SHIPPED = Path(__file__).parents[1] / "weights"
PICKLED = (".pt", ".pth", ".ckpt", ".pkl")  # the suffixes of other projects' checkpoints
KEY = "facekit"
LARGEST_HEADER = 4_000_000  # bytes; a net of 10,000 tensors needs about 1,000,000
LARGEST_CARD = 1_000_000  # characters
LARGEST_SIZE = 16_384  # px
MOST_CALLS = 5_000, 20  # of torch while nets are built, and more for each tensor of the file


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
    """Return the paths of the weights that come with facekit, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"), key=lambda path: path.stem)}


def find_weights(name: str | Path) -> Path:
    """Return the weights file of a run folder, a file, a shipped name or a URL, which is downloaded into the cache.

    Raises MissingError if there is none, InputError if a download fails, CardError for a malformed URL.
    """
    if remote_weights.is_url(name):
        return remote_weights.fetch(str(name))
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
        "give a run folder, a .safetensors file, a URL, or a name that `facekit weights` lists",
    )


def save_model(path: Path, nets: nn.ModuleDict, values: Mapping[str, Any], half: bool = False) -> None:
    """Write nets with the card `values` in the header; `half` stores 16-bit floats.

    Equal models are equal files: the header has one key, because several would be written in random order.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {k: _plain(v, dtype) for k, v in nets.state_dict().items()}
    files.write_bytes(path, save(tensors, metadata={KEY: json.dumps(values)}))


def _plain(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).clone(memory_format=torch.contiguous_format)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors by name and its metadata.

    Raises MissingError for a file that is truncated, is of another kind, or has a header over `LARGEST_HEADER` bytes.
    """
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; raises as `read_tensors` does."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if LARGEST_HEADER < length < path.stat().st_size:
            raise ValueError(f"its header takes {length:,} bytes")
        with safe_open(path, "pt") as tensors:
            yield tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise MissingError(
            f"{path} is not a complete safetensors file ({error})",
            "download or train it again; pickled checkpoints (.pt, .pth) are not read as models; see facekit import",
        ) from error


def saved_card(name: str | Path) -> dict[str, Any]:
    """Return the card in weights as they hold it; raises MissingError for weights that are missing or not facekit's."""
    path = find_weights(name)
    with _opened(path) as file:
        header = file.metadata() or {}
    try:
        return _card_values(_header(path, header))
    except ValueError as error:
        raise MissingError(f"{path} has no card that can be read: {error}", "give other weights") from error


def _header(path: Path, metadata: Mapping[str, str]) -> str:
    if KEY not in metadata:
        raise MissingError(f"{path} has no facekit card", "give weights that `facekit train` has written")
    return metadata[KEY]


def load_model(name: str | Path, device: torch.device | str = "cpu", recipe: str | None = None) -> Model:
    """Load the model of a run folder, a safetensors file or a shipped name, ready to translate.

    Weights never run code: their card may name an installed recipe only. `recipe` names the recipe to build with
    instead; a recipe file (`own.py` or `own.py:name`) is run only where it is given here, or was named for training in
    this process. No file that the card names is opened.

    Raises MissingError for files that are missing, cut short or not facekit's, whose card names a recipe file while
    `recipe` is None, whose weights do not fit their card, or whose weights are not finite.
    """
    path = find_weights(name)
    tensors, header = read_tensors(path)
    text = _header(path, header)
    try:
        values = card.validate(card.TrainCard, _card_values(text), "its card")
        if registry.is_file(values.recipe) and recipe is None and not registry.was_imported(values.recipe):
            raise MissingError(
                f"needs the recipe file {_short(values.recipe)}, and weights never run code by themselves",
                f"if you trust that file, name it yourself: --recipe {_short(values.recipe)}",
            )
        kind, _ = registry.find(_wanted(recipe, values.recipe))
        params = card.validate(kind.Params, {**kind.older_defaults, **values.params}, "params")
        built = kind(params.model_dump(), values.data.size)
        nets = _build(built, tensors)
    except MissingError as error:
        raise MissingError(f"{path}: {error.message}", error.hint) from error
    except CardError as error:
        hint = "it needs the recipe that it was trained with"
        raise MissingError(f"{path} cannot be built: {_short(error.message)}", hint) from error
    except Exception as error:  # a card holds any values, and recipes raise anything on those that make no net
        hint = "it was written by another version, or is damaged"
        raise MissingError(f"{path} does not fit its card: {_short(str(error))}", hint) from error
    nets = nets.to(device).to(memory_format=torch.channels_last).requires_grad_(False).eval()
    return Model(built, nets, values, path)


def _card_values(text: str) -> dict[str, Any]:
    """Parse the card in a header; raises ValueError where it is no JSON object, or larger than any run's card."""
    if len(text) > LARGEST_CARD:
        raise ValueError(f"the card has {len(text):,} characters")

    def refuse(constant: str) -> None:
        raise ValueError(f"the card holds {constant}")

    values = json.loads(text, parse_constant=refuse)
    if not isinstance(values, dict):
        raise ValueError("the card holds no keys")
    size = (values.get("data") or {}).get("size")
    if isinstance(size, int) and size > LARGEST_SIZE:
        raise ValueError(f"the card sets images of {size:.3g} px")
    return values


def _wanted(given: str | None, named: str) -> str:
    """Return the recipe to build with: `given`, with the recipe's name within the file where only the card has it."""
    if given is None:
        return named
    inside = named.rpartition(".py:")[2] if ".py:" in named else ""
    return f"{given}:{inside}" if inside and given.endswith(".py") else given


def _short(text: str) -> str:
    """Return text on one line, at most 200 characters."""
    return textwrap.shorten(text, 200, placeholder=" …")


class Blueprint(TorchFunctionMode):
    """Builds nets without initialising their weights; raises ValueError after `calls` calls of torch functions.

    On the meta device initialisation has no effect, but makes torch import its compiler: 3 seconds for a cyclegan,
    whose building takes 0.1 (`benchmarks/load_model.py`). The limit is for cards that set too many layers.
    """

    def __init__(self, calls: float = math.inf):
        super().__init__()
        self.calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls -= 1
        if self.calls < 0 and torch.is_grad_enabled():  # an error within no_grad's own calls would leave it on
            raise ValueError("the card sets too many layers")
        if getattr(func, "__module__", None) == nn.init.__name__:
            return (kwargs or {}).get("tensor", args[0] if args else None)
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _build(built: recipe.Recipe, tensors: Mapping[str, torch.Tensor]) -> nn.ModuleDict:
    """Build the nets that translate around `tensors`; raises MissingError where a value is not finite."""
    some, each = MOST_CALLS
    with torch.device("meta"), Blueprint(some + each * len(tensors)):
        every = built.nets()
    nets = nn.ModuleDict({name: every[name] for name in built.exports})
    wide = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    nets.load_state_dict(wide, assign=True)
    for key, value in wide.items():
        if not bool(torch.isfinite(value).all()):
            raise MissingError(
                f"weights hold NaN or infinite values ({key}): training diverged, or the file is damaged",
                "take weights of an earlier step, or train again with a lower optim.lr",
            )
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
