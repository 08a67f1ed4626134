"""A scorer: settings and the nets they name, loaded once, that scores any number of folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CardError, InputError, MissingError
from ..runtime import console
from ..runtime.engine import LOCAL, Engine
from ..storage import files
from . import coverage, extractors, features, fid_kid, groups, image_set, mmd, patches
from .image_set import ImageSet

if TYPE_CHECKING:
    import numpy as np

    from ..nets.vgg import VGG
    from ..recipe_api.checkpoint import Model
    from .pairing import Table

FEW = 2048  # images; with fewer, FID's covariance does not have full rank


@dataclass(frozen=True)
class Settings:
    """How folders are scored; the fields are the options of `facekit score-fid`.

    `subsets` and `subset_size` are KID's; `seed` is also that of patches and of the bootstrap. `segnet` and `face` are
    used if there is a source, `vgg` if there are right answers, `classifier` if there are labels. Raises CardError for
    a seed outside 0..2^32 - 1.
    """

    features: str = extractors.CLEAN
    preprocessing: str = "inception"
    input_size: int | None = None
    resize: int | None = None
    reading: str = "facekit"
    subsets: int = fid_kid.SUBSETS
    subset_size: int = fid_kid.SUBSET_SIZE
    seed: int = fid_kid.SEED
    neighbours: int | None = None
    patches: bool = False
    bootstrap: int | None = None
    limit: int | None = None
    segnet: str = "segnet"
    face: str = "facefeat"
    vgg: str | None = None
    classifier: str | None = None
    allow_torchscript: bool = False
    cache: bool = True
    workers: int | None = None
    device: str = "auto"
    engine: Engine = LOCAL

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise CardError(f"--seed {self.seed} is not a seed", "a whole number from 0 to 4294967295")
        if self.reading not in image_set.READINGS:
            raise CardError(f"no reading {self.reading!r}", f"one of {', '.join(image_set.READINGS)}")

    def options(self, source: bool) -> dict[str, Any]:
        """Return what changes a score, by the names of the options; `source`: whether there is one."""
        names = ["features", "preprocessing", "input_size", "resize", "subsets", "subset_size", "seed", "neighbours"]
        names += ["patches"] if self.patches else []
        names += ["limit", "classifier", "vgg", "bootstrap"] + (["segnet", "face"] if source else [])
        names += ["reading"] if self.reading != "facekit" else []
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class Scorer:
    """Scores folders with one set of `settings`; nets are loaded when they are first needed, and once per process."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def __reduce__(self) -> tuple[Any, ...]:
        return Scorer, (replace(self.settings, engine=LOCAL),)

    @cached_property
    def extractor(self) -> extractors.Extractor:
        """The net that makes features; raises MissingError or CardError as `extractors.load` does."""
        s = self.settings
        return extractors.load(s.features, s.preprocessing, s.input_size, s.device, s.allow_torchscript)

    @cached_property
    def segnet(self) -> Model:
        """The net that labels face parts; raises MissingError if its weights are missing."""
        return self._load("segnet")

    @cached_property
    def face(self) -> Model:
        """The net that embeds faces; raises MissingError if its weights are missing."""
        return self._load("face")

    @cached_property
    def vgg(self) -> VGG | None:
        """The VGG that compares with right answers, if one is named; raises MissingError for a file without weights."""
        from ..runtime.device import find_device
        from . import truth

        return truth.load_vgg(self.settings.vgg, find_device(self.settings.device)) if self.settings.vgg else None

    @cached_property
    def classifier(self) -> Model | None:
        """The net that tells labels, if there is one; raises MissingError if its weights are missing."""
        return self._load("classifier") if self.settings.classifier else None

    def _load(self, name: str) -> Model:
        from ..recipe_api import checkpoint
        from ..runtime.device import find_device

        return checkpoint.load_model(self._find(name), find_device(self.settings.device))

    def _find(self, name: str) -> Path:
        from ..recipe_api import checkpoint

        weights = getattr(self.settings, name)
        try:
            return checkpoint.find_weights(weights)
        except MissingError as error:
            needed = "--labels" if name == "classifier" else "--source"
            raise MissingError(
                f"{needed} needs the weights {weights!r}: {error.message}",
                f"give --{name} a run folder or a .safetensors file, or leave out {needed}",
            ) from error

    def image_set(self, folder: Path) -> ImageSet:
        """Return the images of a folder that are scored; raises InputError for fewer than two."""
        found = ImageSet(folder, self.settings.limit, self.settings.reading)
        if len(found) < 2:
            raise InputError(
                f"{folder} has {len(found)} readable image(s), and FID and KID compare sets",
                "at least 2 images; thousands say more",
            )
        return found

    def inputs(
        self,
        out: ImageSet,
        reference: ImageSet,
        source: Path | None,
        truth: Path | None = None,
        kinds: Path | None = None,
    ) -> dict[str, str]:
        """Return the digests of all that a score depends on; loads no nets."""
        found = {"out": out.digest, "reference": reference.digest}
        found["features"] = files.digest(extractors.find(self.settings.features))
        if source:
            found["source"] = ImageSet(source, self.settings.limit).digest
        if truth:
            found["truth"] = ImageSet(truth, self.settings.limit).digest
        if kinds:
            if not kinds.is_file():
                raise InputError(f"no labels file {kinds}", "check the path of --groups")
            found["groups"] = files.digest(kinds)
        if truth and self.settings.vgg and self.settings.vgg != "download":
            if not Path(self.settings.vgg).is_file():
                raise MissingError(f"no weights file {self.settings.vgg}", "check the path, or --vgg download")
            found["vgg"] = files.digest(Path(self.settings.vgg))
        for name in (["segnet", "face"] if source else []) + (["classifier"] if self.settings.classifier else []):
            found[name] = files.digest(self._find(name))
        return found

    def score(
        self,
        out: Path | ImageSet,
        reference: Path | ImageSet,
        source: Path | None = None,
        truth: Path | None = None,
        kinds: Path | None = None,
    ) -> dict[str, Any]:
        """Return the scores of a folder against real images.

        With `source` also what it preserves of that folder, with `truth` how near it is to the right answers, with the
        labels file `kinds` the scores by group, see `groups.score`. Beside the figures of `fid_kid.compare`,
        `mmd.cmmd`, `coverage.compare`, `patches.measure`, `preservation.measure` and `truth.measure`: "images" (how
        many), "failed" (reasons by folder and name), "features", "kid" (how they were computed), "digests" and
        "warnings". With `Settings.bootstrap` figures have a "low" and a "high", their 95 % interval; FID has none.
        Raises InputError for fewer than two images in a folder and for images of several sizes without `resize`.
        """
        s = self.settings
        sets = [one if isinstance(one, ImageSet) else self.image_set(one) for one in (out, reference)]
        warnings = advise(sets, s.resize, s.subset_size)
        digests = self.inputs(sets[0], sets[1], source, truth, kinds)
        members = groups.read(kinds) if kinds else {}
        extractor = self.extractor
        if source:
            _ = self.segnet, self.face  # missing weights are an error before the long work, not after it
        if truth:
            _ = self.vgg
        for text in warnings:
            console.warn(text)
        with s.engine.connected(s.device) as engine:
            more: dict[str, Any] = {"resize": s.resize, "workers": s.workers, "engine": engine.seeing(s.features)}
            x, y = (features.extract(one, extractor, cache=s.cache and one is sets[1], **more) for one in sets)
        result = self._compare(x, y)
        if s.patches:
            result |= patches.measure(sets[0], sets[1], s.resize, s.bootstrap, s.seed)
        tables = list(self._tables(sets[0].path, source, truth))
        for summary, table in tables:
            result |= summary(table) | (table.intervals(s.bootstrap, s.seed) if s.bootstrap else {})
        if kinds:
            names = [source.name for source in sets[0].good]
            each = coverage.values(x, y, s.neighbours) if s.neighbours else {}
            own = {f"{name}-{extractor.unit}": each[name] for name in ("precision", "density") if name in each}
            pairs = [table for _, table in tables]
            result |= groups.score(members, names, x, y, extractor.unit, own, pairs, s.bootstrap, s.seed)
        return result | {
            "images": {"out": len(x), "reference": len(y)},
            "failed": {str(one.path): one.failed for one in sets if one.failed},
            "features": _describe(extractor, s.resize, s.reading),
            "kid": fid_kid.describe(len(x), len(y), s.subsets, s.subset_size, s.seed),
            "digests": digests,
            "warnings": warnings,
        }

    def _compare(self, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        """Return the distances and the measures of variety of output features [n, d] and reference features [m, d]."""
        s, unit = self.settings, self.extractor.unit
        result: dict[str, Any] = dict(fid_kid.compare(x, y, unit, s.seed, s.subsets, s.subset_size))
        if s.bootstrap:
            low, high = mmd.interval(x, y, s.bootstrap, s.seed)
            result |= {f"KID-{unit} low": low, f"KID-{unit} high": high}
        if self.extractor.cmmd:
            result |= mmd.cmmd(x, y, s.bootstrap, s.seed)
        if s.neighbours:
            result |= coverage.compare(x, y, unit, s.neighbours, s.bootstrap, s.seed)
        return result

    def _tables(
        self, out: Path, source: Path | None, truth: Path | None
    ) -> Iterator[tuple[Callable[[Table], dict[str, float]], Table]]:
        """Yield the measures of pairs that are asked for, with what sums them up."""
        s = self.settings
        if source:
            from . import preservation

            yield preservation.summary, preservation.table(source, out, self.segnet, self.face, s.limit)
        if truth:
            from . import truth as right_answers

            found = right_answers.table(truth, out, self.vgg, resize=s.resize, limit=s.limit)
            yield right_answers.summary, found


def advise(sets: list[ImageSet], resize: int | None, subset_size: int) -> list[str]:
    """Return warnings about two image sets; raises InputError for several sizes without `resize`."""
    sizes = {size for one in sets for size in one.sizes}
    shortest = image_set.shortest_edge(sets)
    if len(sizes) > 1 and not resize:
        raise InputError(
            image_set.describe_sizes(sets), f"--resize {shortest} crops squares and resizes all images to one size"
        )
    warnings = []
    width, height = next(iter(sizes))
    if width != height and not resize:
        warnings.append(f"images of {width} x {height} px are squeezed to squares, as clean-fid does; --resize N crops")
    if resize and resize > shortest:
        warnings.append(f"--resize {resize} enlarges images of {shortest} px, and blur counts as a difference")
    formats = [" and ".join(sorted(one.formats)) for one in sets]
    if len({kind for one in sets for kind in one.formats}) > 1:
        warnings.append(f"{formats[0]} against {formats[1]}: compression artefacts count as a difference")
    if sets[0].digest == sets[1].digest:
        warnings.append("both folders hold the same images")
    fewest = min(len(one) for one in sets)
    if fewest < FEW:
        warnings.append(
            f"{len(sets[0])} against {len(sets[1])} images: with fewer than {FEW:,} FID is biased upwards; "
            "prefer KID, and compare only scores of equally many images"
        )
    if fewest < subset_size:
        warnings.append(f"KID: {fewest} images do not fill subsets of {subset_size}; subsets have {fewest}")
    return warnings


def _describe(extractor: extractors.Extractor, resize: int | None, reading: str) -> dict[str, Any]:
    """Return what a result says about its features."""
    first = f"middle square, Pillow bicubic to {resize} px in 8 bits; " if resize else ""
    first += "read as clean-fid does; " if reading == "clean-fid" else ""
    return {
        "name": extractor.name,
        "dimension": extractor.dim,
        "preprocessing": first + extractor.preprocessing,
        "digest": extractor.digest,
    }
