"""Without what Windows lacks (`resource`, `fcntl`, `fork`), modules are imported and threads and memory are chosen."""

import subprocess
import sys

import pytest

SCRIPT = """
import importlib, os, pkgutil, sys, sysconfig
import filelock, platformdirs, requests, skimage, torch, torch.distributed, typer  # they have Windows code of their own

sysconfig.get_config_vars()  # reads a file of this system's name

for name in ("resource", "fcntl", "termios", "pwd", "grp"):
    sys.modules[name] = None
missing = "fork memfd_create sched_getaffinity getloadavg sysconf getuid geteuid mkfifo O_NOFOLLOW"
for name in missing.split():
    if hasattr(os, name):
        delattr(os, name)
sys.platform = "win32-like"

import facekit

for room in ("runtime", "ops", "storage", "data", "recipe_api", "training", "commands"):
    package = importlib.import_module(f"facekit.{room}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"facekit.{room}.{module.name}")

from facekit.runtime import cores, memory

assert cores.choose_threads()[0] >= 1
memory.Heap().give_back("step")
memory.available_memory()

import numpy as np
from facekit.data.sample_cache import SampleCache

cache = SampleCache(2, 1000)
cache.keep(1, {"a": np.arange(12)})
assert (cache.get(1)["a"] == np.arange(12)).all() and cache.get(0) is None
"""


@pytest.mark.slow
def test_facekit_is_imported_without_what_windows_lacks():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
