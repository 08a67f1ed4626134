"""A connection to a Ray cluster, and what the cluster has."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

from ..errors import CardError, MissingError
from .cores import usable_cores
from .optional import needs

STORE = 2**28  # bytes of the object store of a Ray that is started for one command: only status rows pass through it
LONGEST = 300  # characters of what Ray says that an error repeats
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
NICENESS = "RAY_worker_niceness"  # 0 in a Ray that is started for one command: it works as the local pool would


def load() -> Any:
    """Return the module `ray`; raises MissingError where it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with needs("ray"):
        import ray
    logging.getLogger("ray").setLevel(logging.ERROR)
    with contextlib.suppress(AttributeError):  # Ray prints what its machines report to stdout, which is for results
        ray._private.worker.print_to_stdstream = _report
    return ray


def _report(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    for line in data["lines"]:
        print(f"ray: {line}", file=sys.stderr)


@contextlib.contextmanager
def connected(address: str | None = None) -> Iterator[Any]:
    """Give the module `ray`, connected for the block; a connection that exists is used and stays.

    Without an address that of RAY_ADDRESS is taken, else a Ray is started on this machine. Raises MissingError where
    Ray is not installed, no cluster answers, or it runs other versions of Ray or Python; CardError for an address of
    Ray Client.
    """
    ray = load()
    if ray.is_initialized():
        yield ray
        return
    place = address or os.environ.get("RAY_ADDRESS")
    if place and place.startswith("ray://"):
        raise CardError(
            f"{place} is an address of Ray Client", "run the command on a machine of the cluster: --address auto"
        )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _connect(ray, place)
        _restore(handlers)
        yield ray
    finally:
        ray.shutdown()
        _restore(handlers)


def _connect(ray: Any, place: str | None) -> None:
    """Connect to the cluster at `place`, or start a Ray here; raises MissingError as `connected` does."""
    own = {"address": "local", "num_cpus": usable_cores(), "object_store_memory": STORE, "include_dashboard": False}
    given: dict[str, Any] = {"address": place} if place else own
    alone = not place and NICENESS not in os.environ
    if alone:
        os.environ[NICENESS] = "0"
    try:
        if place:
            _answers(place)
        ray.init(**given, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError: Ray raises what comes
        said = " ".join(str(error).split())
        if "version mismatch" in said.lower():
            raise MissingError(
                f"the cluster at {place} runs other versions: {said[:LONGEST]}",
                "install the same versions of Python, ray and facekit-anime on every machine",
            ) from error
        if "authentication" in said.lower():
            raise MissingError(
                f"the cluster at {place} asks for a token: {said[:LONGEST]}",
                "copy ~/.ray/auth_token of its head to this machine, or set RAY_AUTH_TOKEN",
            ) from error
        raise MissingError(
            f"no Ray cluster answers at {place or 'this machine'}: {said[:LONGEST]}",
            "start one: `ray start --head --port 6379`, then --address HOST:6379, or auto on a machine of the cluster; "
            "where the cluster asks for a token, set RAY_AUTH_MODE=token",
        ) from error
    finally:
        if alone:
            del os.environ[NICENESS]


def _answers(place: str) -> None:
    """Raise ConnectionError where nothing listens at HOST:PORT: Ray itself would try for a minute."""
    host, colon, port = place.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _restore(handlers: dict[Any, Any]) -> None:
    """Set the signal handlers as they were: Ray brings its own."""
    with contextlib.suppress(ValueError):  # only the main thread may
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def resources() -> dict[str, float]:
    """Return what all machines of the cluster have together: `CPU`, `GPU`, ..."""
    return load().cluster_resources()


def gpus(share: float | None, device: str) -> float:
    """Return the share of a GPU that each worker takes for work on `device`.

    Raises CardError for GPUs that the cluster does not have.
    """
    there = resources().get("GPU", 0)
    wanted = (1.0 if there and device != "cpu" else 0.0) if share is None else share
    if share is None and device.startswith("cuda"):
        wanted = 1.0
    if wanted > there:
        raise CardError(
            f"a worker takes {wanted:g} GPUs, and the cluster has {there:g}", "a smaller --gpu-share, or --device cpu"
        )
    return wanted
