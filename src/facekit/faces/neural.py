"""Faces in photos and drawings by facekit's own net, at any roll, small ones on a finer copy of the picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..nets.detector import Cells, decode
from ..nets.detector_file import load_detector
from ..nets.face_points import SIDE, look, squares
from ..ops.boxes import suppress
from .types import Effort, Face

WEIGHTS = Path(__file__).parents[1] / "weights" / "detector.safetensors"
LEAST = 0.1  # the score below which a cell is not looked at
SECOND = 0.2  # the score from which a face is looked at again
FIRST, LARGEST = 256, 2560  # px: the longest side of the coarsest and of the finest copy that the net is shown
MARGIN = 0.06  # of the longest side: room around the coarsest copy, for faces that fill the frame
FINE = 0.45  # of the coarsest copy's side: larger faces are left to coarser copies than the one they were found on
FOUND = 0.8  # the score that ends the search for one face
STEPS = 8  # landmarks lie on a grid of 1/8 px, so that sums in another order give the same face


def faces_in(net: nn.Module, points: nn.Module, x: Tensor, least: float = LEAST) -> list[list[Face]]:
    """Return the faces of each image of x [N, 3, H, W] in [-1, 1], best first, looked at twice."""
    found = pick(decode(net(x)), least)
    for index, faces in enumerate(found):
        found[index] = look_again(points, faces, partial(_of_tensor, x[index : index + 1]))
    return found


def _of_tensor(image: Tensor, *where: Tensor) -> Tensor:
    which = torch.zeros(len(where[0]), dtype=torch.long, device=image.device)
    return squares(image, which, *(values.to(image) for values in where))


def look_again(net: nn.Module, faces: list[Face], cut: Callable[..., Tensor]) -> list[Face]:
    """Return the faces, best first, those that score SECOND or more with the second look's landmarks and score.

    The score is the mean of both looks', as logits.
    """
    sure = [face for face in faces if face.score >= SECOND]
    if not sure:
        return faces
    points, logits = look(net, cut, torch.tensor([face.box for face in sure]))
    first = torch.tensor([face.score for face in sure]).logit(1e-6)
    scores = ((first + logits.float().cpu()) / 2).sigmoid().tolist()
    placed = points.cpu().numpy().astype(float)
    seen = [replace(f, score=s, landmarks=p) for f, s, p in zip(sure, scores, placed, strict=True)]
    rest = [face for face in faces if face.score < SECOND]
    return sorted(seen + rest, key=lambda face: -face.score)


def pick(cells: Cells, least: float = LEAST) -> list[list[Face]]:
    """Return each image's faces, best first: cells that score `least` or more, the best of those that overlap."""
    scores = cells.score.float().sigmoid()
    found = []
    for index in range(len(scores)):
        chosen = (scores[index] >= least).nonzero()[:, 0]
        score = scores[index, chosen].cpu().numpy().astype(float)
        box = cells.box[index, chosen].float().cpu().numpy().astype(float)
        points = cells.points[index, chosen].float().cpu().numpy().astype(float)
        drawn = (cells.kind[index, chosen] > 0).cpu().numpy()
        found.append(
            [
                Face((*box[i].tolist(),), float(score[i]), points[i], True, "drawing" if drawn[i] else "photo")
                for i in suppress(box, score)
            ]
        )
    return found


