"""Options of `facekit score-fid` that say which features are compared, and how images are read for them."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

import typer

Features = Annotated[
    str,
    typer.Option(
        help="clean-fid (downloaded on first use), facekit, dinov2:FILE, cmmd:FILE, an ONNX or TorchScript file"
    ),
]
AllowTorchScript = Annotated[
    bool,
    typer.Option("--allow-torchscript", help="run a TorchScript file whatever it does: such files can write files"),
]
Preprocessing = Annotated[
    Literal["inception", "symmetric", "unit", "imagenet", "clip", "bytes"],
    typer.Option(
        help="pixels for a features file: inception (v-128)/128, symmetric -1..1, unit 0..1, imagenet, clip, bytes",
        metavar="NAME",
    ),
]
InputSize = Annotated[
    Optional[int],
    typer.Option(min=8, help="input size of a features file that leaves it open, px [default: 299]", metavar="N"),
]
Resize = Annotated[
    Optional[int], typer.Option(min=8, help="crop the middle square and resize every image to N px", metavar="N")
]
Reading = Annotated[
    Literal["facekit", "clean-fid"],
    typer.Option(
        help="how files become pixels: facekit, or clean-fid, which ignores EXIF, profiles and transparency",
        metavar="NAME",
    ),
]
