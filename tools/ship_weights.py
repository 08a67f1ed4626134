"""Put the weights of a finished run among those that facekit ships: half precision, the card without local paths.

    python tools/ship_weights.py runs/anime anime --set data.root=selfie2anime-128

With `--mean-with` the weights are the mean of those of the run and of other saves of it: copies of its weights,
made while it trained.
A model card, src/facekit/weights/NAME.md, must be written by hand; a test looks for it.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import nn

from facekit.recipe_api import checkpoint
from facekit.storage import card

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=Path)
parser.add_argument("name")
parser.add_argument("--mean-with", type=Path, nargs="*", default=[], metavar="FILE", help="other saves of the same run")
parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the card")
arguments = parser.parse_args()
source = checkpoint.find_weights(arguments.run)
values = json.loads(checkpoint.read_tensors(source)[1][checkpoint.KEY])
values = card.merge(values, *(card.assignment(text) for text in arguments.set))
model = checkpoint.load_model(source)
saves = [model.nets.state_dict(), *(checkpoint.load_model(path).nets.state_dict() for path in arguments.mean_with)]
mean = {name: torch.stack([save[name].double() for save in saves]).mean(0) for name in saves[0]}
model.nets.load_state_dict(mean)
target = checkpoint.SHIPPED / f"{arguments.name}.safetensors"
checkpoint.save_model(target, nn.ModuleDict(dict(model.nets.items())), values, half=True)
checkpoint.load_model(target)
print(f"{target}: {target.stat().st_size / 1e6:.1f} MB\n{card.dump(values)}")
