"""`facekit translate`: faces, photos or films in, faces of another domain out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from . import options, outputs
from . import translation_flags as flags

OLD_ROTATION: dict[str, Literal["upright", "condition"]] = {"level": "upright", "tell": "condition"}


@outputs.may_be_urls("out")
def translate(
    source: Annotated[Path, typer.Argument(help="a folder of faces or photos, one image or - (stdin), a film")],
    out: Annotated[Path, typer.Argument(help="output folder, or a file for one image or film; - is stdout")],
    *,
    to: flags.To = None,
    from_: flags.From = None,
    labels: flags.Labels = None,
    classifier: flags.Classifier = None,
    weights: flags.Weights = None,
    sha256: flags.Sha256 = None,
    recipe: options.RecipeFile = None,
    size: flags.Size = None,
    upscaler: flags.Upscaler = None,
    align: flags.Align = True,
    paste: flags.Paste = False,
    faces: flags.Faces = "largest",
    strength: options.Strength = None,
    keep: options.Keep = None,
    background: options.Background = None,
    swap_at: options.SwapAt = None,
    control: options.Controls = None,
    mask: flags.Mask = False,
    rotation: flags.Rotation = None,
    tilted: flags.Tilted = None,
    sheet: flags.Sheet = False,
    format: flags.Format = "png",
    suffix: flags.Suffix = None,
    quality: flags.Quality = None,
    keep_alpha: flags.KeepAlpha = False,
    keep_exif: flags.KeepExif = False,
    keep_gps: flags.KeepGps = False,
    video: flags.Video = False,
    start: flags.Start = None,
    end: flags.End = None,
    fps: flags.Fps = None,
    smooth: flags.Smooth = True,
    watch: flags.Watch = False,
    batch: flags.Batch = None,
    margin: flags.Margin = None,
    detector: options.Detector = "auto",
    model_root: options.ModelRoot = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    engine: options.EngineName = "local",
    address: options.Address = None,
    gpu_share: options.GpuShare = None,
    limit: options.Limit = None,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Translate faces with trained weights.

    Photos are aligned first; folders that `facekit align` made are taken as they are, as is everything with --no-align.
    Names and sub-folders stay; several domains are folders of OUT. Images that fail are lines of failed.jsonl.

    In films the faces are followed and put back into every frame; times and sound stay.
    """
    from ..errors import CardError
    from ..inference.face_input import FaceOptions
    from ..inference.translate import translate
    from ..inference.translate_options import FilmOptions, TranslateOptions
    from ..inference.translate_watch import watch as keep_watch
    from ..recipe_api.controls import split_pairs
    from ..recipe_api.default_weights import default_weights
    from ..recipe_api.remote_weights import with_digest
    from ..runtime import console
    from ..runtime.engine import Engine
    from ..runtime.stand_ins import url_of
    from ..storage.image_files import Kept

    if tilted:
        rotation = rotation or OLD_ROTATION[tilted]
        console.warn(f"--tilted {tilted} is now --rotation {OLD_ROTATION[tilted]}; the old name will be removed")
    controls: dict[str, object] = {"strength": strength, "keep": keep, "background": background, "swap_at": swap_at}
    controls |= split_pairs(control or [])
    if suffix:
        console.warn("--suffix is now --format; the old name will be removed")
    weights = with_digest(weights or default_weights(to), sha256)
    wanted = TranslateOptions(
        to, from_, labels, classifier, weights, recipe, size, controls, mask, upscaler,
        suffix or format, quality, Kept(keep_alpha, keep_exif, keep_gps), sheet, batch, device, workers,
        Engine(engine, address, gpu_share),
        FaceOptions(align, paste, faces == "all", detector, model_root, margin, rotation),
        FilmOptions(video, start, end, fps, smooth),
        {"limit": limit, "shard": shard, "force": force, "retry_failed": retry_failed},
    )  # fmt: skip
    work = partial(translate, Path(source), Path(out), wanted, dry_run)
    if watch:
        if url_of(out):
            raise CardError("--watch writes to a disk", "give a folder; IN has to be one, too")
        keep_watch(Path(source), Path(out), work)
        return Path(out)
    return work()
