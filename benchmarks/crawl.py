"""Throughput of `facekit crawl` against a board on this machine, requests an image, and what broken answers do to it.

The rate is set so high that it does not matter. With --share, that part of all answers is broken by chance: errors,
pages of HTML, empty, cut and malformed bodies, repeated and missing pages, wrong images.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine, peak_memory

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from booru import Booru, Entry

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, default=1000)
parser.add_argument("--size", type=int, default=512, help="edge of an image, px")
parser.add_argument("--share", type=float, nargs="*", default=[0.0, 0.2], help="parts of the answers that are broken")
parser.add_argument("--workers", type=int, default=4)
arguments = parser.parse_args()
print(machine())
entries = [Entry(number, size=(arguments.size, arguments.size)) for number in range(1, arguments.count + 1)]
megabytes = sum(len(entry.data) for entry in entries) / 1e6
print(f"{arguments.count} images of {arguments.size} px, {megabytes:.1f} MB, {arguments.workers} workers")
# short pauses between retries: otherwise they would dominate the time
shell = "from facekit.sources import http_client; http_client.FIRST_PAUSE = 0.01; from facekit.cli import main; main()"
for site in ("safebooru", "danbooru"):
    for share in arguments.share:
        with Booru(entries, share=share, page=200) as board, tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", shell, "crawl", site, folder, "--tags", "solo", "--limit", "100000"]
            command += ["--address", board.address, "--allow-local", "--rate", "100000", "--quiet"]
            start = time.perf_counter()
            done = subprocess.run([*command, "--workers", str(arguments.workers)], env=os.environ)
            took = time.perf_counter() - start
            rows = [json.loads(line) for line in (Path(folder) / "manifest.jsonl").read_text().splitlines()]
            true = {entry.md5 for entry in entries}
            found = [hashlib.md5(path.read_bytes()).hexdigest() for path in Path(folder).glob("*.jpg")]
            lost, doubled = len(true - set(found)), len(found) - len(set(found)) + len(rows) - len(found)
            again = sum(times - 1 for times in board.served().values())
            print(
                f"{site}, {share:.0%} broken: {len(found) / took:.1f} images/s with start-up, "
                f"{len(board.log) / len(found):.3f} requests an image, {lost} lost, {doubled} doubled, "
                f"{again} whole files fetched again, exit {done.returncode}"
            )
print(f"peak memory {peak_memory():.0f} MiB")
