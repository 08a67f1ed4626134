"""Where the work of a command is done: by this machine's cores, or by a Ray cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import CardError
from .cores import usable_cores

FEW = 32  # images; for fewer, processes take longer to start than they save


@dataclass(frozen=True)
class Engine:
    """What works: `local` (a pool of this machine) or `ray` (the cluster at `address`).

    `gpus` is the share of a GPU that each worker of the cluster takes; None: one GPU where the work can use it and the
    cluster has any. `sees` are files and folders that every worker must find. Raises CardError for another name, and
    for an address or a share without a cluster.
    """

    name: str = "local"
    address: str | None = None
    gpus: float | None = None
    sees: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in ("local", "ray"):
            raise CardError(f"no engine {self.name!r}", "one of local, ray")
        if not self.remote and (self.address or self.gpus is not None):
            flag = "--address" if self.address else "--gpu-share"
            raise CardError(f"{flag} is of a cluster", f"--engine ray {flag} ..., or leave out {flag}")
        if self.gpus is not None and not (0 <= self.gpus < 1 or self.gpus == int(self.gpus)):
            raise CardError(f"no share of {self.gpus} GPUs", "0, a part of one such as 0.5, or a whole number")

    @property
    def remote(self) -> bool:
        """Whether the work leaves this process for a cluster."""
        return self.name == "ray"

    def seeing(self, *paths: str | Path | None) -> Engine:
        """Return the engine with more paths that every worker must find; those that are not here are left out."""
        return replace(self, sees=(*self.sees, *(Path(path) for path in paths if path and os.path.exists(path))))

    def workers(self, asked: int | None, items: int) -> int:
        """Return how many workers do `items` images: as asked, else all cores; 0 leaves it to the cluster."""
        if self.remote:
            return min(asked or 0, items)
        return min(asked or usable_cores(), items) if asked or items >= FEW else 1

    @contextlib.contextmanager
    def connected(self, device: str = "cpu") -> Iterator[Engine]:
        """Stay connected to the cluster for the block; gives the engine with the share of a GPU decided.

        `device` is what the work asks for: `cpu` takes no GPU. Raises MissingError where Ray is not installed or no
        cluster answers, CardError for GPUs that the cluster does not have.
        """
        if not self.remote:
            yield self
            return
        from . import ray_cluster

        with ray_cluster.connected(self.address):
            yield replace(self, gpus=ray_cluster.gpus(self.gpus, device))


LOCAL = Engine()
