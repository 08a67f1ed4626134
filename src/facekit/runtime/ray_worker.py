"""What runs in each worker process of a Ray cluster: it says what it is and sees, then works on one thing at a time."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import MissingError

PACKAGES = ("facekit-anime", "torch", "numpy", "pillow", "opencv-python", "scikit-image", "scipy", "onnxruntime")
PATIENCE = 5.0  # seconds in which a shared file system may show a new file

Seen = tuple[str, "int | None"]
"""A path, and the size in bytes that a file has there; None for a folder."""


def versions() -> dict[str, str]:
    """Return the versions of facekit and of the packages that decide about pixels, by name."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def seen(path: str | Path) -> Seen:
    """Return what a worker must find at a path; raises OSError where this process finds nothing."""
    whole = os.path.abspath(path)
    return whole, None if os.path.isdir(whole) else os.stat(whole).st_size


def unfit(
    machine: str, its: Mapping[str, str], wanted: Mapping[str, str], missing: Sequence[str]
) -> MissingError | None:
    """Return why a worker cannot work, from what it said of itself (`Worker.hello`); None if it can."""
    other = [f"{name} {its.get(name)} (here {wanted[name]})" for name in wanted if its.get(name) != wanted[name]]
    if other:
        return MissingError(
            f"the worker on {machine} has other versions: {', '.join(other)}",
            "install the same versions on every machine: results would differ",
        )
    if missing:
        return MissingError(
            f"the worker on {machine} does not see {missing[0]} as this process does",
            "inputs, outputs and weights must lie on a file system that all machines share, at the same path",
        )
    return None


class Worker:
    """Runs the functions that a driver sends; `environment` are variables to set, `folder` is the driver's own."""

    def __init__(self, folder: str, environment: Mapping[str, str]):
        os.environ.update(environment)
        self.folder = folder
        self._known: dict[str, Callable[..., Any]] = {}

    def hello(self, paths: Sequence[Seen]) -> tuple[str, dict[str, str], list[str]]:
        """Return the name of this machine, its versions, and the paths that are not here as the driver sees them."""
        missing = [] if os.path.isdir(self.folder) else [self.folder]
        if not missing:
            os.chdir(self.folder)  # relative paths mean the same here
        until = time.monotonic() + PATIENCE
        for wanted in paths:
            while (here := _seen(wanted[0])) != wanted and time.monotonic() < until:
                time.sleep(0.2)
            if here != wanted:
                missing.append(wanted[0])
        return platform.node(), versions(), missing

    def run(self, sent: Sequence[Any], item: Any) -> tuple[bool, Any]:
        """Return whether the pickled function behind the one reference in `sent` succeeded, and its result or error."""
        import ray

        (reference,) = sent
        name = reference.hex()
        try:
            if name not in self._known:
                self._known = {name: ray.cloudpickle.loads(ray.get(reference))}
            return True, self._known[name](item)
        except Exception as error:
            return False, error


def _seen(path: str) -> Seen | None:
    try:
        return seen(path)
    except OSError:
        return None
