"""Which pairs a student should not learn from: no face, a face that was lost, moved or exchanged, the same face again.

A segmenter of face parts looks at both images, a face embedding says whose face it is, perceptual hashes find faces
that were there before.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..cleaning import near_duplicates
from ..errors import CardError
from ..faces import Detector
from ..nets import face_embedding
from ..recipe_api import checkpoint
from ..storage import files, images

REASONS = ("no-face", "near-duplicate", "face-lost", "parts", "identity")
FEATURES = ("eyes",), ("nose", "mouth")  # parts without which nobody has a face
LEAST_SEEN = 0.002  # share of a face image that each of these cover at least
MOST_SKIN = 0.9  # share of an image that skin covers at most: a blank image is all skin to the segmenter
LEAST_SKIN = 0.3  # of what skin covers in the face image, what it covers in the drawing at least
EMBEDDED = 128  # px, of faces that are embedded
COMPARED = ("skin", "hair")  # parts that drawings and photos have in about the same places


@dataclass
class Verdict:
    """What is known of a pair: why it is dropped (one of REASONS, or None), and what was measured."""

    reason: str | None = None
    measures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FilterOptions:
    """What a pair must keep to; see the flags of `facekit pairs`. `keep` names reasons that drop no pair."""

    segnet: str = "segnet"
    face: str | None = None
    min_parts: float = 0.3
    min_identity: float = 0.1
    keep: tuple[str, ...] = ()


class PairFilters:
    """Judges pairs, in order: a face that is near one before it is a near-duplicate.

    Raises CardError for an unknown reason in `keep` and for nets of another kind, MissingError where their weights are
    missing.
    """

    def __init__(self, options: FilterOptions, device: str, detector: Detector):
        for reason in options.keep:
            if reason not in REASONS:
                raise CardError(f"no pair is dropped for {reason!r}", f"--keep {' or '.join(REASONS)}")
        self.options, self.keep, self.detector = options, set(options.keep), detector
        self.segnet = checkpoint.load_model(options.segnet, device)
        self.classes = tuple(getattr(self.segnet.recipe.params, "classes", ()))
        if not callable(getattr(self.segnet.recipe, "label", None)) or not {"eyes", *COMPARED} <= set(self.classes):
            raise CardError("the segnet does not label skin, hair and eyes", "give weights of the recipe segnet")
        self.inputs = {"segnet": files.digest(self.segnet.path)}
        self.embed: Callable[[Tensor], Tensor] | None = None
        if options.face:
            self.embed = face_embedding.Face(options.face, checkpoint.load_model).to(device)
            file = options.face.partition(":")[2]  # lightcnn-29v2:FILE
            self.inputs["face"] = files.digest(Path(file) if file else checkpoint.find_weights(options.face))
        self.known = KnownFaces()
        self._device = device

    def judge_faces(self, names: Sequence[str], faces: Sequence[Image.Image]) -> list[Verdict]:
        """Judge faces before anything is drawn of them; those that pass count as known from then on."""
        verdicts = []
        for name, face, labels in zip(names, faces, self._labels(faces), strict=True):
            verdict = Verdict()
            if not self._shows_face(labels, face):
                verdict.reason = self._wanted("no-face")
            if verdict.reason is None:
                mark = near_duplicates.fingerprint(face)
                near = self.known.near(mark, name)
                if near is not None and self._wanted("near-duplicate"):
                    verdict = Verdict("near-duplicate", {"near": near})
                else:
                    self.known.add(name, mark)
                    verdict.measures["fingerprint"] = written(mark)
            verdicts.append(verdict)
        return verdicts

    def judge_drawings(self, faces: Sequence[Image.Image], drawings: Sequence[Image.Image]) -> list[Verdict]:
        """Judge what was drawn of faces that passed."""
        before, after = self._labels(faces), self._labels(drawings)
        cosines = self._cosines(faces, drawings)
        shown = [self._shows_face(*drawn) for drawn in zip(after, drawings, strict=True)]
        return [self._verdict(*known) for known in zip(before, after, shown, cosines, strict=True)]

    def _verdict(self, before: np.ndarray, after: np.ndarray, shown: bool, cosine: float | None) -> Verdict:
        parts = agreement(before, after, self.classes)
        measures = {"parts": round(parts, 4)}
        if cosine is not None:
            measures["identity"] = round(cosine, 4)
        skin = [_share(labels, self.classes, ("skin",)) for labels in (before, after)]
        reason = None
        if not shown or not LEAST_SKIN * skin[0] <= skin[1] <= MOST_SKIN:
            reason = self._wanted("face-lost")
        if reason is None and parts < self.options.min_parts:
            reason = self._wanted("parts")
        if reason is None and cosine is not None and cosine < self.options.min_identity:
            reason = self._wanted("identity")
        return Verdict(reason, measures)

    def _shows_face(self, labels: np.ndarray, picture: Image.Image) -> bool:
        """Whether the segmenter sees features of a face; where it does not, as behind dark glasses, the detector."""
        seen = all(_share(labels, self.classes, parts) >= LEAST_SEEN for parts in FEATURES)
        seen = seen and _share(labels, self.classes, ("skin",)) <= MOST_SKIN
        return seen or bool(self.detector.detect(np.asarray(picture)))

    def _wanted(self, reason: str) -> str | None:
        return None if reason in self.keep else reason

    @torch.inference_mode()
    def _labels(self, pictures: Sequence[Image.Image]) -> list[np.ndarray]:
        """Return the part of each pixel, [H, W], at the segmenter's size."""
        if not pictures:
            return []
        recipe: Any = self.segnet.recipe
        return [*recipe.label(self.segnet.nets, self._tensor(pictures, self.segnet.card.data.size)).cpu().numpy()]

    @torch.inference_mode()
    def _cosines(self, faces: Sequence[Image.Image], drawings: Sequence[Image.Image]) -> list[float | None]:
        if self.embed is None or not faces:
            return [None] * len(faces)
        x, y = (self.embed(self._tensor(pictures, EMBEDDED)).float() for pictures in (faces, drawings))
        return F.cosine_similarity(x, y).tolist()

    def _tensor(self, pictures: Sequence[Image.Image], size: int) -> Tensor:
        return torch.stack([images.to_tensor(images.resize(picture, size)) for picture in pictures]).to(self._device)


