"""Faces in photos and drawings by facekit's own net, at any roll, small ones on a finer copy of the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..nets.detector import Cells, decode
from ..nets.detector_file import load_detector
from ..nets.face_points import refine
from ..ops.boxes import suppress
from .types import Effort, Face

WEIGHTS = Path(__file__).parents[1] / "weights" / "detector.safetensors"
LEAST = 0.1  # the score below which a cell is not looked at
REFINED = 0.3  # the score from which the second net places a face's landmarks
FIRST, LARGEST = 256, 2560  # px: the longest side of the coarsest and of the finest copy that the net is shown
MARGIN = 0.06  # of the longest side: room around the coarsest copy, for faces that fill the frame
FINE = 0.45  # of the coarsest copy's side: larger faces are left to coarser copies than the one they were found on
FOUND = 0.8  # the score that ends the search for one face


def faces_in(net: nn.Module, points: nn.Module, x: Tensor, least: float = LEAST) -> list[list[Face]]:
    """Return the faces of each image of x [N, 3, H, W] in [-1, 1], best first.

    `points` places the landmarks of those that score REFINED or more.
    """
    found = pick(decode(net(x)), least)
    sure = [(index, face) for index, faces in enumerate(found) for face in faces if face.score >= REFINED]
    if not sure:
        return found
    which = torch.tensor([index for index, _ in sure]).to(x.device)
    boxes = torch.tensor([face.box for _, face in sure]).to(x)
    placed = iter(refine(points, x, which, boxes).cpu().numpy().astype(float))
    return [[replace(f, landmarks=next(placed)) if f.score >= REFINED else f for f in faces] for faces in found]


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
        faces = self._search(image, FIRST / (longest * (1 + 2 * MARGIN)), round(MARGIN * longest))
        side = 2 * FIRST
        while effort != "quick" and side < 2 * min(longest, LARGEST):
            if effort == "first" and any(face.score >= FOUND for face in faces):
                break
            scale = min(1.0, side / longest, LARGEST / longest)
            found = self._search(image, scale, 0)
            faces += [face for face in found if _side(face) * scale <= FINE * FIRST]
            side *= 2
        if faces:
            boxes, scores = np.array([face.box for face in faces]), np.array([face.score for face in faces])
            faces = [faces[index] for index in suppress(boxes, scores)]
        return sorted(faces, key=lambda face: (face.box[0] - face.box[2]) * (face.box[3] - face.box[1]))

    def _search(self, image: np.ndarray, scale: float, pad: int) -> list[Face]:
        """Return the faces on one copy of the picture, `pad` px of the picture around it, in px of the picture."""
        height, width = image.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        copy = image
        while min(copy.shape[0] / size[1], copy.shape[1] / size[0]) >= 2:  # halving is fast, and what training does
            half = (copy.shape[1] // 2, copy.shape[0] // 2)
            copy = cv2.resize(copy, half, interpolation=cv2.INTER_AREA)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        copy = copy if copy.shape[1::-1] == size else cv2.resize(copy, size, interpolation=how)
        edge = round(pad * scale)
        shape = [-(-(side + 2 * edge) // 32) * 32 for side in copy.shape[:2]]
        padded = np.full((*shape, 3), 128, np.uint8)
        padded[edge : edge + copy.shape[0], edge : edge + copy.shape[1]] = copy
        parameter = next(self.net.parameters())
        x = torch.from_numpy(padded).to(parameter).permute(2, 0, 1)[None].div_(127.5).sub_(1)
        (faces,) = faces_in(self.net, self.points, x)
        stretch = np.array([width / size[0], height / size[1]])
        return [_moved(face, edge, stretch) for face in faces]


def _moved(face: Face, edge: int, stretch: np.ndarray) -> Face:
    """Return a face of a copy in px of the picture."""
    x0, y0, x1, y1 = face.box
    (left, top), (right, bottom) = (np.array([[x0, y0], [x1, y1]]) - edge) * stretch
    box = (float(left), float(top), float(right), float(bottom))
    return Face(box, face.score, (face.landmarks - edge) * stretch, face.measured, face.kind)


def _side(face: Face) -> float:
    return max(face.box[2] - face.box[0], face.box[3] - face.box[1])
