"""Time to build the nets of a recipe for loading, with and without leaving out their first weights.

python benchmarks/load_model.py            # cyclegan, each way in a process of its own
"""

import contextlib
import subprocess
import sys
import time

import torch

from facekit.recipe_api import checkpoint, registry

if len(sys.argv) > 1:
    kind, _ = registry.find("cyclegan")
    recipe = kind({}, 256)
    start = time.perf_counter()
    with torch.device("meta"), checkpoint.Blueprint(10**6) if sys.argv[1] == "skip" else contextlib.nullcontext():
        recipe.nets()
    print(f"{sys.argv[1]:6} {time.perf_counter() - start:.2f} s")
else:
    for way in ("skip", "draw"):
        subprocess.run([sys.executable, __file__, way], check=True)
