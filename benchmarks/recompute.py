"""What recomputing activations costs and saves: processor time and peak memory of a training step, with and without.

Each measurement is a process of its own on one thread; memory is the peak beyond the libraries. Widths are the
recipes' own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine
from official import LABELS, learner_of, memory, resident, take_step

METHODS = {  # px, batch, parameters, steps that make one
    "cyclegan": (128, 1, {"blocks": 6, "pool": 0}, 1),
    "ugatit-light": (128, 1, {}, 1),
    "stargan": (128, 2, {"labels": LABELS}, 5),
    "cartoongan": (128, 2, {"pool": 0, "warmup": 0}, 1),
    "unit": (128, 1, {}, 1),
}


def measure(method: str, changes: list[str], steps: int, vgg: str) -> None:
    """Print the seconds of each step and the memory as JSON."""
    import torch

    from facekit.recipe_api.registry import find
    from facekit.training import loop  # noqa: F401

    torch.set_num_threads(1)
    libraries = resident()
    size, batch, params, cycle = METHODS[method]
    kind, preset = find(method)
    params = {**params, **({"vgg": vgg} if method == "cartoongan" else {})}
    state, images = learner_of(kind, preset, method, size, batch, params, changes=changes)
    seconds = []
    for _ in range(steps + 1):
        start = time.process_time()
        for _ in range(cycle):
            take_step(state, images)
        seconds.append(time.process_time() - start)
    found = memory(libraries)
    print(json.dumps({"seconds": seconds[1:], "memory": found["peak"] - found["libraries"]}))


def main() -> None:
    """Print a row for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)}; all if absent")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=argparse.SUPPRESS)
    parser.add_argument("--vgg", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.set:
        measure(options.methods[0], options.set, options.steps, options.vgg)
        return
    import torch
    from torchvision.models import vgg19

    print(f"{machine()}, torch {torch.__version__}, one thread; medians of {options.steps} steps\n")
    print("| method | px | batch | kept, s | recomputed, s | ratio | kept, MiB | recomputed, MiB | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        vgg = str(Path(folder) / "vgg19.pth")
        torch.save(vgg19(weights=None).state_dict(), vgg)
        for method in options.methods or METHODS:
            found = []
            for value in ("false", "true"):
                own = [method, "--steps", str(options.steps), "--vgg", vgg, "--set", f"run.recompute={value}"]
                done = subprocess.run([sys.executable, __file__, *own], capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
            plain, lean = (statistics.median(side["seconds"]) for side in found)
            much, less = (side["memory"] for side in found)
            size, batch, *_ = METHODS[method]
            row = f"| {method} | {size} | {batch} | {plain:.2f} | {lean:.2f} | {lean / plain:.2f} "
            print(f"{row}| {much:.0f} | {less:.0f} | {less / much:.2f} |", flush=True)


if __name__ == "__main__":
    main()
