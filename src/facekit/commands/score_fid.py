"""`facekit score-fid`: how far a folder of images is from another, as FID and KID."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from . import options

if TYPE_CHECKING:
    from ..recipe_api.checkpoint import Model
    from ..scoring.features import Extractor, ImageSet

FEW = 2048  # images; below, FID's covariance has not even full rank
PER_IMAGE = (
    "an FID averaged per image is none: FID compares the means and covariances of two sets, and a single image has no "
    "covariance, so such a figure cannot be compared with any FID"
)


def score_fid(
    out: Annotated[Path, typer.Argument(help="the folder of images to score", metavar="OUT")],
    reference: Annotated[Path, typer.Argument(help="the folder of real images to compare with", metavar="REF")],
    *,
    features: Annotated[
        str, typer.Option(help="clean-fid (2048-d, downloaded on first use), or an ONNX or TorchScript file")
    ] = "clean-fid",
    preprocessing: Annotated[
        Literal["inception", "symmetric", "unit", "imagenet", "bytes"],
        typer.Option(help="pixels for a features file: (v-128)/128, -1..1, 0..1, ImageNet's, 0..255"),
    ] = "inception",
    input_size: Annotated[
        Optional[int], typer.Option(min=8, help="input of a features file that leaves it open, px; 299 if absent")
    ] = None,
    resize: Annotated[
        Optional[int], typer.Option(min=8, help="crop the middle square and bring every image to N px", metavar="N")
    ] = None,
    subsets: Annotated[int, typer.Option(min=1, help="subsets that KID is averaged over")] = 100,
    subset_size: Annotated[int, typer.Option(min=2, help="images in a subset; all, if there are fewer")] = 1000,
    per_image: Annotated[bool, typer.Option("--per-image", help="refused, with the reason")] = False,
    source: Annotated[
        Optional[Path],
        typer.Option(help="the faces that OUT was translated from: also score what it keeps", rich_help_panel="Source"),
    ] = None,
    segnet: Annotated[str, typer.Option(help="weights that label face parts", rich_help_panel="Source")] = "segnet",
    face: Annotated[str, typer.Option(help="weights that embed faces", rich_help_panel="Source")] = "facefeat",
    labels: Annotated[
        bool, typer.Option("--labels", help="OUT and REF hold a folder per label: score each", rich_help_panel="Labels")
    ] = False,
    classifier: Annotated[
        Optional[str],
        typer.Option(help="weights of a classifier: how often it sees the label", rich_help_panel="Labels"),
    ] = None,
    masks: Annotated[
        Optional[Path], typer.Option(help="what translate --mask wrote, by label", rich_help_panel="Labels")
    ] = None,
    save: Annotated[Optional[Path], typer.Option(help="also write the result as a card, a YAML file")] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="keep the features of REF for next time")] = True,
    device: options.Device = "auto",
    workers: options.Workers = None,
    seed: options.Seed = None,
    limit: options.Limit = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> dict[str, Any]:
    """Score a folder of images against real ones: FID and KID, and with --source what a translation keeps.

    Lower is nearer. Compare only figures of one kind of features, one reference and one number of images; below 2,048
    KID is the one to trust. The features of REF are kept in FACEKIT_CACHE, or else in the user's cache.
    With --labels every label that both have is scored, and their mean.
    """
    given_all = {**locals()}
    from ..errors import CardError, SomeFailed
    from ..runtime import console
    from ..scoring import features as extractors
    from ..scoring import fid_kid
    from ..storage import card, files

    if per_image:
        raise CardError(PER_IMAGE, "score the whole folder; with few images look at KID")
    if seed is not None and not 0 <= seed < 2**32:
        raise CardError(f"--seed {seed} is not a seed", "a whole number from 0 to 4294967295")
    out, reference = Path(out), Path(reference)
    if labels:
        return score_labels(**given_all)
    if classifier or masks:
        raise CardError("--classifier and --masks are for folders of labels", "give --labels, too")
    sets = [extractors.ImageSet(folder, limit) for folder in (out, reference)]
    warnings = check(sets, resize, subset_size)
    extractor = extractors.load(features, preprocessing, input_size, device)
    given: dict[str, Any] = {"out": out, "reference": reference, "features": features, "preprocessing": preprocessing}
    given |= {"input_size": input_size, "resize": resize, "subsets": subsets, "subset_size": subset_size}
    given |= {"source": source, "seed": fid_kid.SEED if seed is None else seed, "limit": limit}
    if source:
        given |= {"segnet": segnet, "face": face}
    given = {key: str(v) if isinstance(v, Path) else v for key, v in given.items() if v is not None}
    if dry_run:
        counts = f"{len(sets[0])} images of {out} against {len(sets[1])} of {reference}"
        console.result(f"score-fid: {counts} with {extractor.name}", options=given)
        return {"options": given}
    inputs = {"out": sets[0].digest, "reference": sets[1].digest, "features": extractor.digest}
    models = None
    if source:
        models = load_models(segnet, face, device)
        inputs["source"] = extractors.ImageSet(source, limit).digest
        inputs |= {name: files.digest(model.path) for name, model in zip(("segnet", "face"), models, strict=True)}
    values = {"facekit": 1, "command": "score-fid", "options": given, "inputs": inputs}
    if save:
        check_place(Path(save), values, force)
    for text in warnings:
        console.warn(text)
    begun = card.moment()
    x, y = (
        extractors.of_folder(one, extractor, resize=resize, cache=cache and one is sets[1], workers=workers)
        for one in sets
    )
    result: dict[str, Any] = dict(fid_kid.compare(x, y, extractor.unit, given["seed"], subsets, subset_size))
    kid = describe_kid(len(x), len(y), subsets, subset_size, given["seed"])
    if source and models:
        from ..scoring import preservation

        result |= preservation.measure(source, out, *models, limit=limit)
    text = table(result, extractor, kid, [len(x), len(y)], resize)
    result |= {
        "images": {"out": len(x), "reference": len(y)},
        "failed": {str(one.path): one.failed for one in sets if one.failed},
        "features": describe(extractor, resize),
        "kid": kid,
        "digests": dict(inputs),
        "warnings": warnings,
    }
    console.result(text, **result)
    if save:
        packages = card.provenance("clean-fid", "onnxruntime", "torch", "numpy", "pillow")
        made = {"scores": result, **packages, "start": begun, "end": card.moment()}
        files.write_text(Path(save), card.dump({**values, "made": made}))
    if result["failed"]:
        raise SomeFailed(
            f"scored without {sum(map(len, result['failed'].values()))} images that cannot be read",
            "the warnings name them; mend or remove them, and score again",
        )
    return result


def check(sets: list[ImageSet], resize: int | None, subset_size: int) -> list[str]:
    """Return warnings about two image sets; raises InputError for too few images and for several sizes."""
    from ..errors import InputError
    from ..scoring import features

    for one in sets:
        if len(one) < 2:
            raise InputError(
                f"{one.path} has {len(one)} image(s) that can be read: FID and KID compare sets",
                "at least 2 images; some thousand say more",
            )
    sizes = {size for one in sets for size in one.sizes}
    if len(sizes) > 1 and not resize:
        raise InputError(
            features.mixed(sets), f"--resize {features.smallest(sets)} crops squares and brings all to one size"
        )
    told = []
    width, height = next(iter(sizes))
    if width != height and not resize:
        told.append(f"images of {width} x {height} px are squeezed to squares, as clean-fid does (--resize N crops)")
    if resize and resize > features.smallest(sets):
        told.append(f"--resize {resize} enlarges images of {features.smallest(sets)} px: blur counts as a difference")
    kinds = [" and ".join(sorted(one.kinds)) for one in sets]
    if len({kind for one in sets for kind in one.kinds}) > 1:
        told.append(f"{kinds[0]} against {kinds[1]}: what compression does to images counts as a difference")
    if sets[0].digest == sets[1].digest:
        told.append("both folders hold the same images")
    fewest = min(len(one) for one in sets)
    if fewest < FEW:
        told.append(
            f"{len(sets[0])} against {len(sets[1])} images: below {FEW:,} FID comes out too high; "
            "prefer KID, and compare only figures of equally many images"
        )
    if fewest < subset_size:
        told.append(f"KID: {fewest} images do not fill subsets of {subset_size}; all {fewest} are taken")
    return told


def load_models(segnet: str, face: str, device: str) -> tuple[Model, Model]:
    """Load the segnet and the face net; raises MissingError with what to do where one is not here."""
    from ..errors import MissingError
    from ..recipe_api import checkpoint
    from ..runtime.device import find_device

    found = []
    place = find_device(device)
    for flag, name in (("--segnet", segnet), ("--face", face)):
        try:
            found.append(checkpoint.load_model(name, place))
        except MissingError as error:
            raise MissingError(
                f"--source needs the weights {name!r}: {error.message}",
                f"give {flag} a run folder or a .safetensors file, or leave out --source",
            ) from error
    return found[0], found[1]


def check_place(path: Path, values: dict[str, Any], force: bool) -> None:
    """Raise CardError where `path` is a folder, or holds anything but the card of this same scoring."""
    from ..errors import CardError
    from ..storage import card

    if path.is_dir():
        raise CardError(f"{path} is a folder", "give --save a file name, such as score.yaml")
    if path.exists() and not force:
        changed = card.differences(card.load(path), values)
        if changed:
            raise CardError(
                f"{path} holds another card: " + "; ".join(changed), "choose another name, or --force to replace it"
            )


def describe(extractor: Extractor, resize: int | None) -> dict[str, Any]:
    """Return what a result says of its features."""
    first = f"middle square, Pillow bicubic to {resize} px in 8 bits; " if resize else ""
    return {
        "name": extractor.name,
        "dimension": extractor.dim,
        "preprocessing": first + extractor.preprocessing,
        "digest": extractor.digest,
    }


def describe_kid(n: int, m: int, subsets: int, subset_size: int, seed: int) -> dict[str, Any]:
    """Return how KID was estimated; a `spread_size` of 0 says that there are too few images for a spread."""
    from ..scoring import fid_kid

    size, spread_size = fid_kid.subset_sizes(n, m, subset_size)
    return {
        "unit": "x1",
        "subsets": subsets if size == spread_size else 1,
        "subset_size": size,
        "spread_subsets": subsets if spread_size else 0,
        "spread_size": spread_size,
        "seed": seed,
    }


def table(
    scores: dict[str, Any], extractor: Extractor, kid: dict[str, Any], counts: list[int], resize: int | None
) -> str:
    """Return the result for people; KID's unit stands in its name."""
    told = describe(extractor, resize)
    rows = [(f"FID-{extractor.unit}", f"{scores[f'FID-{extractor.unit}']:.3f}", "")]
    name, spread = f"KID-{extractor.unit}", scores.get(f"KID-{extractor.unit} std")
    of = f"{kid['subsets']} subsets of {kid['subset_size']}" if kid["subsets"] > 1 else "all images at once"
    if spread is not None and kid["spread_size"] != kid["subset_size"]:
        of += f"; spread over {kid['spread_subsets']} subsets of {kid['spread_size']}"
    value = f"{scores[name]:.5f}" + ("" if spread is None else f" ± {spread:.5f}")
    rows.append((f"{name} (x1)", value, f"{of}, seed {kid['seed']}"))
    rows += [(key, f"{v:.3f}", "") for key, v in scores.items() if key.startswith(("IoU-", "identity-", "unchanged"))]
    if "pairs" in scores:
        rows.append(("pairs", str(scores["pairs"]), "of source and translation"))
    rows += [
        ("images", f"{counts[0]} against {counts[1]}", ""),
        ("features", told["name"], f"{told['dimension']}-d"),
        ("preprocessing", told["preprocessing"], ""),
    ]
    first, second = (max(len(row[i]) for row in rows if row[0] != "preprocessing") for i in (0, 1))
    first = max(first, len("preprocessing"))
    return "\n".join(f"{a:{first}}  {b:{second}}  {c}".rstrip() for a, b, c in rows)


