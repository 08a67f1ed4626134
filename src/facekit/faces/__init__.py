"""Faces in photos: detectors, landmarks, upright crops, and pasting crops back."""

from .alignment import MARGIN, Aligned, align_face, paste, roll, similarity, template
from .detectors import DETECTORS, find_detector, find_faces
from .types import Detector, Face

__all__ = [
    "DETECTORS",
    "MARGIN",
    "Aligned",
    "Detector",
    "Face",
    "align_face",
    "find_detector",
    "find_faces",
    "paste",
    "roll",
    "similarity",
    "template",
]
