"""Weights of the authors' code as weights of ours: reading their files, building the nets, writing a card."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CardError, InputError, MissingError
from ..nets.old_pickle import read_without_code
from ..recipe_api import checkpoint, registry
from ..recipe_api.official_layouts import LAYOUTS, Found, OfficialLayout, Unfit, fit
from ..runtime import console
from ..storage import card, files, lock

STATE = "state.pt"  # of a run folder, that `train --init` takes all nets from
WRAPPERS = ("generator", "state_dict", "model", "net", "params_ema", "params")
SIDES = {"g_ab": "ab", "g_ba": "ba", "ab": "ab", "ba": "ba", "a": "ab", "b": "ba"}


@dataclass(frozen=True)
class Imported:
    """What was read: the nets of the recipe that the files hold, the card, and the files with their digests."""

    nets: nn.ModuleDict
    exports: tuple[str, ...]
    values: dict[str, Any]
    sources: dict[str, str]


def read_official(
    source: Path,
    recipe: str,
    side: str | None = None,
    labels: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Imported:
    """Read one official file, or a folder of those that belong together, as weights of `recipe`.

    `side` says which generator a single file of a two-way method holds (`g_ab`, `g_ba`); else its name does. `labels`
    are the domains in their order, where the method has labels. `settings` are card values that override those of the
    file. Raises CardError for a recipe without official layout and for missing labels, InputError for a missing source,
    MissingError for a file that is broken, of another method or of nets that facekit cannot build.
    """
    kind, preset = registry.find(recipe)
    name = next((name for name in LAYOUTS if registry.find(name)[0] is kind), None)
    if name is None:
        raise CardError(f"facekit does not know official weights for {recipe}", f"known: {', '.join(LAYOUTS)}")
    layout = LAYOUTS[name]
    paths = find_files(source, name, layout, side)
    try:
        found = layout.read({part: _state(path) for part, path in paths.items()})
    except (Unfit, KeyError, IndexError, StopIteration, AttributeError) as error:
        raise MissingError(f"{source} is not of the official {name}: {error}", "check --as and --side") from error
    known = {"recipe": recipe, "params": found.params, **({"data": {"size": found.size}} if found.size else {})}
    values = card.merge(kind.defaults, preset, known, _labelled(found, labels, name), settings or {})
    checked = card.validate(card.TrainCard, values, "import")
    params = card.validate(kind.Params, checked.params, "params")
    made = kind(params.model_dump(), checked.data.size)
    own = made.nets()
    nets = nn.ModuleDict({net: own[net] for net in found.nets})
    for net, modules in found.nets.items():
        try:
            nets[net].load_state_dict(fit(nets[net].state_dict(), modules))
        except Unfit as error:
            raise MissingError(f"{source} does not fit {recipe}, net {net}: {error}", _hint(checked)) from error
    plain = card.plain(checked.model_copy(update={"params": params.model_dump(mode="json")}))
    sources = {str(path): files.digest(path) for path in paths.values()}
    return Imported(nets, made.exports, {**plain, "made": {"imported": sources}}, sources)


def _hint(values: card.TrainCard) -> str:
    return f"the net was built from the file with {values.params}; --set params.NAME=VALUE changes that"


def _labelled(found: Found, labels: Sequence[str], name: str) -> dict[str, Any]:
    if not found.labels:
        if labels:
            raise CardError(f"{name} has no labels", "leave out --labels")
        return {}
    if len(labels) != found.labels:
        count = f"{len(labels)} are named" if labels else "they are not in the file"
        raise CardError(f"these weights have {found.labels} labels; {count}", "--labels ONE,TWO,… in their order")
    return {"params": {"labels": list(labels)}}


def find_files(source: Path, name: str, layout: OfficialLayout, side: str | None) -> dict[str, Path]:
    """Return the files of `source` by what they hold: itself, or of a folder the latest of each kind."""
    if source.is_file():
        if side is not None and side not in SIDES:
            raise CardError(f"no side {side!r}", f"--side {' or '.join(SIDES)}")
        if name == "cyclegan":
            backwards = re.search(r"_G_B\b", source.stem) if side is None else SIDES[side] == "ba"
            return {"ba" if backwards else "ab": source}
        return {layout.single: source}
    if not source.is_dir():
        raise InputError(f"no file or folder {source}", "check the path")
    if name == "combogan":
        numbered = _numbered(source)
        if not numbered:
            raise InputError(f"{source} holds no *_net_G0.pth, *_net_G1.pth, …", "give ComboGAN's checkpoint folder")
        return numbered
    found = {part: _latest(source, pattern) for part, pattern in layout.files.items()}
    there = {part: path for part, path in found.items() if path is not None}
    if not there:
        raise InputError(f"{source} holds no {' or '.join(layout.files.values())}", f"give a folder of {name}'s files")
    return there


def _latest(folder: Path, pattern: str) -> Path | None:
    """Return the file of a kind with "latest" in its name, or else with the highest number."""

    def age(path: Path) -> tuple[bool, list[int]]:
        return "latest" in path.name, [int(number) for number in re.findall(r"\d+", path.stem)]

    return max(folder.glob(pattern), key=age, default=None)


def _numbered(folder: Path) -> dict[str, Path]:
    """Return ComboGAN's generator files of the latest epoch by number."""
    epochs: dict[str, dict[str, Path]] = {}
    for path in folder.glob("*_net_G*.pth"):
        match = re.fullmatch(r"(.+)_net_G(\d+)", path.stem)
        if match:
            epochs.setdefault(match[1], {})[match[2]] = path
    latest = max(epochs, key=lambda epoch: (epoch == "latest", int(epoch) if epoch.isdigit() else -1), default="")
    return epochs.get(latest, {})