class NeuralDetector:
    """Faces by a `FaceDetector` and a `FacePoints` net, as `nets` or read from `file`.

    The file is a trained run or its weights; without it, the weights that come with facekit.
    The picture is shown whole on a copy of FIRST px. Where that leaves doubt, or every face is wanted, it is shown
    again on finer copies, each twice the one before, to its own size or LARGEST px: faces from 24 px on, in pictures
    up to that size. Raises MissingError where the file is missing or holds something else.
    """

    def __init__(self, file: Path | None = None, nets: tuple[nn.Module, nn.Module] | None = None):
        self.name = f"facekit:{file}" if file else "facekit"
        if nets is None:
            file = file or WEIGHTS
            nets = load_detector(file / "model.safetensors" if file.is_dir() else file)
        self.net, self.points = nets

    @torch.inference_mode()
    def detect(self, image: np.ndarray, effort: Effort = "first") -> list[Face]:
        """Return the faces in `image` (uint8 HxWx3 RGB), largest first."""
        longest = max(image.shape[:2])
        copies = Copies(image)
        faces = self._look_again(
            self._search(copies, FIRST / (longest * (1 + 2 * MARGIN)), round(MARGIN * longest)), copies
        )
        side = 2 * FIRST
        while effort != "quick" and side < 2 * min(longest, LARGEST):
            if effort == "first" and any(face.score >= FOUND for face in faces):
                break
            scale = min(1.0, side / longest, LARGEST / longest)
            found = self._search(copies, scale, 0)
            faces += self._look_again([face for face in found if _side(face) * scale <= FINE * FIRST], copies)
            side *= 2
        if faces:
            boxes, scores = np.array([face.box for face in faces]), np.array([face.score for face in faces])
            faces = [faces[index] for index in suppress(boxes, scores)]
        faces = [replace(face, landmarks=np.round(face.landmarks * STEPS) / STEPS) for face in faces]
        return sorted(faces, key=lambda face: (face.box[0] - face.box[2]) * (face.box[3] - face.box[1]))

    def _look_again(self, faces: list[Face], copies: Copies) -> list[Face]:
        parameter = next(self.points.parameters(), torch.zeros(()))
        return look_again(self.points, faces, lambda *where: copies.squares(*where).to(parameter))

    def _search(self, copies: Copies, scale: float, pad: int) -> list[Face]:
        """Return the faces on one copy of the picture, `pad` px of the picture around it, in px of the picture."""
        height, width = copies[0].shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        number = 0
        while min(copies[number].shape[0] / size[1], copies[number].shape[1] / size[0]) >= 2:
            number += 1
        copy = copies[number]
        copy = copy if copy.shape[1::-1] == size else cv2.resize(copy, size, interpolation=cv2.INTER_LINEAR)
        edge = int(pad * scale)  # rounded up, it would make the copy 32 px wider
        shape = [-(-(side + 2 * edge) // 32) * 32 for side in copy.shape[:2]]
        padded = np.full((*shape, 3), 128, np.uint8)
        padded[edge : edge + copy.shape[0], edge : edge + copy.shape[1]] = copy
        parameter = next(self.net.parameters())
        x = _tensor(padded).to(parameter)
        (faces,) = pick(decode(self.net(x)))
        stretch = np.array([width / size[0], height / size[1]])
        return [_moved(face, edge, stretch) for face in faces]


class Copies:
    """A picture (uint8 HxWx3) and, as they are needed, its copies of half the size, of a quarter, and so on.

    Halving is fast, and what training does.
    """

    def __init__(self, image: np.ndarray):
        self._known = [image]

    def __getitem__(self, number: int) -> np.ndarray:
        while len(self._known) <= number:
            last = self._known[-1]
            half = (last.shape[1] // 2, last.shape[0] // 2)
            self._known.append(cv2.resize(last, half, interpolation=cv2.INTER_AREA))
        return self._known[number]

    def squares(self, middle: Tensor, side: Tensor, turn: Tensor) -> Tensor:
        """Cut squares [K, 3, SIDE, SIDE] in [-1, 1], as `nets.face_points.squares`, each out of the copy that fits."""
        rows = zip(middle.tolist(), side.tolist(), turn.tolist(), strict=True)
        return torch.cat([self._square(*row) for row in rows])

    def _square(self, middle: list[float], side: float, turn: float) -> Tensor:
        number = 0
        while side / 2**number > 2 * SIDE and min(self[number].shape[:2]) >= 4:
            number += 1
        copy = self[number]
        height, width = copy.shape[:2]
        across, down = width / self[0].shape[1], height / self[0].shape[0]
        x, y, side = middle[0] * across, middle[1] * down, side * (across + down) / 2
        reach = 0.75 * side + 2  # of a square at any turn, and of the interpolation
        left, top = (min(max(math.floor(at - reach), 0), most - 1) for at, most in ((x, width), (y, height)))
        right, bottom = max(math.ceil(x + reach), left + 1), max(math.ceil(y + reach), top + 1)
        part = _tensor(copy[top:bottom, left:right])
        where = torch.tensor([[x - left, y - top]]), torch.tensor([side]), torch.tensor([turn])
        return squares(part, torch.zeros(1, dtype=torch.long), *where)


def _tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(picture, np.float32)).div_(127.5).sub_(1).permute(2, 0, 1)[None]


def _moved(face: Face, edge: int, stretch: np.ndarray) -> Face:
    """Return a face of a copy in px of the picture."""
    x0, y0, x1, y1 = face.box
    (left, top), (right, bottom) = (np.array([[x0, y0], [x1, y1]]) - edge) * stretch
    box = (float(left), float(top), float(right), float(bottom))
    return Face(box, face.score, (face.landmarks - edge) * stretch, face.measured, face.kind)


def _side(face: Face) -> float:
    return max(face.box[2] - face.box[0], face.box[3] - face.box[1])
