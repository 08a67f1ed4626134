"""Put the weights of a finished run among those that facekit ships: half precision, the card without local paths.

    python tools/ship_weights.py runs/anime anime --set data.root=selfie2anime-128

A model card, src/facekit/weights/NAME.md, must be written by hand; a test looks for it.
"""

import argparse
import json
from pathlib import Path

from torch import nn

from facekit.recipe_api import checkpoint
from facekit.storage import card

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=Path)
parser.add_argument("name")
parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the card")
arguments = parser.parse_args()
source = checkpoint.find_weights(arguments.run)
values = json.loads(checkpoint.read_tensors(source)[1][checkpoint.KEY])
values = card.merge(values, *(card.assignment(text) for text in arguments.set))
model = checkpoint.load_model(source)
target = checkpoint.SHIPPED / f"{arguments.name}.safetensors"
checkpoint.save_model(target, nn.ModuleDict(dict(model.nets.items())), values, half=True)
checkpoint.load_model(target)
print(f"{target}: {target.stat().st_size / 1e6:.1f} MB\n{card.dump(values)}")
