"""The face detector that `align` uses, trained on composed scenes like any other network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..data import backgrounds
from ..data.dataset import Layout, spread
from ..data.face_boxes import BOX, CLEAR, COLUMNS, KIND, POINTS, WEIGHT, open_labels
from ..data.face_scenes import ROOM, SceneReader
from ..errors import InputError
from ..nets import face_points
from ..nets.detector import STRIDES, Cells, FaceDetector, decode, grid
from ..nets.face_points import FacePoints
from ..ops.boxes import generalised_overlap, overlap
from ..recipe_api import base
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term, view
from ..runtime import console
from ..storage import images
from ..storage.card import Data

REACH = 1.5  # strides: how far from a face's middle a cell may lie that has to find it
LEVELS = ((0.0, 52.0), (40.0, 120.0), (96.0, float("inf")))  # px: the faces (larger side) that each stride has to find
SHOWN = 0.4  # the score from which previews show a face
CLOSEUPS = 3  # squares for each scene on which the landmarks are learnt
BESIDE = 0.2  # the share of squares that lie beside their face
TURNED = 0.08  # the share of upright squares that show their face on its side or upside down, which is none to be seen
GROUNDS = 1000  # faceless pictures of the training set that are kept in memory as backgrounds
FACE_COLOURS = ((0.2, 1.0, 0.2), (1.0, 0.3, 1.0))  # boxes in previews, -1..1: photos, drawings


class DetectorScene(Scene):
    """A batch of composed scenes `a` and their faces `a_faces` [N, ROOM, COLUMNS]."""

    @view
    def maps(self) -> list[Tensor]:
        """The net's maps, in full precision."""
        return [level.float() for level in self.nets.net(self.a)]

    @view
    def found(self) -> Cells:
        """What the net says of every cell."""
        return decode(self.maps)

    @view
    def assigned(self) -> tuple[Tensor, Tensor, Tensor]:
        """Each cell's face: its number [N, P], whether the cell has to find it, and whether the cell is not judged."""
        return assign(self.a_faces, *grid(self.maps))

    @view
    def truth(self) -> tuple[Tensor, Tensor]:
        """The face of every cell [N, P, COLUMNS], and each cell's part of a mean over those that have one to find."""
        number, positive, _ = self.assigned
        rows = self.a_faces.gather(1, number[..., None].expand(-1, -1, self.a_faces.shape[2]))
        return whole(rows, positive), positive / positive.sum().clamp(min=1)

    @term("D", 2.0)
    def score(self) -> Tensor:
        """How well a cell's box fits a face: quality focal loss (Li et al. 2020, Generalized Focal Loss, eq. 2)."""
        _, positive, ignored = self.assigned
        rows, _ = self.truth
        quality = overlap(self.found.box.detach(), rows[..., BOX]).clamp(0, 1) * positive
        logits = self.found.score
        focus = (logits.sigmoid() - quality).abs().square()
        each = focus * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
        return each.masked_fill(ignored, 0).sum() / positive.sum().clamp(min=1)

    @term("D", 2.0)
    def box(self) -> Tensor:
        """How far the boxes are from the faces': 1 - generalised IoU (Rezatofighi et al. 2019)."""
        rows, part = self.truth
        return ((1 - generalised_overlap(self.found.box, rows[..., BOX])) * part).sum()

    @term("D", 2.0)
    def landmarks(self) -> Tensor:
        """The points' distance from the faces', as a share of the face's size: L1."""
        rows, part = self.truth
        side = ((rows[..., 2] - rows[..., 0]) * (rows[..., 3] - rows[..., 1])).clamp(min=1).sqrt()
        away = (self.found.points.flatten(2) - rows[..., POINTS]).abs().mean(2) / side
        return (away * part).sum()

    @view
    def chosen(self) -> tuple[Tensor, Tensor, Tensor]:
        """CLOSEUPS faces for each scene: their images [K], rows [K, COLUMNS], and how much each counts: 0 for none.

        There are as many in every step: where there are fewer faces, each is taken again.
        """
        held = (self.a_faces[..., WEIGHT] > 0).flatten()
        order = (torch.rand(held.shape, device=self.a.device) * held).argsort(descending=True)
        number = torch.arange(CLOSEUPS * len(self.a), device=self.a.device) % held.sum().clamp(min=1)
        chosen = order[number]
        real = held[chosen]
        rows = whole(self.a_faces.flatten(0, 1)[chosen], real)
        return chosen // self.a_faces.shape[1], rows, real * clear(rows)

    @view
    def closeups(self) -> tuple[Tensor, Tensor, Tensor]:
        """Squares around the boxes, the points in them, and how much each counts: 0 without a face, 1 a clear one."""
        image, rows, counts = self.chosen
        middle, side, turn = face_points.boxed(rows[:, BOX])
        middle = middle + 0.05 * side[:, None] * torch.randn_like(middle)
        where = middle, side * (0.1 * torch.randn_like(side)).exp(), turn
        points = rows[:, POINTS].unflatten(1, (5, 2))
        return face_points.squares(self.a, image, *where), face_points.to_square(points, *where), counts

    @view
    def upright(self) -> tuple[Tensor, Tensor, Tensor]:
        """Squares in which the faces stand about upright, as in `closeups`; those BESIDE or TURNED count 0."""
        image, rows, counts = self.chosen
        points = rows[:, POINTS].unflatten(1, (5, 2))
        middle, side, turn = face_points.framed(points)
        beside = torch.rand_like(side) < BESIDE
        away = F.normalize(torch.randn_like(middle)) * torch.where(beside, 0.6, 0.04 * torch.randn_like(side))[:, None]
        side = side * (0.06 * torch.randn_like(side)).exp()
        turned = torch.rand_like(side) < TURNED
        quarters = turned * torch.randint(1, 4, side.shape, device=side.device)
        turn = turn + quarters * torch.pi / 2 + 0.1 * torch.randn_like(side)
        where = middle + away * side[:, None], side, turn
        counts = counts * ~(beside | turned)
        return face_points.squares(self.a, image, *where), face_points.to_square(points, *where), counts

    @view
    def looked(self) -> Tensor:
        """What the second net says of the squares in `upright` [K, 21]."""
        return self.nets.points(self.upright[0]).float()

    @term("D", 10.0)
    def points(self) -> Tensor:
        """The distance of the second net's rough points from the face's, in sides of the square around its box."""
        seen, truth, counts = self.closeups
        return distance(self.nets.points(seen).float()[:, face_points.ROUGH], truth, counts)

    @term("D", 10.0)
    def fine_points(self) -> Tensor:
        """The distance of the second net's fine points from the face's, in sides of its upright square."""
        _, truth, counts = self.upright
        return distance(self.looked[:, face_points.FINE], truth, counts)

    @term("D", 0.2)
    def seen(self) -> Tensor:
        """Whether the second net sees a face in the upright square: cross-entropy."""
        return F.binary_cross_entropy_with_logits(self.looked[:, face_points.SEEN], (self.upright[2] > 0).float())

    @term("D", 0.5)
    def kind(self) -> Tensor:
        """Whether the face is drawn: cross-entropy."""
        rows, part = self.truth
        each = F.binary_cross_entropy_with_logits(self.found.kind, rows[..., KIND], reduction="none")
        return (each * part).sum()


