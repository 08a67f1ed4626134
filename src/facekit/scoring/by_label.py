"""Scores of folders of labels: OUT/LABEL against REF/LABEL for every label that both have, and the mean over labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runtime import console
from ..storage.folder import Folder
from ..storage.listing import composed, sub_folders
from .image_set import ImageSet
from .scorer import Scorer

Pairs = dict[str, tuple[ImageSet, ImageSet]]


def pairs(scorer: Scorer, out: Path, reference: Path) -> Pairs:
    """Return the image sets of every label that both folders have; raises InputError if there is none."""
    inside = [{composed(name): name for name in sub_folders(Folder(folder).path)} for folder in (out, reference)]
    names = sorted(inside[0].keys() & inside[1].keys())
    if not names:
        raise InputError(f"{out} and {reference} have no sub-folder of the same name", "one folder per label in both")
    own, real = inside
    return {name: (scorer.image_set(out / own[name]), scorer.image_set(reference / real[name])) for name in names}


def score(
    scorer: Scorer,
    sets: Pairs,
    source: Path | None = None,
    masks: Path | None = None,
    truth: Path | None = None,
) -> dict[str, Any]:
    """Return the mean of every figure over labels, and "labels": the scores of each, as `Scorer.score` returns them.

    With a classifier "accuracy" is added, with `masks` "unchanged-mask"; see `label_accuracy` and `preservation`.
    `truth` has a folder of right answers for each label.
    """
    from . import label_accuracy, preservation

    found: dict[str, dict[str, Any]] = {}
    for name, (out, reference) in sets.items():
        with console.silenced():  # the warnings stand in each label's result
            found[name] = scorer.score(out, reference, source, truth and truth / name)
        if scorer.classifier:
            found[name]["accuracy"] = label_accuracy.accuracy(out.path, scorer.classifier, name, scorer.settings.limit)
        if masks:
            found[name]["unchanged-mask"] = preservation.unmasked(masks / name)
    first = next(iter(found.values()))
    metrics = [
        key for key, value in first.items() if isinstance(value, float) and not key.endswith((" std", " low", " high"))
    ]
    shared = [key for key in metrics if all(key in scores for scores in found.values())]
    mean = {key: sum(scores[key] for scores in found.values()) / len(found) for key in shared}
    return {**mean, "labels": found}
