"""Face search with an LBP cascade (Liao et al. 2007, run by scikit-image), levelled by turning the face till it fits best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage import data
from skimage.exposure import equalize_adapthist
from skimage.feature import Cascade

from facekit.faces.canvas import Canvas, turned

SIDE = 160


@dataclass(frozen=True)
class Found:
    centre: np.ndarray
    width: float
    turn: float
    support: float


class CascadeDetector:
    def __init__(self, file=None):
        self.cascade = Cascade(str(file or data.lbp_frontal_face_cascade_filename()))
        self.name = "cascade"

    def windows(self, patch, factor, smallest, largest):
        found = self.cascade.detect_multi_scale(
            img=np.ascontiguousarray(patch), scale_factor=factor, step_ratio=1,
            min_size=(smallest, smallest), max_size=(largest, largest),
            min_neighbor_number=1, intersection_score_threshold=1.01)
        rows = np.array([(w["c"] + w["width"] / 2, w["r"] + w["height"] / 2, w["width"]) for w in found])
        return rows.reshape(-1, 3)

    def hits(self, canvas, pixels=SIDE, turn=0.0, mirror=False, equalise=False, margin=0.25):
        side = max(canvas.width, canvas.height) * (1 + 2 * margin)
        centre = np.array([canvas.width, canvas.height]) / 2
        patch = canvas.patch(centre, side, turn, pixels)
        if mirror: patch = patch[:, ::-1]
        if equalise:
            patch = (equalize_adapthist(patch, clip_limit=0.02) * 255).astype(np.uint8)
        rows = self.windows(patch, 1.15, 24, pixels)
        if mirror: rows[:, 0] = pixels - rows[:, 0]
        step = side / pixels
        places = (rows[:, :2] - pixels / 2) * step @ turned(turn).T + centre
        return np.column_stack([places, rows[:, 2] * step, np.full(len(rows), turn)])

    def group(self, hits, least):
        out = []
        while len(hits):
            apart = np.linalg.norm(hits[:, None, :2] - hits[None, :, :2], axis=2)
            size = np.minimum(hits[:, None, 2], hits[None, :, 2]); ratio = np.maximum(hits[:, None, 2], hits[None, :, 2]) / size
            near = (apart < 0.35 * size) & (ratio < 1.5)
            best = near.sum(1).argmax(); members = near[best]
            if members.sum() < least: break
            m = hits[members].mean(0)
            out.append(Found(m[:2], m[2], m[3], int(members.sum())))
            hits = hits[~members]
        return out

    def at(self, canvas, f, turn, pixels=88, mirror=False):
        side = 2.2 * f.width
        p = canvas.patch(f.centre, side, turn, pixels)
        if mirror: p = p[:, ::-1]
        r = self.windows(p, 1.1, round(pixels * 0.34), round(pixels * .66))
        if mirror: r[:, 0] = pixels - r[:, 0]
        d = r[:, :2] - pixels / 2
        ok = np.hypot(*d.T) < 0.16 * pixels
        s = side / pixels
        return np.column_stack([d[ok] * s @ turned(turn).T + f.centre, r[ok, 2] * s, np.full(ok.sum(), turn)])

    def level(self, canvas, f, mirror=False, step=8):
        seen = {}
        start = round(f.turn / step)
        todo = [start + i for i in (-2, -1, 0, 1, 2)]
        while todo:
            for i in todo:
                seen[i] = self.at(canvas, f, i * step)
                if mirror: seen[i] = np.concatenate([seen[i], self.at(canvas, f, i * step, mirror=True)])
            top = max(len(v) for v in seen.values())
            todo = []
            lo, hi = min(seen), max(seen)
            if len(seen[lo]) > .3 * top and lo * step > -60: todo.append(lo - 1)
            if len(seen[hi]) > .3 * top and hi * step < 60: todo.append(hi + 1)
        lo, hi = min(seen), max(seen)
        angles = np.arange(lo, hi + 1) * step
        counts = np.array([len(seen[i]) for i in range(lo, hi + 1)], float)
        smooth = np.convolve(np.r_[0, counts, 0], [.25, .5, .25], "valid")
        if smooth.max() == 0: return None
        turn = angles[smooth.argmax()]
        for _ in range(4):
            w = smooth * np.exp(-.5 * ((angles - turn) / 16)**2); turn = (w * angles).sum() / w.sum()
        rows = np.concatenate(list(seen.values()))
        w = np.exp(-.5 * ((rows[:, 3] - turn) / 10)**2)
        c = (w[:, None] * rows).sum(0) / w.sum()
        return Found(c[:2], c[2], turn, smooth.max())