def distance(points: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """Return how far points [K, 10] are from the true ones [K, 5, 2], on average; each face counts so much."""
    away = ((points.unflatten(1, (5, 2)) - truth).square().sum(2) + 1e-8).sqrt().mean(1)
    return (away * counts).sum() / counts.sum().clamp(min=1)


def clear(rows: Tensor) -> Tensor:
    """Return how much the landmarks of faces [K, COLUMNS] count: less in smaller ones than CLEAR."""
    return ((rows[:, 2:4] - rows[:, :2]).amax(1) / CLEAR).clamp(max=1)


def whole(rows: Tensor, real: Tensor) -> Tensor:
    """Return faces [..., COLUMNS], those that are none replaced by a box of 1 px, so that their losses are finite."""
    none = torch.zeros_like(rows)
    none[..., 2:4] = 1
    return torch.where(real[..., None], rows, none)


def assign(faces: Tensor, centres: Tensor, strides: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Say which face each cell has to find: the one whose middle is nearest, at the strides that fit its size.

    `faces` is [N, M, COLUMNS], `centres` [P, 2] and `strides` [P, 1] are those of `grid`. Returns the face's number,
    whether the cell has to find it, and whether the cell is not judged (it lies in a face of weight 0); all [N, P].
    """
    box = faces[..., BOX]
    side = (box[..., 2:] - box[..., :2]).amax(2)[..., None]  # [N, M, 1]
    middle = (box[..., :2] + box[..., 2:]) / 2
    away = (centres - middle[:, :, None]).abs().amax(3) / strides[:, 0]  # [N, M, P] strides
    low, high = torch.tensor(LEVELS).to(faces)[(strides[:, 0] / STRIDES[0]).log2().round().long()].T
    weight = faces[..., WEIGHT, None]
    candidate = (away < REACH) & (side >= low) & (side < high) & (weight > 0)
    away = away.masked_fill(~candidate, float("inf"))
    nearest, number = away.min(1)
    inside = (centres[None, None] > box[:, :, None, :2]) & (centres[None, None] < box[:, :, None, 2:])
    unsure = (inside.all(3) & (weight == 0)).any(1)
    positive = nearest < REACH
    return number, positive, unsure & ~positive


class DetectorParams(base.Params):
    """Parameters of detector."""

    width: int = Field(32, ge=4, multiple_of=2, description="channels at stride 8; twice and three times that below")
    points_width: int = Field(33, ge=3, multiple_of=3, description="channels of the net that places landmarks")


class Detector(Recipe):
    """Face detector without anchors after Tian et al. 2019 (FCOS), for photos and drawings at any roll."""

    Scene = DetectorScene
    Params = DetectorParams
    phases = (Phase("D", ("net", "points")),)
    presets = {"detector": {}}
    defaults = {
        "data": {"size": 256, "batch": 16},
        "optim": {"lr": 2e-3, "betas": [0.9, 0.999]},
        "run": {"steps": 20000, "save_every": 500, "ema": 0.998},
    }
    sizes = (64, 32)
    exports = ("net", "points")
    directions = ("b",)
    multiple = 32

    def open(self, data: Data) -> Layout:
        import cv2

        cv2.setNumThreads(1)  # scenes are composed beside the training step, and their pictures are small
        layout, faces = open_labels(data)
        faceless = spread([path for path in layout.train["a"] if not len(faces[path])], GROUNDS)
        grounds = (*backgrounds.bundled(), *(backgrounds.stored(images.read(path)) for path in faceless))
        return replace(layout, readers={"a": SceneReader("a", faces, grounds)})

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {"a": torch.empty(batch, 3, size, size), "a_faces": torch.empty(batch, ROOM, COLUMNS)}

    def nets(self) -> dict[str, nn.Module]:
        return {"net": FaceDetector(self.params.width), "points": FacePoints(self.params.points_width)}

    def lr_factor(self, clock: Progress) -> float:
        """Rise over 100 steps, then fall to a fiftieth along a cosine."""
        fall = 0.5 + 0.5 * float(torch.cos(torch.tensor(torch.pi * clock.progress)))
        return min(1.0, (clock.step + 1) / 100) * (0.02 + 0.98 * fall)

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        """Return the images with a frame around every face found: green in photos, magenta in drawings."""
        from ..faces.neural import faces_in

        out = x.clone()
        for image, faces in zip(out, faces_in(nets.net, nets.points, x.float(), SHOWN), strict=True):
            for face in faces:
                colour = torch.tensor(FACE_COLOURS[int(face.kind == "drawing")]).to(out)[:, None, None]
                points = [(px, py, px + 2, py + 2) for px, py in (face.landmarks - 1).tolist()]
                x0, y0, x1, y1 = face.box
                sides = [(x0, y0, x1, y0 + 2), (x0, y1 - 2, x1, y1), (x0, y0, x0 + 2, y1), (x1 - 2, y0, x1, y1)]
                for left, top, right, bottom in (*sides, *points):
                    rows = slice(max(0, round(top)), max(0, round(bottom)))
                    image[:, rows, max(0, round(left)) : max(0, round(right))] = colour
        return out

    def finish(self, nets: Any, layout: Layout, folder: Path) -> dict[str, Any]:
        """Return recall, false faces per picture and landmark error on the test pictures, each shown whole."""
        from ..faces.neural import NeuralDetector
        from ..faces.trial import Trial

        trial, reader = Trial(), layout.readers["a"]
        detector = NeuralDetector(nets=(nets.net, nets.points))
        for path in layout.test["a"]:
            try:
                sample = reader.read(path, self.size)
            except InputError as error:
                console.warn(f"{error.message}; not scored")
                continue
            trial.add(detector.detect(sample["a"]), sample["a_faces"])
        return trial.figures()
