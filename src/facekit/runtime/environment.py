"""Facts about the machine and the installed packages, for bug reports."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from .. import __version__

PACKAGES = (
    "typer",
    "rich",
    "pyyaml",
    "pydantic",
    "numpy",
    "pillow",
    "platformdirs",
    "filelock",
    "jinja2",
    "defusedxml",
    "requests",
    "urllib3",
    "scipy",
    "scikit-image",
    "opencv-python",
    "imagehash",
    "torch",
    "torchvision",
    "safetensors",
    "matplotlib",
    "insightface",
    "onnx",
    "onnxruntime",
    "onnx2torch",
    "clean-fid",
)


def versions() -> dict[str, str]:
    """Return the versions of facekit, Python and the packages that facekit depends on; "absent" for a missing one."""
    found = {"facekit": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def machine() -> dict[str, Any]:
    """Return the system, the device that `--device auto` takes, the processor cores and threads, and the memory."""
    from .cores import usable_cores
    from .device import find_device

    device = find_device("auto")
    name = torch.cuda.get_device_name(device) if device == "cuda" else platform.machine()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "device": f"{device} ({name})",
        "cuda": torch.version.cuda or "none: this torch is for the processor",
        "cores": f"{usable_cores()} usable of {os.cpu_count()}",
        "threads": f"{torch.get_num_threads()} (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')})",
    }