def _share(labels: np.ndarray, classes: Sequence[str], parts: Sequence[str]) -> float:
    """Return the share of an image that some parts cover."""
    return float(np.isin(labels, [classes.index(name) for name in parts if name in classes]).mean())


def agreement(before: np.ndarray, after: np.ndarray, classes: Sequence[str]) -> float:
    """Return how well skin and hair of two label maps lie on one another: the mean of their IoU, 0 to 1.

    Eyes, nose and mouth do not count: drawings have them larger, or leave them out.
    """
    values = []
    for name in COMPARED:
        x, y = before == classes.index(name), after == classes.index(name)
        if either := (x | y).sum():
            values.append(float((x & y).sum() / either))
    return float(np.mean(values)) if values else 0.0


Mark = tuple[int, bytes]


class KnownFaces:
    """The perceptual hashes of faces that were seen, with their names."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._hashes, self._cells = np.empty(256, np.uint64), np.empty((256, 3 * near_duplicates.GRID**2), np.uint8)

    def add(self, name: str, mark: Mark) -> None:
        """Remember a face."""
        count = len(self.names)
        if count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
            self._cells = np.concatenate([self._cells, np.empty_like(self._cells)])
        self._hashes[count], self._cells[count] = mark[0], np.frombuffer(mark[1], np.uint8)
        self.names.append(name)

    def near(self, mark: Mark, name: str) -> str | None:
        """Return the first other face that face `name` is near, if any: by hash and colour, as `clean` compares."""
        count = len(self.names)
        apart = near_duplicates.bits(self._hashes[:count] ^ np.uint64(mark[0]))
        cells = np.frombuffer(mark[1], np.uint8).astype(np.int16)
        for index in np.flatnonzero(apart <= near_duplicates.DISTANCE):
            alike = np.abs(self._cells[index].astype(np.int16) - cells).mean() <= near_duplicates.COLOUR
            if alike and self.names[index] != name:
                return self.names[index]
        return None


def written(mark: Mark) -> str:
    """Return a fingerprint as text for a manifest."""
    return f"{mark[0]:016x} {base64.b64encode(mark[1]).decode()}"


def read_mark(text: object) -> Mark | None:
    """Return the fingerprint in a manifest; None for what is no such text."""
    try:
        number, _, cells = str(text).partition(" ")
        mark = int(number, 16), base64.b64decode(cells, validate=True)
        return mark if len(mark[1]) == 3 * near_duplicates.GRID**2 and mark[0] < 1 << 64 else None
    except ValueError:
        return None
