"""The flags of `facekit translate`, by what they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from . import completion

LABELS, FACES, VIDEO, OUTPUT = "Labels", "Faces", "Video", "Output files"

To = Annotated[
    Optional[str],
    typer.Option(
        help="domain or label to translate to: anime; several: smile,cry; or all", autocompletion=completion.targets
    ),
]
From = Annotated[
    Optional[str],
    typer.Option("--from", help="what the faces are, for weights that must know: photo, Young+Male; else by folder"),
]
Labels = Annotated[
    Optional[Path],
    typer.Option(help="labels file that says which attributes the faces have", rich_help_panel=LABELS),
]
Classifier = Annotated[
    Optional[str],
    typer.Option(help="weights of a classifier that sees which labels the faces have", rich_help_panel=LABELS),
]
Weights = Annotated[
    Optional[str],
    typer.Option(
        help="a run folder, a .safetensors file, a name that `facekit weights` lists, or a URL; "
        "several: anime,runs/mine [default: those named as --to, else anime]",
        autocompletion=completion.weights,
    ),
]
Sha256 = Annotated[Optional[str], typer.Option(help="digest that weights by URL must have", metavar="HEX")]
Size = Annotated[Optional[int], typer.Option(min=16, help="edge to translate at, px; else the model's own")]
Upscaler = Annotated[
    Optional[str],
    typer.Option(
        help="what draws results larger than their net does: weights of the recipe upscaler; none: interpolation "
        "[default: upscaler; films: none]",
        metavar="WEIGHTS",
    ),
]
Align = Annotated[bool, typer.Option("--align/--no-align", help="cut the face out of photos first")]
Paste = Annotated[bool, typer.Option("--paste", help="put the face back into its photo (films: always)")]
Faces = Annotated[
    Literal["largest", "all"],
    typer.Option(help="which faces are put back, by --paste and in films", rich_help_panel=FACES),
]
Mask = Annotated[
    bool, typer.Option("--mask", help="write where faces are changed (white: completely) instead of the faces")
]
Rotation = Annotated[
    Optional[Literal["upright", "condition"]],
    typer.Option(
        help="translate tilted faces whole, by the manifest's roll or a detected one: turn them upright and back, "
        "or condition cyclegan-angle on the angle"
    ),
]
Tilted = Annotated[Optional[Literal["level", "tell"]], typer.Option(hidden=True, help="old name of --rotation")]
Sheet = Annotated[bool, typer.Option("--sheet", help="also write a contact sheet, OUT-sheet.png")]
Batch = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        help="images at a time; else 32 on a GPU, on the processor one per worker",
        rich_help_panel="Computing",
    ),
]
Margin = Annotated[Optional[float], typer.Option(help="space around the face", rich_help_panel=FACES)]

Format = Annotated[
    Literal["png", "jpg", "webp", "avif", "jxl", "heic"],
    typer.Option(help="file type of images in OUT; of a file its ending says it", rich_help_panel=OUTPUT),
]
Suffix = Annotated[Optional[Literal["png", "jpg", "webp"]], typer.Option(hidden=True, help="old name of --format")]
KeepAlpha = Annotated[
    bool, typer.Option("--keep-alpha", help="keep what is transparent; else it shows white", rich_help_panel=OUTPUT)
]
Quality = Annotated[
    Optional[int],
    typer.Option(min=0, max=100, help="quality of the output, 0 to 100", rich_help_panel=OUTPUT),
]
KeepExif = Annotated[
    bool,
    typer.Option("--keep-exif", help="keep date, camera and the like, but not the place", rich_help_panel=OUTPUT),
]
KeepGps = Annotated[
    bool, typer.Option("--keep-gps", help="with --keep-exif: also keep the place", rich_help_panel=OUTPUT)
]
Watch = Annotated[
    bool,
    typer.Option("--watch", help="go on: translate new images as they come", rich_help_panel="Running"),
]

Video = Annotated[
    bool, typer.Option("--video", help="a folder of images is the frames of a film", rich_help_panel=VIDEO)
]
Start = Annotated[
    Optional[str], typer.Option(help="begin there: seconds or h:mm:ss", metavar="TIME", rich_help_panel=VIDEO)
]
End = Annotated[Optional[str], typer.Option(help="end there", metavar="TIME", rich_help_panel=VIDEO)]
Fps = Annotated[
    Optional[float], typer.Option(help="frames/s of the output; else as in the input", rich_help_panel=VIDEO)
]
Smooth = Annotated[
    bool, typer.Option("--smooth/--no-smooth", help="take the jitter out of where faces are", rich_help_panel=VIDEO)
]
