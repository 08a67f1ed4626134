"""Calibrate the scores of a `train-detector` run on labelled pictures that it was not trained on.

    python tools/calibrate_detector.py runs/detector labelled/test runs/detector-calibrated

The pictures are shown whole, and in composed scenes with small, turned and hidden faces. Half of the pictures fit the
two numbers, the other half prints how often a score is right. tools/ship_weights.py ships the result.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from facekit.data import backgrounds
from facekit.data.face_boxes import find_faces
from facekit.data.face_scenes import SceneReader
from facekit.faces import calibration
from facekit.faces.neural import NeuralDetector
from facekit.nets.detector_file import folded
from facekit.recipe_api import checkpoint
from facekit.recipes.detector import Detector

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=Path)
parser.add_argument("labelled", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--limit", type=int, default=400, help="pictures, and as many scenes")
arguments = parser.parse_args()
torch.set_num_threads(1)

tensors, metadata = checkpoint.read_tensors(checkpoint.find_weights(arguments.run))
values = json.loads(metadata[checkpoint.KEY])
reader = SceneReader("a", find_faces(arguments.labelled), tuple(backgrounds.bundled()))
paths = list(reader.faces)
paths = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))[: arguments.limit]]
samples = [reader.read(path, 256) for path in paths]


def nets(weights):
    made = nn.ModuleDict(Detector(values["params"]).nets())
    made.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return made


def detector(weights):
    made = nets(weights)
    return NeuralDetector(nets=(folded(made["net"]), folded(made["points"])))


def pictures(part):
    finder, mine = part
    rng = np.random.default_rng(1)
    for sample in mine:
        yield finder.detect(sample["a"], "every"), sample["a_faces"]
    for sample in mine:
        scene = reader.present(sample, rng, 320, True, lambda: mine[int(rng.integers(len(mine)))])
        yield finder.detect(scene["a"], "every"), scene["a_faces"]


one, other = samples[::2], samples[1::2]
scale, shift = calibration.fit(*calibration.judged(pictures((detector(tensors), one))))
print(f"logits x {scale:.3f} {shift:+.3f}")
for layer, row in (("net.head", 0), ("points.upright", -1)):  # a face's score is the mean of both looks'
    tensors = calibration.applied(tensors, scale, shift, layer, row)
print("score        faces  mean score  right")
for low, high, count, mean, right in calibration.table(*calibration.judged(pictures((detector(tensors), other)))):
    print(f"{low:.2f}-{high:.2f}  {count:6d}  {mean:10.3f}  {right:.3f}")
arguments.out.mkdir(parents=True, exist_ok=True)
values["made"] = {**values.get("made", {}), "calibration": {"scale": round(scale, 4), "shift": round(shift, 4)}}
checkpoint.save_model(arguments.out / checkpoint.FILE, nets(tensors), values)
