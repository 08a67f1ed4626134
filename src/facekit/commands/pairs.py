"""`facekit pairs`: faces and what a teacher draws of them, to train a student on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import completion, options, outputs

TEACHER, LATENTS, DROPPING = "Teacher", "Two generators", "What is dropped"


@outputs.may_be_urls("out")
def pairs(
    source: Annotated[
        Optional[Path], typer.Argument(help="a folder of faces or photos; left out with --from", metavar="[IN]")
    ] = None,
    out: Annotated[Optional[Path], typer.Argument(help="folder for a/ and b/")] = None,
    *,
    teacher: Annotated[
        Optional[str],
        typer.Option(
            help="who draws: weights of facekit, FILE.onnx, a folder of finished drawings, or diffusers:NAME",
            autocompletion=completion.weights,
            rich_help_panel=TEACHER,
        ),
    ] = None,
    to: Annotated[
        Optional[str], typer.Option(help="domain that weights of facekit translate to", rich_help_panel=TEACHER)
    ] = None,
    recipe: options.RecipeFile = None,
    teacher_command: Annotated[
        Optional[str],
        typer.Option(
            help="a program that draws: 'python my_edit.py {in} {out}'", metavar="COMMAND", rich_help_panel=TEACHER
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="seconds that the command may take for a face", rich_help_panel=TEACHER)
    ] = 600,
    prompt: Annotated[Optional[str], typer.Option(help="prompt of the pipeline", rich_help_panel=TEACHER)] = None,
    set: Annotated[
        Optional[list[str]],
        typer.Option("--set", help="argument of the pipeline", metavar="KEY=VALUE", rich_help_panel=TEACHER),
    ] = None,
    size: Annotated[
        Optional[int], typer.Option(min=16, help="edge of the images, px; else the teacher's own, or 256")
    ] = None,
    batch: Annotated[
        Optional[int], typer.Option(min=1, help="faces at a time", rich_help_panel=options.COMPUTING)
    ] = None,
    from_: Annotated[
        Optional[str],
        typer.Option("--from", help="StyleGAN2 run that draws the faces", metavar="RUN", rich_help_panel=LATENTS),
    ] = None,
    and_: Annotated[
        Optional[str],
        typer.Option("--and", help="fine-tuned run that draws them again", metavar="RUN", rich_help_panel=LATENTS),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="how many latents", rich_help_panel=LATENTS)] = 1000,
    truncation: Annotated[
        float, typer.Option(help="1: varied; 0: all alike; between: fewer odd faces", rich_help_panel=LATENTS)
    ] = 0.7,
    min_parts: Annotated[
        float, typer.Option(min=0, max=1, help="least mean IoU of skin and hair", rich_help_panel=DROPPING)
    ] = 0.3,
    face: Annotated[
        Optional[str],
        typer.Option(help="net that knows faces: facefeat, or FILE.onnx", metavar="NET", rich_help_panel=DROPPING),
    ] = None,
    min_identity: Annotated[
        float, typer.Option(min=-1, max=1, help="least cosine of the two faces, with --face", rich_help_panel=DROPPING)
    ] = 0.1,
    segnet: Annotated[str, typer.Option(help="weights that label face parts", rich_help_panel=DROPPING)] = "segnet",
    keep: Annotated[
        Optional[list[str]],
        typer.Option(
            help="do not drop for this: no-face, near-duplicate, face-lost, parts, identity",
            metavar="REASON",
            rich_help_panel=DROPPING,
        ),
    ] = None,
    align: Annotated[bool, typer.Option("--align/--no-align", help="cut the face out of photos first")] = True,
    margin: Annotated[Optional[float], typer.Option(help="space around the face", rich_help_panel="Faces")] = None,
    detector: options.Detector = "auto",
    model_root: options.ModelRoot = None,
    device: options.Device = "auto",
    seed: options.Seed = None,
    workers: options.Workers = None,
    limit: options.Limit = None,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> dict[str, Any]:
    """Make pairs of faces and drawings for `facekit train student`.

    A teacher draws each face of IN; or two generators draw the same latents. OUT gets a/NAME and b/NAME. Pairs that a
    student should not learn from are dropped and shown in OUT/dropped. Faces on which the teacher fails are lines of
    failed.jsonl. A stopped run continues.
    """
    from ..teaching import pair_folder
    from ..teaching.choose_teacher import TeacherOptions
    from ..teaching.pair_filters import FilterOptions

    who = TeacherOptions(teacher, to, recipe, teacher_command, timeout, prompt, tuple(set or ()), size, batch)
    what = FilterOptions(segnet, face, min_parts, min_identity, tuple(keep or ()))
    wanted = pair_folder.PairOptions(
        who, what, pair_folder.two_runs(from_, and_), n, seed or 0, truncation, align, margin, detector, model_root,
        device, workers,
    )  # fmt: skip
    place = pair_folder.two_places(source, out, wanted)
    run: dict[str, Any] = {"limit": limit, "shard": shard, "force": force, "retry_failed": retry_failed}
    return pair_folder.make_pairs(*place, wanted, dry_run, **run)
