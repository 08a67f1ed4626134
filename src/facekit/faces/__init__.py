"""Faces in photos: detectors behind one protocol, five landmarks, the upright crop and the way back into the photo."""

from .alignment import MARGIN, Aligned, align_face, paste, roll, similarity, template
from .detectors import DETECTORS, Detector, Face, find_detector

__all__ = [
    "DETECTORS",
    "MARGIN",
    "Aligned",
    "Detector",
    "Face",
    "align_face",
    "find_detector",
    "paste",
    "roll",
    "similarity",
    "template",
]
