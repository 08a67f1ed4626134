"""Base of the methods with one model for many domains: labelled images, target labels, previews of every label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..data.dataset import Layout, shares, spread, without
from ..data.label_file import read_labels
from ..data.label_table import LabelTable
from ..data.reader import Reader, Sample
from ..errors import CardError, InputError
from ..ops import augment
from ..runtime import console
from ..storage.card import Data, Domains, suggest
from ..storage.folder import Source
from ..storage.headers import read_sizes
from . import base
from .base import Recipe, Scene, view

FEWEST = 8  # images of a label, to train on
NAMED = 50  # labels whose counts are said one by one
SHOWN = 16  # labels that a preview shows
OFF = "no-"  # in front of an attribute: without it


class LabelledParams(base.Params):
    """Parameters that all of these methods have."""

    labels: tuple[str, ...] = Field((), description="labels in their order; if absent all of the data, sorted")
    single: bool = Field(True, description="an image has one label; false: any number of attributes")
    exclusive: tuple[tuple[str, ...], ...] = Field(
        (("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"),),
        description="where an image may have several labels: groups of which it has one at most",
    )
    balance: bool = Field(False, description="show images of rare labels as often as those of the commonest")
    augment: float = Field(0.0, ge=0, description="random small turns, scales, shifts and colours; 1: up to 10 degrees")


@dataclass(frozen=True)
class LabelledReader(Reader):
    """Reads an image and its labels; the entries are `NAME` and `NAME_label` (float32 [K], 1 for each label)."""

    labels: Mapping[Path, np.ndarray] = field(default_factory=dict)

    def read(self, path: Path, size: int) -> Sample:
        """Decode a file to a square of `size` px; raises InputError where that cannot be done."""
        return {**super().read(path, size), **self.looked_up(path)}

    def looked_up(self, path: Path) -> Sample:
        """Return the labels of an image, as a row that is made now."""
        return {f"{self.name}_label": self.labels[path]}


def open_labelled(data: Data, params: LabelledParams) -> Layout:
    """Find labelled images, print how many each label has, and hold out some of each.

    The layout trains one domain, "x". `previews` and `test` hold all their images as "x", and those of each label under
    its name. Raises InputError for a label with fewer than `FEWEST` images, or for an image with several labels where
    it must have one, CardError for labels that the data does not have.
    """
    if params.balance and not params.single:
        raise CardError("params.balance is for images of one label each", "leave it out, or --set params.single=true")
    found = read_labels(data)
    known = sorted({label for has in found.train.values() for label in has})
    labels = params.labels or tuple(known)
    _check(labels, known, params)
    for label in sorted({label for has in found.test.values() for label in has} - set(known)):
        console.warn(f"only test images are labelled {label!r}; it is left out")
    table = LabelTable(labels, {**found.train, **found.test})
    if params.single:
        _refuse_several(table)
    groups, apart = (
        {name: paths[:most] for name, paths in _groups(table, part, params.single).items()}
        for part, most in ((found.train, data.limit), (found.test, None))
    )
    broken = _broken(Path(data.root or "."), [*groups.values(), *apart.values()])
    dealt = {}
    for name, paths in groups.items():
        usable = without(paths, broken)
        for label, has in [(name, len(usable))] if params.single else table.counts(usable).items():
            if has < FEWEST:
                raise InputError(f"only {has} images are labelled {label!r}, of {FEWEST} at least", "add some")
        dealt[name] = _deal(usable, without(apart[name], broken), data)
    train = [path for part, _, _ in dealt.values() for path in part]
    previews = _in_turn([part for _, part, _ in dealt.values()])
    test = [path for _, _, part in dealt.values() for path in part]
    other = sum(not len(table.indices(path)) for path in found.train)
    if other and params.single:
        console.note(f"{other} images have none of these labels; left out")
    _report(table.counts(train), len(train), len(previews), len(test), params)
    if params.balance:
        most = max(len(part) for part, _, _ in dealt.values())
        train = [part[i % len(part)] for part, _, _ in dealt.values() for i in range(most)]
    return Layout(
        {"x": train},
        {**table.by_label(previews), "x": previews},
        {},
        {**table.by_label(test), "x": test},
        {"x": LabelledReader("x", table)},
        {"labels": list(labels)},
    )


def _check(labels: Sequence[str], known: Sequence[str], params: LabelledParams) -> None:
    """Raise CardError for labels that the data does not have, a label named twice, or too few of them."""
    there = set(known)
    for label, times in Counter(labels).items():
        if label not in there:
            raise CardError(f"no image is labelled {label!r}{suggest(label, known)}", "fix params.labels")
        if times > 1:
            raise CardError(f"params.labels has {label!r} twice", "name each label once")
    if params.single and len(labels) < 2:
        raise CardError("there is only one label, nothing to translate between", "give images of two labels or more")


def _refuse_several(table: LabelTable) -> None:
    """Raise InputError for images with several of the labels."""
    bad = [path for path in table if len(table.indices(path)) > 1]
    if bad:
        more = f", and so are {len(bad) - 1} other images" if len(bad) > 1 else ""
        own = " and ".join(table.labels[index] for index in sorted(table.indices(bad[0])))
        hint = "fix the labels, name labels that exclude each other in params.labels, or --set params.single=false"
        raise InputError(f"{bad[0]} is labelled {own}, not one{more}", hint)


def _groups(table: LabelTable, paths: Iterable[Path], single: bool) -> dict[str, list[Path]]:
    """Return the images by label, or all together if an image may have several; images of other labels are dropped."""
    return table.by_label(list(paths)) if single else {"": list(paths)}


def _broken(root: Path, groups: Iterable[Sequence[Path]]) -> set[Path]:
    """Return the images whose header cannot be read, with a warning for each."""
    sources = [Source(root, path.relative_to(root).as_posix()) for paths in groups for path in paths]
    errors = read_sizes(root, sources)[1]
    for error in errors.values():
        console.warn(f"{error.message}; skipped")
    return {sources[index].path for index in errors}


def _deal(usable: list[Path], apart: list[Path], data: Data) -> tuple[list[Path], list[Path], list[Path]]:
    """Split the images of a label into those for training, for previews and for scores."""
    shown = 4 if data.holdout is None else data.holdout
    if apart:
        return usable, spread(apart, shown), apart
    if data.split:
        usable, seen, rest = shares(usable, data.split)
        return usable, spread(seen, shown), rest
    previews = spread(usable, min(shown, len(usable) // 8 if data.holdout is None else len(usable) - 1))
    return without(usable, previews), previews, previews


def _in_turn(groups: Sequence[Sequence[Path]]) -> list[Path]:
    """Return the first image of each group, then the second of each, and so on: previews show only the first few."""
    return [path for row in zip_longest(*groups) for path in row if path is not None]


def _report(count: Mapping[str, int], train: int, previews: int, test: int, params: LabelledParams) -> None:
    """Print how many training images each label has, and how to balance them if they are far from even."""
    rare, common = min(count, key=lambda label: count[label]), max(count, key=lambda label: count[label])
    named = list(count) if len(count) <= NAMED else [common, rare]
    parts = ", ".join(f"{label} {count[label]} ({count[label] / train:.0%})" for label in named)
    all_of = "labels" if len(count) <= NAMED else f"{len(count)} labels, from the commonest to the rarest"
    after = ", each label shown as often" if params.balance else ""
    console.note(f"{train} images with {all_of}: {parts}{after}; previews of {previews}, {test} for scores")
    if len(count) > SHOWN:
        console.note(f"previews show {SHOWN} of the {len(count)} labels")
    console.fact("data", labels=dict(count), images=train, held_out=previews, test=test)
    if params.single and not params.balance and count[common] > 3 * count[rare]:
        often = round(count[common] / count[rare], 1)
        console.warn(f"{common!r} has {often} times the images of {rare!r}; --set params.balance=true evens that out")


class LabelledScene(Scene):
    """A batch `x` [N, 3, S, S] with `x_label` [N, K], 1 where an image has the label."""

    @view
    def image(self) -> Tensor:
        """The images, changed at random as `augment` says: turned, scaled, moved, in other colours."""
        strength = self.params.augment
        if not strength:
            return self.x
        grid = augment.affine_grid(self.x, 10 * strength, 0.05 * strength, 0.03 * strength)
        x = F.grid_sample(self.x, grid, padding_mode="reflection", align_corners=False)
        return augment.lighting(x, 0.5 * strength)

    @view
    def target(self) -> Tensor:
        """The labels to translate to, [N, K]: those of the batch in another order."""
        return self.x_label[augment.order(len(self.x_label), self.x_label.device)]


class Labelled(Recipe):
    """A method of one model for many domains. `params.labels` are the targets; several at once where not `single`."""

    Params = LabelledParams
    directions = ()

    def open(self, data: Data) -> Layout:
        return open_labelled(data, self.params)

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        label = F.one_hot(torch.arange(batch) % self.labels, self.labels).float()
        return {"x": torch.empty(batch, 3, size, size), "x_label": label}

    @property
    def labels(self) -> int:
        """How many labels there are; 2 before the data is read."""
        return len(self.params.labels) or 2

    @property
    def combines(self) -> bool:  # type: ignore[override]
        return not self.params.single

    def targets(self, domains: Domains) -> dict[str, str]:
        """Return the labels, and for attributes `no-LABEL`: switched off."""
        labels = self.params.labels
        off = [f"{OFF}{label}" for label in labels] if self.combines else []
        return {label: label for label in [*labels, *off]}

    def previews(self) -> dict[str, str]:
        return dict.fromkeys(self.params.labels[:1], "x")  # its row shows all of them

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        extra = {"source": self.seen_labels(nets, x)} if self.needs_source else {}
        shown = spread(self.params.labels, SHOWN)
        return {label: self.translate(nets, x, label, **extra) for label in shown}  # type: ignore[call-arg]

    def seen_labels(self, nets: Any, x: Tensor) -> list[str]:
        """Return what previews take for the labels of images x, joined by +: none, where nothing can predict them."""
        return [""] * len(x)

    def vector(self, to: str, like: Tensor, source: Sequence[str] | None = None) -> Tensor:
        """Return the target labels of images `like` [N, …] as vectors: [N, K], 1 for each label to have.

        If an image has one label, the target is `to`. If it may have several, it keeps the labels in `source` (each
        image's labels joined by +) except those that `to` changes: names joined by + are switched on, `no-NAME` is
        switched off. A label that excludes others (`params.exclusive`) switches them off (Choi et al. 2018,
        create_labels of the authors' code). Without `source` it keeps none.
        """
        if self.params.single:
            return like.new_tensor([self._row([to])]).expand(like.shape[0], -1)
        source = [""] * len(like) if source is None else source
        return like.new_tensor([self._row(self.changed(to, has.split("+"))) for has in source])

    def changed(self, to: str, has: Sequence[str]) -> list[str]:
        """Return the labels `has` of one image after the changes that `to` asks for."""
        for name in to.split("+"):
            off = {name.removeprefix(OFF)}
            off |= {label for group in self.params.exclusive if name in group for label in group}
            has = [label for label in has if label not in off] + ([name] if name in self.params.labels else [])
        return list(has)

    def _row(self, names: Sequence[str]) -> list[float]:
        return [float(label in names) for label in self.params.labels]
