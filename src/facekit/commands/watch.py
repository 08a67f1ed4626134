"""`facekit watch`: a page that follows runs while they train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def watch(
    runs: Annotated[list[Path], typer.Argument(help="run folders of `facekit train`", metavar="RUN...")],
    *,
    host: options.Host = "127.0.0.1",
    port: options.Port = 7870,
    open_: Annotated[bool, typer.Option("--open", help="open the page in your browser")] = False,
) -> None:
    """Show a page that follows runs while they train, several side by side.

    It shows step, speed, time left and memory of each run, the curves of all losses and validation scores, and the
    previews of every save with a slider. It only reads, so runs can be started, stopped and watched in any order.
    Ctrl-C ends it.
    """
    from ..serving.watch import serve

    serve([Path(run) for run in runs], host, port, open_)
