"""Start-up: `facekit --help`, and `facekit translate` of one photo over `import torch` alone, by turns.

PHOTO is a photo with a face: translated with --no-align as it is, and with the face found by the default detector.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from machine import machine

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photo", nargs="?", help="without it, --help only")
parser.add_argument("--rounds", type=int, default=10)
arguments = parser.parse_args()


def seconds(*command: str) -> tuple[float, float]:
    """Run a command; return its wall and its processor time."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, command
    return time.perf_counter() - start, used.ru_utime + used.ru_stime


with tempfile.TemporaryDirectory() as folder:
    translate = ["-m", "facekit", "translate", str(arguments.photo), f"{folder}/out.png", "--force"]
    commands = {"python alone": ["-c", ""], "facekit --help": ["-m", "facekit", "--help"]}
    if arguments.photo:
        commands["import torch"] = ["-c", "import torch"]
        commands["translate --no-align"] = [*translate, "--no-align"]
        commands["translate"] = translate
    rounds = [{name: seconds(*command) for name, command in commands.items()} for _ in range(arguments.rounds + 1)][1:]
print(machine())
print(f"medians of {arguments.rounds} rounds, wall and processor seconds")
for name in commands:
    wall, processor = (statistics.median(taken[name][kind] for taken in rounds) for kind in (0, 1))
    print(f"{name}: {wall:.2f} and {processor:.2f}")
for name in ("translate --no-align", "translate") if arguments.photo else ():
    over = [[taken[name][kind] - taken["import torch"][kind] for taken in rounds] for kind in (0, 1)]
    print(f"{name} over import torch: {statistics.median(over[0]):.2f} and {statistics.median(over[1]):.2f}")
