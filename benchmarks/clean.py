"""`facekit clean` on many images: time, memory, pairs compared, and how many planted copies it finds.

The images of the given folders, and as many copies as are missing to --count: smaller by up to a fifth, as JPEG of
quality 50 to 90; every fifth is a byte-for-byte copy.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine, peak_memory

from facekit.storage import images
from facekit.storage.folder import Folder

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folders", type=Path, nargs="+")
parser.add_argument("--count", type=int, default=20000)
parser.add_argument("--workers", type=int, default=2)
arguments = parser.parse_args()
print(machine())
with tempfile.TemporaryDirectory() as folder:
    source, draw = Path(folder) / "in", random.Random(0)
    source.mkdir()
    originals = [path for one in arguments.folders for path in (s.path for s in Folder(one).sources())]
    originals = originals[: arguments.count]
    planted = {}
    for index in range(arguments.count):
        name = f"{index:06d}.jpg"
        if index < len(originals):
            (source / name).symlink_to(originals[index].resolve())
            continue
        original = draw.randrange(len(originals))
        planted[name] = f"{original:06d}.jpg"
        if index % 5 == 0:
            (source / name).write_bytes(originals[original].read_bytes())
            continue
        image, scale = images.read(originals[original]), draw.uniform(0.8, 1)
        image = image.resize((round(image.width * scale), round(image.height * scale)))
        image.save(source / name, "JPEG", quality=draw.randint(50, 90))
    command = [sys.executable, "-m", "facekit", "clean", str(source), str(Path(folder) / "out"), "--json"]
    command += ["--workers", str(arguments.workers), "--min-size", "32"]
    for label in ("first run", "again, all measured"):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{label}: {took:.0f} s ({arguments.count / took:.0f} images/s), {used:.0f} s of processor time")
    print(f"peak memory of one process: {peak_memory():.0f} MiB")
    result = json.loads(done.stdout.splitlines()[-1])
    share = result["pairs_compared"] / result["pairs"]
    print(f"pairs compared: {result['pairs_compared']:,} of {result['pairs']:,} ({share:.2%})")
    print(f"groups: {result['groups']}; reasons: {result['reasons']}")
    rows = [json.loads(line) for line in (Path(folder) / "out/findings.jsonl").read_text().splitlines()]
    group = {row["file"]: row.get("group") for row in rows}
    found = sum(group[copy] is not None and group[copy] == group[original] for copy, original in planted.items())
    print(f"planted copies in the group of their original: {found} of {len(planted)}")
