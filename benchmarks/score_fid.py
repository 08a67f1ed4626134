"""FID and KID of two folders: `facekit score-fid` against clean-fid's compute_fid and compute_kid, a ratio in one run.

Both are processes of their own, start-up included, and take turns; both read the same files and the same weights.
clean-fid is called as its users call it on a CPU: mode "clean", its own number of workers and its own batch size.
facekit keeps no features. A second table is of the mathematics alone, on random features.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

NAME = "inception-2015-12-05.pt"


def write_weights(path: Path, photos: list[Path]) -> None:
    """Write random weights laid out as clean-fid's file: `layers` makes 2048 features; norms fitted to some photos."""
    import numpy as np
    import torch
    import torchvision
    from PIL import Image
    from torch import nn

    from facekit.scoring import features

    class Weights(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers = layers

        def forward(self, x):
            return self.layers(x)

    torch.manual_seed(0)
    net = torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False)
    layers = nn.Sequential(
        *[part for name, part in net.named_children() if name not in ("dropout", "fc")], nn.Flatten()
    )
    for part in layers.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    pixels = np.stack([features.pixels(Image.open(photo).convert("RGB"), 299) for photo in photos])
    with torch.no_grad():
        layers.train()((torch.from_numpy(pixels) - 128) / 128)
    torch.jit.script(Weights(layers.eval())).save(str(path))


def clean_fid(out: str, reference: str, weights: str) -> None:
    """Print clean-fid's FID and KID."""
    import torch
    from cleanfid import features, fid

    net, place = features.InceptionV3W, torch.device("cpu")
    features.InceptionV3W = lambda path, download, resize_inside: net(str(Path(weights).parent), False, resize_inside)
    found = [float(metric(out, reference, device=place)) for metric in (fid.compute_fid, fid.compute_kid)]
    print(json.dumps(found))


def run(command: list[str]) -> tuple[str, dict[str, float]]:
    """Run a command; returns what it says last, and its seconds, CPU seconds and the MiB of its largest process."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=said, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - start
        said.seek(0)
        errors.seek(0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read()[-2000:]}")
        spent = {"seconds": took, "CPU seconds": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1024}
        return said.read().strip().splitlines()[-1], spent


def tell(title: str, spent: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians of both sides, and the ratio of each round's two."""
    print(f"\n| {title} | clean-fid | facekit | facekit / clean-fid |\n|---|---|---|---|")
    for key in spent["facekit"][0]:
        ours, theirs = ([one[key] for one in spent[side]] for side in ("facekit", "clean-fid"))
        ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
        told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        unit = ", MiB, largest process" if key == "peak" else ""
        print(f"| {key}{unit} | {statistics.median(theirs):.1f} | {statistics.median(ours):.1f} | {told} |")


def folders(arguments: argparse.Namespace) -> None:
    """Compare the two commands on two folders."""
    with tempfile.TemporaryDirectory() as place:
        sides = []
        for name, folder in (("out", arguments.out), ("reference", arguments.reference)):
            (Path(place) / name).mkdir()
            paths = sorted(path for path in folder.iterdir() if path.is_file())[: arguments.limit]
            sides.append([shutil.copy(path, Path(place) / name) for path in paths])
        out, reference = (str(Path(place) / name) for name in ("out", "reference"))
        weights = arguments.weights or Path(place) / NAME
        if not arguments.weights:
            write_weights(weights, [*sides[0][:8], *sides[1][:8]])
        commands = {
            "clean-fid": [sys.executable, __file__, out, reference, "--weights", str(weights), "--only-clean-fid"],
            "facekit": [sys.executable, "-m", "facekit", "score-fid", out, reference, "--features", str(weights)],
        }
        commands["facekit"] += ["--no-cache", "--json", "--quiet"]
        spent: dict[str, list[dict[str, float]]] = {side: [] for side in commands}
        said = {}
        for _ in range(arguments.rounds):
            for side, command in commands.items():
                said[side], used = run(command)
                spent[side].append(used)
    counts = " against ".join(str(len(side)) for side in sides)
    kind = "given weights" if arguments.weights else "random weights"
    tell(f"FID and KID of {counts} images, {kind}, {arguments.rounds} rounds", spent)
    fid, kid = json.loads(said["clean-fid"])
    scores = json.loads(said["facekit"])
    for name, theirs in (("FID", fid), ("KID", kid)):
        ours = scores[f"{name}-clean"]
        print(f"{name}: clean-fid {theirs:.9g}, facekit {ours:.9g}, {abs(ours - theirs) / abs(theirs):.1e} apart")
    if max(map(len, sides)) > 1000 or len(sides[0]) != len(sides[1]):
        print("KID is of random subsets here, and clean-fid's are not seeded")


def mathematics(rounds: int, rows: int) -> None:
    """Compare the scores of random features."""
    import numpy as np
    from cleanfid import fid

    from facekit.scoring import fid_kid

    random = np.random.default_rng(0)
    mix = random.normal(size=(2048, 2048)).astype(np.float32) / 45
    x, y = (np.abs(random.normal(size=(rows, 2048)).astype(np.float32) @ mix + shift) for shift in (0, 0.1))
    works = {
        "clean-fid": lambda: (fid.fid_from_feats(x, y), fid.kernel_distance(x, y)),
        "facekit": lambda: tuple(fid_kid.compare(x, y, "2048").values())[:2],
    }
    spent: dict[str, list[dict[str, float]]] = {side: [] for side in works}
    found = {}
    for _ in range(rounds):
        for side, work in works.items():
            start, cpu = time.perf_counter(), time.process_time()
            found[side] = work()
            used = {"seconds": time.perf_counter() - start, "CPU seconds": time.process_time() - cpu}
            spent[side].append(used)
    tell(f"FID and KID of {rows} x 2048 features, twice, {rounds} rounds", spent)
    for name, theirs, ours in zip(("FID", "KID"), *found.values(), strict=True):
        print(f"{name}: clean-fid {theirs:.9g}, facekit {ours:.9g}, {abs(ours - theirs) / abs(theirs):.1e} apart")


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--limit", type=int, help="images of each folder")
    parser.add_argument("--weights", type=Path, help=f"clean-fid's {NAME}; random weights of that layout if absent")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5000, help="random features for the mathematics; 0 leaves it out")
    parser.add_argument("--only-clean-fid", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_clean_fid:
        clean_fid(str(arguments.out), str(arguments.reference), str(arguments.weights))
        return
    print(machine())
    folders(arguments)
    if arguments.rows:
        mathematics(arguments.rounds, arguments.rows)


if __name__ == "__main__":
    main()