def _state(path: Path) -> Mapping[str, Tensor]:
    """Read a file without running code that it may hold; a state dict inside a wrapper is looked through."""
    found: Any = read_without_code(path)
    for key in WRAPPERS:
        if isinstance(found.get(key), Mapping):
            found = found[key]
    return found


def write(imported: Imported, out: Path, force: bool = False, dry_run: bool = False) -> list[str]:
    """Write what was imported: into a folder with all nets for `train --init`, or a .safetensors file to translate.

    Returns the nets that a file leaves out. Does nothing where `out` holds this import already; a killed import goes
    on. Raises CardError where the files hold no generator, or, unless `force`, where `out` holds anything else.
    """
    missing = [net for net in imported.exports if net not in imported.nets]
    if missing:
        raise CardError(f"the files hold no {missing[0]}", "give the folder that has both generators")
    others = [net for net in imported.nets if net not in imported.exports]
    single = out.suffix == ".safetensors"
    model, state = (out, None) if single else (out / checkpoint.FILE, out / STATE)
    if dry_run:
        _is_there(imported, model, state, force)
    else:
        with lock.held_file(out, "import") if single else lock.held(out, "import"):
            if state:
                files.sweep_beside(state)
            files.sweep_beside(model)
            _write(imported, model, state if others else None, _is_there(imported, model, state, force))
    return others if single else []


def _is_there(imported: Imported, model: Path, state: Path | None, force: bool) -> bool:
    """Whether the file `model` is of this import; raises CardError for other files without `force`."""
    if force:
        return False
    if model.is_dir():
        raise CardError(f"{model} is a folder", "choose another name")
    hint = "choose another name, or --force overwrites it"
    if not model.exists():
        if state and state.exists():
            raise CardError(f"{state} already exists", hint)
        return False
    with contextlib.suppress(MissingError):
        if checkpoint.saved_card(model) == json.loads(json.dumps(imported.values)):
            return True
    raise CardError(f"{model} already exists", hint)


def _write(imported: Imported, model: Path, state: Path | None, there: bool) -> None:
    """Write the nets that translate, and all nets for training; those that are `there` stay."""
    if there and (state is None or state.exists()):
        console.note(f"import: nothing to do, {model} is complete")
        return
    exports = nn.ModuleDict({net: imported.nets[net] for net in imported.exports})
    if not there:
        checkpoint.save_model(model, exports, imported.values)
    if state:
        with files.replacing(state) as part, part.open("wb") as file:
            torch.save({"nets": imported.nets.state_dict()}, file)
