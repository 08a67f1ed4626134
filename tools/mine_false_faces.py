"""Find what the detector of a run takes for faces in pictures without any, for `train-detector second-look`.

    python tools/mine_false_faces.py runs/second labelled/train/faceless

Adds the places to the "false" ones of each picture in the faces.jsonl of the folder.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from facekit.data import face_boxes
from facekit.faces.neural import NeuralDetector
from facekit.faces.turned_search import look_slanted, look_turned
from facekit.storage import files, images

LEAST = 0.25  # the score from which a place teaches something

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=Path)
parser.add_argument("folder", type=Path, help="pictures without a face, and their faces.jsonl")
arguments = parser.parse_args()
torch.set_num_threads(1)

detector = NeuralDetector(arguments.run)
labels = arguments.folder / face_boxes.NAME
lines, count = [], 0


def found(picture):
    yield from detector.detect(picture, "every")
    for look in (look_turned, look_slanted):
        yield from look(lambda turned: detector.detect(turned, "every"), picture)


for row in map(json.loads, files.read_text(labels).splitlines()):
    if not row.get("faces"):
        picture = np.asarray(images.read(arguments.folder / row["file"]))
        places = [face for face in found(picture) if face.score >= LEAST]
        row["false"] = row.get("false", []) + [
            {"box": np.round(face.box, 1).tolist(), "landmarks": np.round(face.landmarks, 1).tolist()}
            for face in places
        ]
        count += len(places)
    lines.append(json.dumps(row))
files.write_text(labels, "\n".join(lines) + "\n")
print(f"{count} places in {len(lines)} pictures")
