"""Faces in photos and drawings: detectors, landmarks, upright crops, and pasting crops back."""

from .alignment import MARGIN, Aligned, align_face, cut_face, paste, roll, similarity, template, warp
from .detectors import DETECTORS, find_detector, find_faces
from .framing import TEMPLATES, face_warp
from .types import Detector, Face

__all__ = [
    "DETECTORS",
    "MARGIN",
    "TEMPLATES",
    "Aligned",
    "Detector",
    "Face",
    "align_face",
    "cut_face",
    "face_warp",
    "find_detector",
    "find_faces",
    "paste",
    "roll",
    "similarity",
    "template",
    "warp",
]
