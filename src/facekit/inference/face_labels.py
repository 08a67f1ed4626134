"""What each face is, for weights that must know: given for all of them, by folder, in a labels file, or predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..data.label_file import read_rows
from ..errors import CardError
from ..recipe_api import checkpoint
from ..recipe_api.checkpoint import Model
from ..storage import images
from ..storage.card import suggest
from ..storage.folder import Source
from ..storage.listing import composed

Known = Callable[[Source, Image.Image], str]
"""Returns what an image is, as `source` of the recipe's `translate`: its labels, joined by +."""

NONE = "none"


def open_known(
    found: Sequence[Source],
    model: Model,
    given: str | None = None,
    labels: Path | None = None,
    classifier: str | None = None,
) -> Known | None:
    """Return a function that gives each image's labels; None for weights that do not need them.

    `given` holds for all images (`none`: no label), `labels` is a labels file as `facekit train` reads it, `classifier`
    names weights of recipe `classifier`. Without them images of one label each lie in a folder of its name. Raises
    CardError for a label that the weights do not know, for images whose labels are unknown, and for more than one of
    the three; InputError for a labels file that cannot be read.
    """
    recipe = model.recipe
    ways = {"--from": given, "--labels": labels, "--classifier": classifier}
    chosen = [flag for flag, value in ways.items() if value is not None]
    if not recipe.needs_source:
        if chosen:
            raise CardError(f"{model.card.recipe} does not use what the faces are", f"leave out {chosen[0]}")
        return None
    if len(chosen) > 1:
        raise CardError(f"{' and '.join(chosen)} both say what the faces are", "give one of them")
    if given is not None:
        every = given_label(given, model)
        return lambda source, picture: every
    if labels is not None:
        return _by_name(_from_file(labels, found, model), found)
    if classifier is not None:
        return _predicted(checkpoint.load_model(classifier), model)
    if recipe.combines:
        raise CardError(
            "these weights change what you name and keep a face's other attributes, so they must know these",
            "--from Young+Male for all faces, --labels FILE, or --classifier WEIGHTS",
        )
    return _by_name({source.name: _folder(source, model) for source in found}, found)


def given_label(given: str, model: Model) -> str:
    """Return what the recipe calls the labels `given`, joined by +; raises CardError for one that it does not know."""
    if model.recipe.combines and given == NONE:
        return ""
    return checkpoint.direction(model, given)


def _by_name(labels: dict[str, str], found: Sequence[Source]) -> Known:
    missing = [source.name for source in found if source.name not in labels]
    if missing:
        raise CardError(f"{len(missing)} images have no labels (the first: {missing[0]})", "add rows for them")
    return lambda source, picture: labels[source.name]


def _folder(source: Source, model: Model) -> str:
    known, folder = model.directions, Path(source.name).parts[0]
    if folder not in known:
        hint = f"--from {' or '.join(known)}, or one folder for each"
        raise CardError(f"these weights need to know what {source.name} is{suggest(folder, known)}", hint)
    return known[folder]


def _from_file(path: Path, found: Sequence[Source], model: Model) -> dict[str, str]:
    """Return each image's labels that the model knows; the file may name images by path or by bare name."""
    known = set(model.directions)
    rows = {composed(name): "+".join(label for label in has if label in known) for _, name, has in read_rows(path)}
    names = {source.name: composed(source.name) for source in found}
    by_name = {name: rows.get(plain, rows.get(Path(plain).name)) for name, plain in names.items()}
    return {name: has for name, has in by_name.items() if has is not None}


def _predicted(judge: Model, model: Model) -> Known:
    """Return what asks a classifier; labels of the weights that it does not know raise CardError."""
    recipe: Any = judge.recipe
    if not callable(getattr(recipe, "probabilities", None)) or not hasattr(recipe.params, "labels"):
        raise CardError(f"{judge.path} is not a classifier", "give weights of the recipe classifier")
    known, wanted = list(recipe.params.labels), list(model.recipe.params.labels)
    missing = [label for label in wanted if label not in known]
    if missing:
        raise CardError(f"the classifier does not know {missing[0]!r}", f"train it on {', '.join(wanted)}")
    parameter = next(judge.nets.parameters())

    @torch.inference_mode()
    def label(source: Source, picture: Image.Image) -> str:
        face = images.resize(images.square(picture), judge.card.data.size)
        chances = recipe.probabilities(judge.nets, images.to_tensor(face)[None].to(parameter))[0]
        if recipe.params.single:
            return known[int(chances.argmax())]
        return "+".join(label for label in wanted if chances[known.index(label)] > 0.5)

    return label
