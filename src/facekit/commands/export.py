"""`facekit export`: a trained generator as an ONNX file, for programs without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from . import completion, options

if TYPE_CHECKING:
    from collections.abc import Mapping


def export(
    model: Annotated[
        str,
        typer.Argument(help="a run folder, a .safetensors file, or a shipped name", autocompletion=completion.weights),
    ],
    out: Annotated[Path, typer.Argument(help="ONNX file to write, NAME.onnx")],
    *,
    recipe: options.RecipeFile = None,
    to: Annotated[Optional[str], typer.Option(help="domain or label to translate to: anime")] = None,
    from_: Annotated[
        Optional[str], typer.Option("--from", help="what the faces are, for weights that must know")
    ] = None,
    size: Annotated[Optional[int], typer.Option(min=16, help="edge of the images, px; else the model's own")] = None,
    dynamic: Annotated[
        bool,
        typer.Option("--dynamic/--fixed", help="any batch and every size that the nets take, or one image of one size"),
    ] = True,
    opset: Annotated[
        int, typer.Option(min=13, max=20, help="version of ONNX's operators")  # as many as hold every recipe's nets
    ] = 17,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Write the generator of trained weights as an ONNX file.

    It maps images [N, 3, H, W], RGB from -1 to 1, to images of the same shape. ONNX Runtime's results
    are compared with PyTorch's before the file gets its name. Its metadata holds the largest difference, the model's
    card and what input to give it.
    """
    from ..inference.onnx_export import as_text, open_generator, shape_of, ways_to_write, write
    from ..inference.translator import Translator
    from ..recipe_api import checkpoint
    from ..runtime import console
    from ..storage import files

    out = Path(out)
    found = checkpoint.load_model(model, recipe=recipe)
    translator = Translator(found, to, size)
    open_generator(translator, from_)
    given = {"to": translator.name, "came_from": from_, "size": translator.size, "dynamic": dynamic, "opset": opset}
    given = {key: value for key, value in given.items() if value is not None}
    inputs = {"weights": files.digest(found.path)}
    values = {"facekit": 1, "command": "export", "options": given, "inputs": inputs}
    if _complete(out, found.path, values, force):
        console.note(f"export: nothing to do, {out} is complete")
        return out
    if dry_run:
        shape = shape_of(ways_to_write(dynamic, found.recipe.multiple)[0], translator.size)
        text = f"export: {translator.name} of {found.path} to {out}, {as_text(shape)}"
        console.result(text, path=str(out), options=given)
        return out
    with files.replacing(out) as part:
        made = write(translator, part, from_, dynamic, opset, values)
    console.result(
        f"export: {out} takes {as_text(made.shape)} to {translator.name}; {made.difference:.2g} from PyTorch at most",
        path=str(out),
        domain=translator.name,
        shape=made.shape,
        multiple=found.recipe.multiple if "height" in made.shape else 0,
        difference=made.difference,
        compared=[list(each) for each in made.compared],
    )
    return out


def _complete(out: Path, weights: Path, values: Mapping[str, Any], force: bool) -> bool:
    """Whether `out` is what this export would write.

    Raises CardError for a name that is no ONNX file's, for a file of another export or of somebody else's without
    `force`, and for the weights themselves.
    """
    import json

    from ..errors import CardError, MissingError
    from ..inference import onnx_export
    from ..storage import card

    if out.suffix.lower() != ".onnx":
        raise CardError(f"{out} does not end in .onnx", f"facekit export MODEL {out.name}.onnx")
    if out.is_dir():
        raise CardError(f"{out} is a folder", "give a file")
    if out.exists() and out.resolve() == weights.resolve():
        raise CardError(f"{out} is the weights themselves", "choose another name")
    if force or not out.exists():
        return False
    try:
        old = json.loads(onnx_export.read_metadata(out)["export"])
    except (MissingError, KeyError, ValueError) as error:
        hint = "choose another name, or --force"
        raise CardError(f"{out} already exists and was not created by facekit", hint) from error
    changed = card.differences(old, values)
    if changed:
        hint = "choose another name, or --force to replace this one"
        raise CardError(f"{out} is another export: {'; '.join(changed)}", hint)
    return True
