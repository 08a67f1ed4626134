"""Find recipes by name: ours, those of other packages (entry point `facekit.recipes`), and your own files."""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import CardError
from ..storage import card, files
from .base import Recipe

_imported: set[Path] = set()  # recipe files that this process has run, because the user named them


@dataclass(frozen=True)
class Entry:
    """A recipe's name and where it is: known without importing it."""

    name: str
    target: str  # "package.module:Class" or "path/to/file.py:Class"
    summary: str
    preset: dict
    defaults: dict = field(default_factory=dict)  # of the class or those it inherits, where they are literal


def catalogue() -> dict[str, Entry]:
    """List every recipe by name: ours, then those that other packages add (entry point `facekit.recipes`)."""
    entries = dict(shipped())
    for point in _added(tuple(sys.path)):
        entries.setdefault(point.name, Entry(point.name, point.value, f"from {point.module}", {}))
    return entries


@functools.lru_cache(maxsize=1)
def _added(path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    """List the recipes of other packages on the import path; looking through all of them takes 0.01 s, so once."""
    return tuple(metadata.entry_points(group="facekit.recipes"))


@functools.cache
def shipped() -> dict[str, Entry]:
    """List facekit's own recipes by name; their files are read once per process, which takes 0.1 s."""
    entries: dict[str, Entry] = {}
    for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.py")):
        entries.update(_entries(path, f"facekit.recipes.{path.stem}"))
    return entries


def _entries(path: Path, where: str) -> dict[str, Entry]:
    """Read the recipe classes of a file from its syntax tree, so that torch stays out."""
    found = {}
    module = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in module.body:
        values = _values(node) if isinstance(node, ast.ClassDef) else {}
        if isinstance(node, ast.ClassDef) and "presets" in values:
            summary = (ast.get_docstring(node) or "").split("\n")[0]
            defaults = {}
            with contextlib.suppress(ValueError):  # they need the class to be imported
                defaults = _defaults(node, module, path)
            for name, preset in ast.literal_eval(values["presets"]).items():
                found[name] = Entry(name, f"{where}:{node.name}", summary, preset, defaults)
    return found


def _values(node: ast.ClassDef) -> dict[str, ast.expr]:
    """Return what a class body assigns, by name."""
    values = {}
    for line in node.body:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        if isinstance(target, ast.Name) and getattr(line, "value", None):
            values[target.id] = line.value  # type: ignore[attr-defined]
    return values


def _defaults(node: ast.ClassDef, module: ast.Module, path: Path) -> dict:
    """Return a recipe class's defaults, or those of its first base in this file or a file beside it.

    Raises ValueError where they are not literal.
    """
    values = _values(node)
    if "defaults" in values:
        return ast.literal_eval(values["defaults"])
    base = node.bases[0] if node.bases else None
    if not isinstance(base, ast.Name):
        return {}
    for line in module.body:
        if isinstance(line, ast.ClassDef) and line.name == base.id:
            return _defaults(line, module, path)
        if isinstance(line, ast.ImportFrom) and line.level == 1 and any(name.name == base.id for name in line.names):
            beside = path.with_name(f"{line.module}.py")
            if not beside.is_file():
                return {}
            other = ast.parse(beside.read_text(encoding="utf-8"), str(beside))
            found = [node for node in other.body if isinstance(node, ast.ClassDef) and node.name == base.id]
            return _defaults(found[0], other, beside) if found else {}
    return {}


def is_file(name: str) -> bool:
    """Whether `name` is a recipe file, `own.py` or `own.py:name`, rather than the name of an installed recipe."""
    return name.endswith(".py") or ".py:" in name


def was_imported(name: str) -> bool:
    """Whether `find` has run the recipe file `name` before, in this process."""
    return files.real(name.rpartition(".py")[0] + ".py") in _imported


def refuse_code(values: Mapping[str, Any], command: str, where: str) -> None:
    """Raise CardError where a card names a recipe file that this process has not run: cards never run code.

    `command` is what runs it, with {} in the place of the file.
    """
    name = values.get("recipe")
    if isinstance(name, str) and is_file(name) and not was_imported(name):
        raise CardError(
            f"{where} names the recipe file {name}, and cards never run code by themselves",
            f"if you trust that file, name it yourself: {command.format(name)}",
        )


def find_entry(name: str) -> Entry:
    """Find a recipe by name, or by `file.py` / `file.py:name` for your own recipe.

    Raises CardError with the nearest names when there is none.
    """
    if is_file(name):
        file, _, preset = name.rpartition(".py")
        path, wanted = Path(f"{file}.py"), preset.lstrip(":")
        if not path.is_file():
            raise CardError(f"no recipe file {path}", "give the path of a Python file that holds a Recipe")
        try:
            entries = _entries(path, str(path))
        except (SyntaxError, ValueError, UnicodeDecodeError) as error:
            raise CardError(f"{path} is not a Python file with literal presets: {error}", "fix the file") from error
        if not entries or (wanted and wanted not in entries):
            raise CardError(
                f"{path} holds no recipe {wanted}".rstrip(), f"it has: {', '.join(entries) or 'no presets'}"
            )
        return entries[wanted] if wanted else next(iter(entries.values()))
    known = catalogue()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise CardError(f"no recipe {name!r}", f"{hint}known: {', '.join(known)}")
    return known[name]


MOVED = {  # modules that recipes imported before facekit 0.2
    "facekit.recipe_api.base.Clock": "facekit.recipe_api.base.Progress",
    "facekit.recipe": "facekit.recipe_api.base",
    "facekit.zoo": "facekit.recipe_api.checkpoint",
    "facekit.labelled": "facekit.recipe_api.labelled",
    "facekit.smoothed": "facekit.recipe_api.edge_promoting",
    "facekit.losses": "facekit.ops.losses",
    "facekit.contextual": "facekit.ops.contextual",
    "facekit.augment": "facekit.ops.augment",
    "facekit.layout": "facekit.data.dataset",
    "facekit.batches": "facekit.data.loader",
    "facekit.labels": "facekit.data.label_file",
    "facekit.masks": "facekit.data.face_masks",
    "facekit.rolled": "facekit.data.roll",
    "facekit.card": "facekit.storage.card",
    "facekit.images": "facekit.storage.images",
    "facekit.files": "facekit.storage.files",
    "facekit.folder": "facekit.storage.folder",
    "facekit.report": "facekit.runtime.console",
    "facekit.world": "facekit.runtime.distributed",
    "facekit.sheet": "facekit.reports.contact_sheet",
    "facekit.embedding": "facekit.nets.face_embedding",
    "facekit.helpers": "facekit.nets.pretrained",
    "facekit.engine": "facekit.training.loop",
    "facekit.nets.heads": "facekit.nets.projected",
    "facekit.nets.patch": "facekit.nets.patchgan",
    "facekit.nets.pool": "facekit.nets.image_pool",
    "facekit.nets.spectral": "facekit.nets.spectral_norm",
}


def _import_hint(error: ImportError) -> str:
    """Return what to do about a module or name that a recipe file does not find."""
    missing = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    name = f"{missing[2]}.{missing[1]}" if missing else error.name or ""
    if name in MOVED:
        return f"{name} is {MOVED[name]} since facekit 0.2: change the import in the file"
    return (
        "fix the import" if name.startswith("facekit") else f"pip install {name.partition('.')[0]}, or fix the import"
    )


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card's values with the recipe parameters that are newer than the card, as it was trained.

    Raises CardError where the card names a recipe file that this process has not run.
    """
    refuse_code(values, "facekit train {}", "the card")
    kind, _ = find(values["recipe"])
    given = {**kind.older_defaults, **values.get("params", {})}
    return {**values, "params": card.validate(kind.Params, given, "params").model_dump(mode="json")}


def find(name: str) -> tuple[type[Recipe], dict]:
    """Import the recipe of `name`; return its class and the card values that its name stands for."""
    entry = find_entry(name)
    where, _, cls = entry.target.rpartition(":")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location(f"facekit_recipe_{Path(where).stem}", where)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pydantic look up annotations there
        try:
            spec.loader.exec_module(module)
        except ImportError as error:
            raise CardError(f"{where} cannot be imported: {error}", _import_hint(error)) from error
        except Exception as error:  # whatever a user's file raises
            raise CardError(f"{where} cannot be imported: {type(error).__name__}: {error}", "fix the file") from error
        _imported.add(files.real(where))
    else:
        module = importlib.import_module(where)
    kind = getattr(module, cls, None)
    if not (isinstance(kind, type) and issubclass(kind, Recipe)):
        raise CardError(f"{entry.target} is not a recipe", "name a subclass of facekit.recipe_api.base.Recipe")
    return kind, kind.presets.get(entry.name, entry.preset)
