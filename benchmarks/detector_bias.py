"""Whether face detectors serve people alike: what they find, and where they see landmarks, by sex, race and age.

Photos are those of UTKFace, whose file names say AGE_SEX_RACE_DATE as that data set labels people: up to --most of each
sex and race. Each face is looked for at its own size (128 px) turned at random, and at --small px, upright, in front of
a background: there differences show, because plain large faces are found whoever they are. A second detector says
where faces and landmarks are. Most of these photos were among the 13,819 that the shipped detector was trained on.
"""

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from machine import machine
from PIL import Image
from utkface import chosen

from facekit.data import backgrounds
from facekit.faces import find_detector
from facekit.faces.trial import landmark_error, same_face
from facekit.storage import images

CANVAS = 320  # px
COLUMNS = ("turned", "small", "small and dark", "landmark error, %")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("photos", type=Path, help="UTKFace: AGE_SEX_RACE_DATE.jpg, in sub-folders or not")
parser.add_argument("--detector", default="facekit", help="as of `facekit align`")
parser.add_argument("--teacher", default="insightface", help="the detector that says where the faces are")
parser.add_argument("--model-root", type=Path, help="its models")
parser.add_argument("--most", type=int, default=40, help="photos of each sex and race")
parser.add_argument("--small", type=float, default=16, help="px of the small faces")
arguments = parser.parse_args()
torch.set_num_threads(1)


def placed(photo: np.ndarray, size: float, turned: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a scene of CANVAS px with the photo in its middle, `size` as wide and turned; and the matrix [2, 3]."""
    canvas = Image.fromarray(backgrounds.noise(np.random.default_rng(seed), CANVAS))
    scale, angle, middle = size / photo.shape[1], math.radians(turned), CANVAS / 2
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.column_stack([linear, middle - linear @ (np.array(photo.shape[1::-1]) / 2)])
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2].ravel()
    small = Image.fromarray(photo)
    whole = Image.new("L", small.size, 255)
    shown = [
        part.transform((CANVAS,) * 2, Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
        for part in (small, whole)
    ]
    canvas.paste(shown[0], mask=shown[1])
    return np.asarray(canvas), matrix


def sees(picture: np.ndarray, box: np.ndarray, matrix: np.ndarray) -> bool:
    """Whether the detector finds a face of a photo in the scene where it was placed."""
    corners = np.array([[x, y, 1] for x in box[::2] for y in box[1::2]]) @ matrix.T
    label = np.concatenate([corners.min(0), corners.max(0)])
    return any(same_face(face.box, label) for face in detector.detect(picture, "every"))


detector = find_detector(arguments.detector, arguments.model_root)
teacher = find_detector(arguments.teacher, arguments.model_root)
found: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
missed = 0
for number, (path, groups) in enumerate(chosen(arguments.photos, arguments.most).items()):
    photo = np.asarray(images.read(path))
    labels = teacher.detect(photo, "every")
    if not labels:
        missed += 1
        continue
    label = max(labels, key=lambda face: face.box[2] - face.box[0])
    box = np.array(label.box)
    width = photo.shape[1] * arguments.small / (box[2] - box[0])
    shrunk = np.asarray(Image.fromarray(photo).resize((max(1, round(width)),) * 2, Image.Resampling.LANCZOS))
    ratio = shrunk.shape[1] / photo.shape[1]
    row = []
    for picture, size, turned, edges in (
        (photo, photo.shape[1], np.random.default_rng(number).uniform(-180, 180), box),
        (shrunk, shrunk.shape[1], 0.0, box * ratio),
        ((shrunk * 0.35).astype(np.uint8), shrunk.shape[1], 0.0, box * ratio),
    ):
        scene, matrix = placed(picture, size, turned, number)
        row.append(100.0 * sees(scene, edges, matrix))
    own = [face for face in detector.detect(photo, "every") if same_face(face.box, box)]
    row.append(100 * landmark_error(own[0].landmarks, label.landmarks) if own else math.nan)
    for kind, group in groups.items():
        found[kind, group].append(row)

print(machine())
print(f"{detector.name} against {teacher.name}, which saw no face in {missed} photos; small: {arguments.small:g} px\n")
print("| | photos | " + " | ".join(COLUMNS) + " |")
print("|---" * (len(COLUMNS) + 2) + "|")
for kind in dict.fromkeys(kind for kind, _ in found):
    means = []
    for (other, group), rows in sorted(found.items()):
        if other == kind:
            values = np.array(rows)
            means.append([*values[:, :3].mean(0), np.nanmedian(values[:, 3])])
            print(f"| {group} | {len(rows)} | " + " | ".join(f"{value:.1f}" for value in means[-1]) + " |")
    print("| **gap** | | " + " | ".join(f"{value:.1f}" for value in np.ptp(means, axis=0)) + " |")
