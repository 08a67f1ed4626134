"""What facekit's loop costs: the processor time of a training step over that of the same step in plain PyTorch.

Both sides train copies of the same small nets on the same losses, in one process on one thread, and take steps in turn;
the plain side is `plain_steps.py`. With nets this small Python is most of a step, so the ratio bounds what the loop
adds to a step on a GPU, too. `--set run.recompute=true` and the like measure other settings than the defaults.
"""

import argparse
import copy
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from machine import machine
from official import LABELS, learner_of, take_step
from plain_steps import STEPS
from safetensors.torch import save_file

NETS = {"width": 8, "d_width": 8}
METHODS = {  # px, batch, parameters beside the widths, steps that make one
    "cyclegan": (32, 2, {"pool": 0}, 1),
    "ugatit-light": (96, 1, {}, 1),
    "ugatit": (96, 1, {}, 1),
    "stargan": (64, 2, {"labels": LABELS}, 5),
    "cartoongan": (32, 2, {"pool": 0, "warmup": 0, "layer": "conv2_1"}, 1),
}


def sides(method: str, changes: list[str], vgg: str, torch_norms: bool):
    """Return what takes a step of facekit and what takes a plain one."""
    from facekit.nets.blocks import InstanceNorm2d
    from facekit.recipe_api.registry import find

    size, batch, own, cycle = METHODS[method]
    kind, preset = find(method)
    params = {**NETS, **own, **({"vgg": vgg} if method == "cartoongan" else {})}
    learner, images = learner_of(kind, preset, method, size, batch, params, changes=changes)
    nets, helpers = (
        copy.deepcopy(part).to(memory_format=torch.contiguous_format) for part in (learner.nets, learner.helpers)
    )
    nets.requires_grad_(True)
    if torch_norms:
        for module in nets.modules():
            if isinstance(module, InstanceNorm2d):
                module.__class__ = torch.nn.InstanceNorm2d
    plain = STEPS[method](nets, helpers, {"lr": 2e-4, "betas": (0.5, 0.999)})
    images = {name: x.contiguous() for name, x in images.items()}

    def ours() -> None:
        for _ in range(cycle):
            take_step(learner, images)

    def theirs() -> None:
        for number in range(cycle):
            plain(images, number)

    return ours, theirs


def seconds(step) -> float:
    """Return the processor time of a step."""
    start = time.process_time()
    step()
    return time.process_time() - start


def main() -> None:
    """Print a row for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)}; all if absent")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of our card")
    parser.add_argument("--torch-norms", action="store_true", help="the plain side normalises with torch's own layers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    from facekit.nets.vgg import VGG

    print(f"{machine()}, torch {torch.__version__}, one thread; medians of {options.steps} steps\n")
    print("| method | px | batch | facekit, ms | plain, ms | ratio |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        vgg = str(Path(folder) / "vgg.safetensors")
        save_file(VGG("vgg19", ("conv2_1",)).state_dict(), vgg)
        for method in options.methods or METHODS:
            ours, theirs = sides(method, options.set, vgg, options.torch_norms)
            for _ in range(3):  # the first steps prepare what later ones use
                ours(), theirs()
            pairs = [(seconds(ours), seconds(theirs)) for _ in range(options.steps)]
            mine, plain = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
            size, batch, *_ = METHODS[method]
            print(f"| {method} | {size} | {batch} | {mine:.0f} | {plain:.0f} | {mine / plain:.2f} |", flush=True)


if __name__ == "__main__":
    main()
