"""Images/s of `facekit translate` and of the public AnimeGANv2 PyTorch test loop: the same weights and photos, in turn.

The path is a checkout of bryandlee/animegan2-pytorch that has its `model.py` and `test.py`. Random weights of its own
generator are given to both; photos are brought to one size before. Both write the file type of the photos they are
given, start-up counts, and each run is a process of its own.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("official", type=Path)
parser.add_argument("--photos", type=Path, required=True)
parser.add_argument("--size", type=int, default=256)
parser.add_argument("--limit", type=int, default=60)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--suffix", choices=["png", "jpg"], default="png")

WEIGHTS = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from model import Generator
from facekit.recipe_api import checkpoint as zoo
from facekit.nets.animegan import AnimeGenerator2, load_port
from pathlib import Path
torch.manual_seed(0)
theirs, ours = Generator(), AnimeGenerator2()
assert load_port(ours, theirs.state_dict()) is None
torch.save(theirs.state_dict(), sys.argv[2])
params = {"align_corners": False}
card = {"recipe": "animegan2", "params": params, "data": {"size": int(sys.argv[4])}}
zoo.save_model(Path(sys.argv[3]), torch.nn.ModuleDict({"ab": ours}), card)
"""


def run(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its wall and processor seconds and its peak memory in MiB."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    took = time.perf_counter() - start
    assert status == 0, command
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def photos_of(folder: Path, out: Path, size: int, limit: int, suffix: str) -> int:
    """Bring the first photos of a folder to a size; return how many there are."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for number, path in enumerate(itertools.islice(found, limit)):
        image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        image.save(out / f"{number:05d}.{suffix}")
    return min(limit, len(found))


def pixels(path: Path) -> np.ndarray:
    """Read an image."""
    return np.asarray(Image.open(path).convert("RGB"), int)


def main() -> None:
    """Run both in turn and print what they take."""
    arguments = parser.parse_args()
    official, suffix = arguments.official.resolve(), arguments.suffix
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "in").mkdir()
        count = photos_of(arguments.photos, place / "in", arguments.size, arguments.limit, suffix)
        theirs, ours = place / "theirs.pt", place / "ours.safetensors"
        subprocess.run([sys.executable, "-c", WEIGHTS, official, theirs, ours, str(arguments.size)], check=True)
        public = [sys.executable, str(official / "test.py"), "--device", "cpu", "--checkpoint", str(theirs)]
        public += ["--input_dir", str(place / "in"), "--output_dir"]
        facekit = [sys.executable, "-m", "facekit", "translate", "--weights", str(ours), "--no-align", "--quiet"]
        facekit += ["--suffix", suffix, str(place / "in")]
        figures = []
        for number in range(arguments.rounds):
            pair = [
                run([*command, str(place / f"{name}{number}")])
                for name, command in (("theirs", public), ("ours", facekit))
            ]
            figures.append(pair)
        sizes = [sum(p.stat().st_size for p in (place / f"{n}0").glob(f"*.{suffix}")) for n in ("theirs", "ours")]
        worst = max(
            np.abs(pixels(path) - pixels(place / "ours0" / path.name)).max() for path in (place / "theirs0").glob("*.*")
        )
    print(machine())
    print(
        f"{count} photos of {arguments.size} px ({suffix}), medians of {arguments.rounds} pairs by turns, with start-up"
    )
    for side, name in enumerate(("public loop", "facekit")):
        wall, cpu, peak = (statistics.median(pair[side][what] for pair in figures) for what in range(3))
        print(
            f"{name}: {count / wall:.2f} images/s, {cpu / count:.3f} processor seconds an image, peak {peak:.0f} MiB, "
            f"{sizes[side] / count / 1024:.0f} KiB a file"
        )
    for what, name in enumerate(("wall time", "processor time")):
        ratios = [public[what] / ours[what] for public, ours in figures]
        print(f"public / facekit, {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"largest difference of a pixel: {worst} of 255")


if __name__ == "__main__":
    main()
