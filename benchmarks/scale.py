"""Folder commands on ever more images: seconds and peak memory of the first half, the second half and a no-op rerun.

The images are hard links to 20 small pictures. `map` is folder_map with work that costs nothing: what facekit itself
takes for each image. `train` and `labels-K` go up to the first batch of a training on two folders, or on K folders of
labels, twice: the second time headers come from the cache. `packed` is `train` on the same images in shards. Their
seconds and memory are those beyond `import torch`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image

SOURCES = 20

MAP = """
import sys
from pathlib import Path
from facekit.storage.folder import open_source, output_names
from facekit.storage.folder_map import folder_map
from facekit.storage.manifest import Output
source, out = map(Path, sys.argv[1:3])
limit = int(sys.argv[4]) if len(sys.argv) > 3 else None
found = open_source(source, out)
names = output_names(found)
work = lambda one: [Output(names[one.name], b"x" * 100)]
folder_map("map", found, out, {"facekit": 1, "command": "map"}, work, names=names, processes=True, limit=limit)
"""
START = """
import json, resource, sys, time
import torch
from facekit.training import plan, run
def now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.process_time(), used.ru_maxrss / 1024
(seconds, memory), root = now(), sys.argv[1]
recipe = "classifier" if sys.argv[2] == "labels" else "cyclegan"
values = {"recipe": recipe, "data": {"root": root, "size": 32, "holdout": 1}, "run": {"steps": 1}}
made = plan.make_plan([values], "scale")
batches = run.make_batches(made, torch.device("cpu"))
batches(0)
print(json.dumps([now()[0] - seconds, now()[1] - memory]))
"""
STARTS = ("train", "packed", "labels-10", "labels-100", "labels-1000")
COMMANDS = {
    "map": [sys.executable, "-c", MAP],
    "smooth-edges": [sys.executable, "-m", "facekit", "smooth-edges", "-q"],
    "clean": [sys.executable, "-m", "facekit", "clean", "-q", "--min-size", "16"],
}


def fill(folder: Path, count: int, names: list[str]) -> None:
    """Make `count` images, all links to a few, in folders of these names."""
    originals = folder / "originals"
    originals.mkdir(parents=True)
    for seed in range(SOURCES):
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((32, 32)).save(originals / f"{seed}.png")
    tops = [folder / "in" / name for name in names]
    for top in tops:
        top.mkdir(parents=True)
    for index in range(count):
        os.link(originals / f"{index % SOURCES}.png", tops[index % len(tops)] / f"{index:07d}.png")


def timed(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its seconds, its seconds of processor time and its peak memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def starts(name: str, count: int, folder: Path) -> None:
    """Print what the first and the second start of a training take up to the first batch."""
    kind, _, labels = name.partition("-")
    fill(folder, count, [f"{k:04d}" for k in range(int(labels))] if labels else ["trainA", "trainB"])
    around, root = {**os.environ, "FACEKIT_CACHE": str(folder / "cache")}, folder / "in"
    if kind == "packed":
        pack = [sys.executable, "-m", "facekit", "pack", "-q", str(root), str(folder / "shards")]
        print(f"pack {count:,}: {timed(pack)[1]:.1f} s used")
        root = folder / "shards"
    for title in ("first", "second"):
        command = [sys.executable, "-c", START, str(root), kind]
        said = subprocess.run(command, env=around, check=True, capture_output=True, text=True).stdout
        used, memory = json.loads(said.splitlines()[-1])
        print(
            f"{name} {count:>7,} {title:11} {used:7.1f} s used  {1e6 * used / count:.0f} us an image  {memory:5.0f} MiB"
        )


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("commands", nargs="*", default=["map"], help=", ".join([*COMMANDS, *STARTS]))
parser.add_argument("--counts", default="1000,10000,100000")
arguments = parser.parse_args()
print(machine())
for name in arguments.commands:
    for count in map(int, arguments.counts.split(",")):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if name in STARTS:
                starts(name, count, folder)
                continue
            fill(folder, count, [""])
            command = [*COMMANDS[name], str(folder / "in"), str(folder / "out")]
            more = ["--workers", "1"] if name != "map" else []
            limit = ["--limit", str(count // 2)]
            for title, extra, done in (
                ("first half", limit, count // 2),
                ("second half", [], count // 2),
                ("no-op", [], count),
            ):
                seconds, used, memory = timed([*command, *extra, *more])
                each = f"{1e6 * used / done:.0f} us of processor time an image"
                print(f"{name} {count:>7,} {title:11} {seconds:7.1f} s  {used:7.1f} s used  {each}  {memory:5.0f} MiB")
