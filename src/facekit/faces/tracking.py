"""Faces followed through the frames of a film: which detections are one face, and where it is in every frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from .alignment import similarity, template
from .one_euro import both_ways
from .types import Face

GAP = 0.5  # s that a face may be missed and still be the same one
SHORTEST = 0.15  # s that a face must be there; shorter ones are false alarms
FADE = 0.2  # s in which a face comes in and goes out
OVERLAP = 0.25  # of boxes (intersection over union) from which they may be one face
NEAR = 0.35  # mean distance of landmarks, in box sides, up to which boxes may be one face
CUTOFF, BETA = 0.6, 6.0  # of the one-euro filter: Hz at rest, and Hz at a speed of 1 face side or rad per s


@dataclass
class FaceTrack:
    """One face over time: the numbers of the frames that it was found in, and where."""

    frames: list[int] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)

    def add(self, frame: int, face: Face) -> None:
        """Add the face of a later frame."""
        self.frames.append(frame)
        self.faces.append(face)

    @property
    def area(self) -> float:
        """The sum of its boxes' areas, in px."""
        return sum(_side(face) ** 2 for face in self.faces)


@dataclass(frozen=True)
class Placed:
    """Where a face is in one frame.

    `pose` is the middle (x, y) and the natural logarithm of the side of its upright square, in px, and how far it is
    turned, in rad clockwise. `opacity` (0 to 1) is less than 1 where it comes in or goes out.
    """

    pose: np.ndarray
    opacity: float = 1.0

    def matrix(self, size: int) -> np.ndarray:
        """Return the (2, 3) that takes px of the frame to px of a crop of `size` px."""
        x, y, side, turn = self.pose
        a, b = size * math.cos(turn) / math.exp(side), size * math.sin(turn) / math.exp(side)
        linear = np.array([[a, b], [-b, a]])
        return np.column_stack([linear, size / 2 - linear @ (x, y)])


def link(detections: Sequence[Sequence[Face]], times: np.ndarray, cuts: set[int]) -> list[FaceTrack]:
    """Return the faces of a film as tracks: `detections` and `times` (s) by frame, `cuts` the frames after a cut.

    Boxes that overlap most are joined first. Faces that are there for less than SHORTEST s are left out, unless the
    film is that short.
    """
    tracks: list[FaceTrack] = []
    seen: list[FaceTrack] = []
    for number, found in enumerate(detections):
        seen = [t for t in seen if number not in cuts and times[number] - times[t.frames[-1]] <= GAP]
        pairs = [(_likeness(t.faces[-1], face), i, j) for i, t in enumerate(seen) for j, face in enumerate(found)]
        left, new = set(range(len(seen))), set(range(len(found)))
        for likeness, i, j in sorted(pairs, reverse=True):
            if likeness > 0 and i in left and j in new:
                seen[i].add(number, found[j])
                left.remove(i)
                new.remove(j)
        begun = [FaceTrack([number], [found[j]]) for j in sorted(new)]
        tracks += begun
        seen += begun
    usual = float(np.median(np.diff(times))) if len(times) > 1 else math.inf
    shortest = min(SHORTEST, 0.9 * (times[-1] - times[0] + usual)) if len(times) else 0
    return [track for track in tracks if times[track.frames[-1]] - times[track.frames[0]] + usual >= shortest]


def _side(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return math.sqrt(max((x1 - x0) * (y1 - y0), 1e-6))


def _likeness(before: Face, after: Face) -> float:
    """Return how likely two boxes of neighbouring frames are one face: 0 (not at all) to 1."""
    (a0, b0, a1, b1), (c0, d0, c1, d1) = before.box, after.box
    inside = max(0.0, min(a1, c1) - max(a0, c0)) * max(0.0, min(b1, d1) - max(b0, d0))
    overlap = inside / (_side(before) ** 2 + _side(after) ** 2 - inside)
    apart = np.linalg.norm(before.landmarks - after.landmarks, axis=1).mean() / max(_side(before), _side(after))
    return (overlap + max(0.0, 1 - apart)) / 2 if overlap >= OVERLAP or apart <= NEAR else 0.0


def place(
    tracks: Sequence[FaceTrack], times: np.ndarray, cuts: set[int], margin: float, every: bool, smooth: bool = True
) -> list[list[Placed]]:
    """Return where faces are in each frame, framed by `margin`; gaps are filled, with `smooth` jitter is taken out.

    Without `every` there is one face at a time: of those that are there, that which is largest over its whole track.
    """
    out: list[list[Placed]] = [[] for _ in times]
    taken = np.zeros(len(times), bool)
    for track in sorted(tracks, key=lambda track: -track.area):
        numbers = np.arange(track.frames[0], track.frames[-1] + 1)
        poses = _poses(track, numbers, times, margin, smooth)
        shown = np.ones(len(numbers), bool) if every else ~taken[numbers]
        taken[numbers] = True
        for first, last in _runs(shown):
            for i in range(first, last + 1):
                opacity = _opacity(numbers[first], numbers[i], numbers[last], times, cuts)
                out[numbers[i]].append(Placed(poses[i], opacity))
    return out


def _poses(track: FaceTrack, numbers: np.ndarray, times: np.ndarray, margin: float, smooth: bool) -> np.ndarray:
    """Return the pose of a track in each frame of `numbers`, as `Placed` has it."""
    frame = template(1, margin)
    poses = np.array([_pose(similarity(face.landmarks, frame)) for face in track.faces])
    poses[:, 3] = np.unwrap(poses[:, 3])
    at = times[track.frames]
    if smooth:
        unit = np.array([np.exp(np.median(poses[:, 2]))] * 2 + [1, 1])  # so that speeds are in faces
        poses = both_ways(poses / unit, at, cutoff=CUTOFF, beta=BETA) * unit
    return np.stack([np.interp(times[numbers], at, column) for column in poses.T], 1)


def _pose(matrix: np.ndarray) -> tuple[float, float, float, float]:
    """Return the pose of the (2, 3) that takes px of a frame to an upright square of side 1."""
    linear = matrix[:, :2]
    x, y = np.linalg.solve(linear, 0.5 - matrix[:, 2])
    return x, y, -math.log(math.hypot(*linear[0])), math.atan2(linear[0, 1], linear[0, 0])


def _runs(shown: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and last place of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], shown.astype(int), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _opacity(first: int, here: int, last: int, times: np.ndarray, cuts: set[int]) -> float:
    """Return how much of a face shows in a frame of its run; it stands fully at the film's ends and at cuts."""
    opacity = 1.0
    if first > 0 and first not in cuts:
        opacity = min(opacity, (times[here] - times[first - 1]) / FADE)
    if last + 1 < len(times) and last + 1 not in cuts:
        opacity = min(opacity, (times[last + 1] - times[here]) / FADE)
    return float(opacity)


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two thumbnails (see `thumbnail`) of neighbouring frames are of different shots."""
    return float(np.abs(before - after).mean()) > 40


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return a frame (uint8 HxWx3) as the mean colours of 16 x 16 parts of it, float32, to be compared."""
    return cv2.resize(pixels, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
