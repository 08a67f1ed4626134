"""Fit the second look of a `train-detector` run to labelled pictures: the landmarks of upright faces, and their score.

    python tools/fit_second_look.py runs/detector labelled/train runs/detector-fitted

Every folder of the labelled pictures counts equally. The rest of the weights stays as it is. Next:
tools/calibrate_detector.py.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from facekit.data import backgrounds
from facekit.data.face_boxes import find_faces
from facekit.data.face_squares import SquareReader
from facekit.faces import second_look
from facekit.nets.face_points import FRAMED, SIDE
from facekit.recipe_api import checkpoint
from facekit.recipes.detector import Detector
from facekit.storage import images

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=Path)
parser.add_argument("labelled", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--squares", type=int, default=12000)
arguments = parser.parse_args()
torch.set_num_threads(1)

tensors, metadata = checkpoint.read_tensors(checkpoint.find_weights(arguments.run))
values = json.loads(metadata[checkpoint.KEY])
nets = nn.ModuleDict(Detector(values["params"]).nets())
missing, _ = nets.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
print(f"fitted anew: {', '.join(missing) or 'points.upright'}")
faces = find_faces(arguments.labelled)
sets = defaultdict(list)
for path in faces:
    sets[path.parent].append(path)
faceless = [path for path, rows in faces.items() if not len(rows)]
grounds = (*backgrounds.bundled(), *(backgrounds.stored(images.read(path)) for path in faceless))
reader = SquareReader("a", faces, grounds, FRAMED)


def squares(count):
    rng = np.random.default_rng(0)
    order = [[paths[i] for i in rng.permutation(len(paths))] for paths in sets.values()]
    for index in range(count):
        paths = order[index % len(order)]
        sample = reader.read(paths[index // len(order) % len(paths)], SIDE)
        yield reader.present(sample, rng, SIDE, True, lambda known=sample: known)


second_look.fit(nets["points"], squares(arguments.squares))
arguments.out.mkdir(parents=True, exist_ok=True)
values["made"] = {**values.get("made", {}), "second_look": {"squares": arguments.squares}}
checkpoint.save_model(arguments.out / checkpoint.FILE, nets, values)
