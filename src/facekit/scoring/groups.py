"""Scores by kind of photo: each measure of the groups that a labels file names, and the gap between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..data.label_file import read_rows
from ..errors import CardError, InputError
from ..runtime import console
from ..storage.listing import composed
from . import bootstrap, mmd
from .pairing import Table

FEWEST = 10  # images of a group
KIND = "="  # in a label, between the kind and the group: sex=female
OTHER = "label"  # the kind of labels without one
Groups = dict[str, dict[str, set[str]]]  # kind -> group -> stems of images


def read(path: Path) -> Groups:
    """Return the groups of a labels file: labels are KIND=GROUP, or names, which are groups of the kind "label".

    Images are known by their names without the file type, since a translation may have another type than its photo.
    Raises InputError for a file that cannot be read or names no image.
    """
    found: Groups = {}
    for _, name, labels in read_rows(path):
        for label in labels:
            kind, equals, group = label.partition(KIND)
            kind, group = (kind.strip(), group.strip()) if equals else (OTHER, label)
            found.setdefault(kind, {}).setdefault(group, set()).add(_stem(name))
    if not found:
        raise InputError(f"{path} names no group", "a row per image: 1.png,sex=female|age=40-59")
    return found


def score(
    groups: Groups,
    names: list[str],
    out: np.ndarray,
    reference: np.ndarray,
    unit: str,
    per_image: dict[str, np.ndarray],
    tables: list[Table],
    resamples: int | None,
    seed: int,
) -> dict[str, Any]:
    """Return "groups": the scores of each group by kind and name, and "gaps": the largest less the least, by kind.

    `names` are those of the rows of the output features `out` [n, d]; a group's rows are compared with the whole
    `reference` [m, d]. `per_image` holds measures of each output, `tables` those of pairs. Measures that depend on the
    number of images (FID, recall, coverage) are left out, as are groups of under FEWEST images, with a warning. Raises
    CardError if no group is left.
    """
    stems = [_stem(name) for name in names]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind, members in groups.items():
        for group, own in sorted(members.items()):
            rows = np.array([index for index, stem in enumerate(stems) if stem in own], int)
            if len(rows) < FEWEST:
                console.warn(f"{kind} {group}: {len(rows)} images, of {FEWEST} at least; left out")
                continue
            scores: dict[str, float] = {"images": len(rows)}
            scores[f"KID-{unit}"] = float(mmd.unbiased(out[rows], reference)[0])
            if resamples:
                low, high = mmd.interval(out[rows], reference, resamples, seed)
                scores |= {f"KID-{unit} low": low, f"KID-{unit} high": high}
            values = {name: each[rows] for name, each in per_image.items()}
            for table in tables:
                inside = [_stem(row) in own for row in table.rows]
                values |= {name: np.asarray(column)[inside] for name, column in table.columns.items()}
            for name, each in values.items():
                there = each[~np.isnan(each)]
                if len(there) >= FEWEST:
                    scores[name] = float(there.mean())
                    scores |= bootstrap.named(name, there, resamples, seed) if resamples else {}
            found.setdefault(kind, {})[group] = scores
    if not found:
        raise CardError(
            f"no group has {FEWEST} images of OUT", "--groups FILE names the images of OUT and their groups"
        )
    return {"groups": found, "gaps": {kind: gaps(scores) for kind, scores in found.items()}}


def gaps(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return for each measure that all groups have how far the largest is from the least."""
    shared = [name for name in next(iter(scores.values())) if all(name in one for one in scores.values())]
    names = [name for name in shared if name != "images" and not name.endswith((" low", " high"))]
    return {
        name: max(one[name] for one in scores.values()) - min(one[name] for one in scores.values()) for name in names
    }


def _stem(name: str) -> str:
    head, dot, _ = name.rpartition(".")
    return composed(head if dot else name)
