"""What `facekit score-fid` does: score two folders, or every label in them, print the result and save it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from ..errors import CardError, SomeFailed
from ..runtime import console
from ..storage import card, files, lock, provenance
from . import by_label, score_text
from .scorer import Scorer, Settings

PACKAGES = ("clean-fid", "onnxruntime", "torch", "numpy", "pillow")


def evaluate(
    scorer: Scorer | Settings,
    out: Path,
    reference: Path,
    *,
    source: Path | None = None,
    truth: Path | None = None,
    labels: bool = False,
    groups: Path | None = None,
    masks: Path | None = None,
    save: Path | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Score `out` against `reference`, print the result, and return it; see `Scorer.score` and `by_label.score`.

    `save` also writes the result as a card. If it holds a card of the same images and settings, that result is
    returned and nothing is computed. `dry_run` only prints what would be scored. Raises CardError if `save` holds
    anything else (unless `force`), and SomeFailed after all work if images could not be read.
    """
    scorer = scorer if isinstance(scorer, Scorer) else Scorer(scorer)
    if (scorer.settings.classifier or masks) and not labels:
        raise CardError("--classifier and --masks need folders of labels", "add --labels")
    if labels and groups:
        raise CardError("--groups and --labels both divide OUT", "leave out one of them")
    if scorer.settings.vgg and not truth:
        raise CardError("--vgg compares with right answers, and there are none", "add --truth FOLDER")
    given: dict[str, Any] = {"out": out, "reference": reference, **scorer.settings.options(source is not None)}
    given |= {"source": source, "truth": truth, "masks": masks, "groups": groups, "labels": labels or None}
    given = {key: str(v) if isinstance(v, Path) else v for key, v in given.items() if v is not None}
    pairs = (
        by_label.pairs(scorer, out, reference) if labels else {"": (scorer.image_set(out), scorer.image_set(reference))}
    )
    if dry_run:
        return _announce(out, reference, pairs, given, scorer.extractor.name)
    digests = {name: scorer.inputs(*sets, source, truth and truth / name, groups) for name, sets in pairs.items()}
    values = {"facekit": 1, "command": "score-fid", "options": given, "inputs": digests if labels else digests[""]}
    with lock.held_file(save, "score-fid") if save else contextlib.nullcontext():
        result = _saved(save, values) if save and not force else None
        if result is None:
            begun = provenance.moment()
            result = (
                by_label.score(scorer, pairs, source, masks, truth)
                if labels
                else scorer.score(*pairs[""], source, truth, groups)
            )
            if save:
                made = {"scores": result, **provenance.collect(*PACKAGES), "start": begun, "end": provenance.moment()}
                files.write_text(save, card.dump({**values, "made": made}))
        else:
            console.note(f"{save} holds this result already")
    console.result(score_text.by_label(result) if labels else score_text.of_pair(result), **result)
    _complain(result)
    return result


def _announce(out: Path, reference: Path, pairs: dict[str, Any], given: dict[str, Any], net: str) -> dict[str, Any]:
    """Print what would be scored."""
    if "labels" in given:
        text = f"score-fid: {', '.join(pairs)} of {out}"
    else:
        text = f"score-fid: {len(pairs[''][0])} images of {out} against {len(pairs[''][1])} of {reference}"
    console.result(f"{text} with {net}", options=given)
    return {"options": given}


def _saved(path: Path, values: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result in the card at `path` if it is of this same scoring; raises CardError if it is of another."""
    if path.is_dir():
        raise CardError(f"{path} is a folder", "give --save a file name, such as score.yaml")
    if not os.path.lexists(path):
        return None
    changed = card.differences(card.load(path), values)
    if changed:
        raise CardError(
            f"{path} holds another card: " + "; ".join(changed), "choose another name, or --force to replace it"
        )
    return card.read_made(path).get("scores")


def _complain(result: dict[str, Any]) -> None:
    """Raise SomeFailed if images could not be read."""
    scores = result["labels"].values() if "labels" in result else [result]
    count = sum(len(names) for one in scores for names in one["failed"].values())
    if count:
        raise SomeFailed(
            f"scored without {count} images that cannot be read",
            "the warnings name them; repair or remove them, and score again",
        )
