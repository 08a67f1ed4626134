"""Faces in photos and drawings by facekit's own net, at any roll, small ones on enlarged tiles."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..nets.detector import Cells, decode
from ..ops.boxes import suppress
from .types import Effort, Face

LEAST = 0.05  # the score below which a cell is not looked at


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
                Face(tuple(box[i].tolist()), float(score[i]), points[i], True, "drawing" if drawn[i] else "photo")
                for i in suppress(box, score)
            ]
        )
    return found


class NeuralDetector:
    """Faces by a `FaceDetector` net; `size` is the longest side in px of what the net is shown, a multiple of 32."""

    def __init__(self, net: nn.Module, size: int = 320):
        self.name, self._net, self._size = "facekit", net, size

    @torch.inference_mode()
    def detect(self, image: np.ndarray, effort: Effort = "first") -> list[Face]:
        """Return the faces in `image` (uint8 HxWx3 RGB), largest first."""
        import cv2

        height, width = image.shape[:2]
        scale = self._size / max(height, width)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=how)
        padded = np.full((self._size, self._size, 3), 128, np.uint8)
        padded[: small.shape[0], : small.shape[1]] = small
        x = torch.from_numpy(padded).permute(2, 0, 1)[None].to(next(self._net.parameters())).div(127.5).sub(1)
        faces = [_scaled(face, 1 / scale) for face in pick(decode(self._net(x)))[0]]
        return sorted(faces, key=lambda f: (f.box[0] - f.box[2]) * (f.box[3] - f.box[1]))


def _scaled(face: Face, scale: float) -> Face:
    box = tuple(v * scale for v in face.box)
    return Face(box, face.score, face.landmarks * scale, face.measured, face.kind)  # type: ignore[arg-type]


def to_input(image: np.ndarray) -> Tensor:
    """Return uint8 [H, W, 3] as [1, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float().div(127.5).sub(1)