def score_labels(
    out: Path,
    reference: Path,
    source: Path | None,
    classifier: str | None,
    masks: Path | None,
    save: Path | None,
    **options: Any,
) -> dict[str, Any]:
    """Score the label folders that OUT and REF both have, and take the mean over labels.

    Raises InputError where they have none in common.
    """
    from ..errors import InputError
    from ..recipe_api import checkpoint
    from ..runtime import console
    from ..runtime.device import find_device
    from ..scoring import label_accuracy, preservation
    from ..storage import card, files
    from ..storage.folder import Folder

    inside = [{p.name for p in Folder(folder).path.iterdir() if p.is_dir()} for folder in (out, reference)]
    names = sorted(set.intersection(*inside))
    if not names:
        raise InputError(f"{out} and {reference} have no folder of the same name", "one folder per label in both")
    dry_run = options["dry_run"]
    model = checkpoint.load_model(classifier, find_device(options["device"])) if classifier else None
    given = {**options, "out": out, "reference": reference, "source": source, "classifier": classifier, "masks": masks}
    how = ("force", "dry_run", "cache", "workers", "device", "per_image")  # they change no score
    given = {k: v for k, v in given.items() if v is not None and k not in how}
    given = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
    values = {"facekit": 1, "command": "score-fid", "options": given}
    if save:
        check_place(Path(save), values, options["force"])
    found: dict[str, dict[str, Any]] = {}
    begun = card.moment()
    for name in names:
        with console.silenced():
            found[name] = score_fid(out / name, reference / name, source=source, **{**options, "labels": False})
        if model and not dry_run:
            found[name]["accuracy"] = label_accuracy.accuracy(out / name, model, name, options["limit"])
        if masks and not dry_run:
            found[name]["unchanged-mask"] = preservation.unmasked(masks / name)
    if dry_run:
        console.result(f"score-fid: {', '.join(names)} of {out}", options=given)
        return {"options": given}
    metrics = [key for key, value in found[names[0]].items() if isinstance(value, float) and not key.endswith(" std")]
    shared = [key for key in metrics if all(key in scores for scores in found.values())]
    mean = {key: sum(scores[key] for scores in found.values()) / len(found) for key in shared}
    result = {**mean, "labels": found}
    console.result(labels_table({**found, "mean": mean}, shared), **result)
    if save:
        made = {"scores": result, **card.provenance("onnxruntime", "torch", "numpy", "pillow")}
        files.write_text(Path(save), card.dump({**values, "made": {**made, "start": begun, "end": card.moment()}}))
    return result


def labels_table(rows: dict[str, dict[str, Any]], metrics: list[str]) -> str:
    """Return scores by label for people."""
    cells = [["", *metrics, "images"]]
    for name, scores in rows.items():
        counts = scores.get("images")
        told = [f"{scores[key]:.{5 if key.startswith('KID') else 3}f}" for key in metrics]
        cells.append([name, *told, f"{counts['out']} against {counts['reference']}" if counts else ""])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)
