"""`facekit translate`: faces or photos in, faces of another domain out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from . import completion, options

OLD_ROTATION: dict[str, Literal["upright", "condition"]] = {"level": "upright", "tell": "condition"}


def translate(
    source: Annotated[Path, typer.Argument(help="a folder of faces or photos, or one image")],
    out: Annotated[Path, typer.Argument(help="output folder, or an image file for one image")],
    *,
    to: Annotated[
        Optional[str],
        typer.Option(
            help="domain or label to translate to: anime; several: smile,cry; or all", autocompletion=completion.targets
        ),
    ] = None,
    from_: Annotated[
        Optional[str],
        typer.Option(
            "--from", help="what the faces are, for weights that must know: photo, Young+Male; else by folder"
        ),
    ] = None,
    labels: Annotated[
        Optional[Path],
        typer.Option(help="labels file that says which attributes the faces have", rich_help_panel="Labels"),
    ] = None,
    classifier: Annotated[
        Optional[str],
        typer.Option(help="weights of a classifier that sees which labels the faces have", rich_help_panel="Labels"),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="a run folder, a .safetensors file, a name that `facekit weights` lists, or a URL",
            autocompletion=completion.weights,
        ),
    ] = "anime",
    sha256: Annotated[Optional[str], typer.Option(help="digest that weights by URL must have", metavar="HEX")] = None,
    recipe: options.RecipeFile = None,
    size: Annotated[Optional[int], typer.Option(min=16, help="edge to translate at, px; else the model's own")] = None,
    align: Annotated[bool, typer.Option("--align/--no-align", help="cut the face out of photos first")] = True,
    paste: Annotated[bool, typer.Option("--paste", help="put the face back into its photo")] = False,
    faces: Annotated[
        Literal["largest", "all"],
        typer.Option(help="which faces --paste puts back", rich_help_panel="Faces"),
    ] = "largest",
    strength: options.Strength = None,
    keep: options.Keep = None,
    background: options.Background = None,
    swap_at: options.SwapAt = None,
    control: options.Controls = None,
    mask: Annotated[
        bool, typer.Option("--mask", help="write where faces are changed (white: completely) instead of the faces")
    ] = False,
    rotation: Annotated[
        Optional[Literal["upright", "condition"]],
        typer.Option(
            help="translate tilted faces whole, by the manifest's roll or a detected one: turn them upright and back, "
            "or condition cyclegan-angle on the angle"
        ),
    ] = None,
    tilted: Annotated[
        Optional[Literal["level", "tell"]], typer.Option(hidden=True, help="old name of --rotation")
    ] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="also write a contact sheet, OUT-sheet.png")] = False,
    suffix: Annotated[Literal["png", "jpg", "webp"], typer.Option(help="file type of the output")] = "png",
    batch: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            help="images at a time; else 32 on a GPU, on the processor one per worker",
            rich_help_panel="Computing",
        ),
    ] = None,
    margin: Annotated[Optional[float], typer.Option(help="space around the face", rich_help_panel="Faces")] = None,
    detector: options.Detector = "auto",
    model_root: options.ModelRoot = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    limit: options.Limit = None,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Translate faces with trained weights.

    Photos are aligned first; folders that `facekit align` made are taken as they are, as is everything with --no-align.
    Names and sub-folders stay; several domains are folders of OUT. Images that fail are lines of failed.jsonl.
    """
    from ..inference.face_input import FaceOptions
    from ..inference.translate_folder import TranslateOptions, translate_folder
    from ..recipe_api.controls import split_pairs
    from ..recipe_api.remote_weights import with_digest
    from ..runtime import console

    if tilted:
        rotation = rotation or OLD_ROTATION[tilted]
        console.warn(f"--tilted {tilted} is now --rotation {OLD_ROTATION[tilted]}; the old name will be removed")
    choice = FaceOptions(align, paste, faces == "all", detector, model_root, margin, rotation)
    controls: dict[str, object] = {"strength": strength, "keep": keep, "background": background, "swap_at": swap_at}
    controls |= split_pairs(control or [])
    run = {"limit": limit, "shard": shard, "force": force, "retry_failed": retry_failed}
    weights = with_digest(weights, sha256)
    wanted = TranslateOptions(
        to, from_, labels, classifier, weights, recipe, size, controls, mask, suffix, sheet, batch, device, workers,
        choice, run,
    )  # fmt: skip
    translate_folder(Path(source), Path(out), wanted, dry_run)
    return Path(out)
