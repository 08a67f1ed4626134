"""`facekit export`: a trained generator as a file for programs without PyTorch, or as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from . import completion, options


def export(
    model: Annotated[
        str,
        typer.Argument(help="a run folder, a .safetensors file, or a shipped name", autocompletion=completion.weights),
    ],
    out: Annotated[
        Optional[Path],
        typer.Argument(help="file to write: NAME.onnx, NAME.tflite or NAME.mlpackage; with --web a folder"),
    ] = None,
    *,
    recipe: options.RecipeFile = None,
    to: Annotated[Optional[str], typer.Option(help="domain or label to translate to: anime")] = None,
    from_: Annotated[
        Optional[str], typer.Option("--from", help="what the faces are, for weights that must know")
    ] = None,
    size: Annotated[Optional[int], typer.Option(min=16, help="edge of the images, px; else the model's own")] = None,
    dynamic: Annotated[
        Optional[bool],
        typer.Option(
            "--dynamic/--fixed",
            help="of ONNX: any batch and every size that the nets take, as without it, or one image of one size",
        ),
    ] = None,
    opset: Annotated[
        Optional[int],
        typer.Option(min=13, max=20, help="version of ONNX's operators; else 17"),  # these hold every recipe's nets
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="fp16 halves the file; int8 quarters it and runs faster, with slight grain", metavar="NAME"),
    ] = "fp32",
    calibrate: Annotated[
        Optional[Path], typer.Option(help="aligned faces that show int8 the ranges of values; 64 are used")
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="write a page that finds and translates faces in the visitor's browser")
    ] = False,
    runtime: Annotated[
        Optional[Path],
        typer.Option(help="onnxruntime-web as `npm pack` writes it, for --web; else it is downloaded"),
    ] = None,
    hub: Annotated[
        Optional[str],
        typer.Option(help="upload the weights and their card to USER/NAME on the Hugging Face Hub; no OUT"),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="a new repository is for you alone")] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Optional[Path]:
    """Write the generator of trained weights as an ONNX, LiteRT or Core ML file, with --web as a page.

    It maps images [N, 3, H, W], RGB from -1 to 1, to images of the same shape; a Core ML file maps pictures. The
    results are compared with PyTorch's before the file gets its name (of Core ML on macOS only). Its metadata holds
    the largest difference, the model's card and what input to give it.
    """
    from ..inference.export import ExportOptions
    from ..inference.export import export as write
    from ..runtime import console

    chosen = ExportOptions(to, from_, size, dynamic, opset, precision, calibrate and Path(calibrate))
    made = write(
        model,
        out and Path(out),
        chosen,
        web=web,
        runtime=runtime and Path(runtime),
        repository=hub,
        private=private,
        recipe=recipe,
        force=force,
        dry_run=dry_run,
    )
    if made:
        console.result(made.text, **made.fields)
    return out and Path(out)
