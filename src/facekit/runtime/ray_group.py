"""Workers of a Ray cluster that work together, by Ray Train: where one dies, all of them start again."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CardError, FacekitError, Interrupted, MissingError, OutOfMemory
from . import console, ray_cluster, signals
from .engine import Engine
from .ray_mailbox import Mailbox, News, Relay, unpacked
from .ray_member import Member, work
from .ray_pool import carried
from .ray_worker import seen, versions

RESTARTS = 3  # of all workers, after one has died
POLL = 0.3  # seconds between two looks at what the workers say
GRACE = 60.0  # seconds that the other workers have to end after one has failed: they write the page of the run
SILENT = 10.0  # seconds without a sign of life after which no worker is there
PATIENCE = 30.0  # seconds without workers after which a note says so

AGAIN = "`ray logs` says why; the same command goes on from the last save"

Task = Callable[[Member], None]


@dataclass(frozen=True)
class Group:
    """How many workers, and the cores and GPUs of each."""

    workers: int
    cores: int
    gpus: float

    def __str__(self) -> str:
        parts = [f"{self.cores} core{'s' * (self.cores > 1)}", *([f"{self.gpus:g} GPU"] if self.gpus else [])]
        return f"{self.workers} worker{'s' * (self.workers > 1)} of {' and '.join(parts)}"


def choose(
    workers: int | None, threads: int | None, gpus: float, machines: Sequence[Mapping[str, float]], free: float
) -> Group:
    """Return the workers for machines of some resources: as asked, else one for each GPU, else one.

    Each gets `threads` cores, else as many as fit for all of them, of the `free` ones. Raises CardError for shares of a
    GPU that processes which work together cannot have.
    """
    there = int(sum(machine.get("GPU", 0) for machine in machines))
    count = workers or (max(1, there) if gpus == 1 else 1)
    if gpus > 1 or (0 < gpus < 1 and count > 1):
        raise CardError(
            f"--gpu-share {gpus:g} is not for {count} workers that train together",
            "each takes one GPU: leave out --gpu-share, or --gpu-share 0 for none",
        )
    cores = threads or 1
    while not threads and (cores + 1) * count <= free and _places(machines, cores + 1, gpus) >= count:
        cores += 1
    return Group(count, cores, gpus)


def _places(machines: Sequence[Mapping[str, float]], cores: int, gpus: float) -> int:
    """Return how many workers of some cores and GPUs there is room for."""
    rooms = (min(has.get("CPU", 0) // cores, has.get("GPU", 0) // gpus if gpus else 10**9) for has in machines)
    return int(sum(rooms))


def run_together(
    task: Task, engine: Engine, device: str, workers: int | None, threads: int | None, scratch: Path
) -> None:
    """Run a task in workers of a cluster that train together, and report here what the first of them reports.

    A worker that dies, with its machine or alone, makes all of them start again, up to RESTARTS times; the task must go
    on by itself. `scratch` is an empty folder on a file system that all machines share. SIGINT and SIGTERM ask the
    workers to stop. Raises what a worker raises, Interrupted where none is there to stop, OutOfMemory where too many
    died, MissingError and CardError as `Engine.connected` and `choose` do.
    """
    with engine.connected(device) as ready:
        ray = ray_cluster.load()
        train = _load()
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        free = ray.available_resources().get("CPU", 0)
        own = os.environ.get("OMP_NUM_THREADS", "")
        group = choose(workers, threads or (int(own) if own.isdigit() else None), ready.gpus or 0, machines, free)
        console.note(f"ray: {group}")
        with _mailbox(ray) as mailbox:
            config = {
                "mailbox": mailbox,
                "task": task,
                "folder": os.getcwd(),
                "environment": {"OMP_NUM_THREADS": str(group.cores), **carried(group.gpus)},
                "versions": versions(),
                "sees": [seen(path) for path in dict.fromkeys((*engine.sees, _mark(scratch)))],
                "gpus": bool(group.gpus),
            }
            trainer = _trainer(train, group, config, scratch)
            try:
                with signals.collected() as received:
                    _follow(ray, mailbox, _start(trainer), received)
            except ray.exceptions.RayError as error:
                raise FacekitError(f"the cluster is gone: {_line(error)}", AGAIN) from error


def _load() -> Any:
    """Return the module `ray.train`; raises MissingError where packages that it needs are missing."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    try:
        from ray import train
        from ray.train import torch as _  # noqa: F401
    except ImportError as error:
        raise MissingError(
            f"this needs Ray Train, which is not installed: {error}", "pip install 'facekit-anime[ray]'"
        ) from error
    for name in ("ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return train


def _mark(scratch: Path) -> Path:
    """Return a new file that only machines see which share this file system."""
    path = scratch / "seen"
    path.write_bytes(os.urandom(1 + os.urandom(1)[0]))
    return path


@contextlib.contextmanager
def _mailbox(ray: Any) -> Iterator[Any]:
    """Give a mailbox on this machine, which ends with the block: then workers that still work save and stop."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()
    try:
        yield mailbox
    finally:
        with contextlib.suppress(Exception):
            ray.kill(mailbox)


def _trainer(train: Any, group: Group, config: dict[str, Any], scratch: Path) -> Any:
    from pyarrow.fs import LocalFileSystem
    from ray.train.torch import TorchTrainer

    resources = {"CPU": group.cores, **({"GPU": group.gpus} if group.gpus else {})}
    return TorchTrainer(
        work,
        train_loop_config=config,
        scaling_config=train.ScalingConfig(
            num_workers=group.workers, use_gpu=bool(group.gpus), resources_per_worker=resources
        ),
        run_config=train.RunConfig(
            name="train",
            storage_path=str(scratch.absolute()),
            storage_filesystem=LocalFileSystem(),
            failure_config=train.FailureConfig(max_failures=RESTARTS),
            logging_config=train.LoggingConfig(log_level="ERROR"),
        ),
    )


def _start(trainer: Any) -> Future[None]:
    """Run the trainer in a thread, so that signals are for this one."""
    done: Future[None] = Future()

    def fit() -> None:
        try:
            trainer.fit()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    return done


def _follow(ray: Any, mailbox: Any, done: Future[None], received: Sequence[int]) -> None:
    """Report what the workers say until they are done; raises the first error, and Interrupted where none is there."""
    relay, asked, told, starts, failed = Relay(), False, False, 0, 0.0
    while True:
        ended = bool(wait([done], POLL).done)
        news: News = ray.get(mailbox.news.remote())
        if news.starts > max(1, starts):
            relay.close()
            console.note("ray: a worker is gone; all of them start again from the last save")
        relay.report(news.lines)
        starts = news.starts
        if received and not asked:
            asked = True
            ray.get(mailbox.stop.remote())
            console.note("ray: the workers save and stop")
        if news.error:
            failed = failed or time.monotonic()
            if ended or not news.inside or time.monotonic() - failed > GRACE:
                relay.close()
                raise unpacked(news.error, ray)
        elif ended:
            relay.close()
            _check(ray, done)
            return
        elif received and (news.quiet > SILENT or not starts):
            raise Interrupted("stopped", "run the same command again")
        if news.quiet > PATIENCE and not told:
            console.note("ray: waiting for the cluster to start the workers; `ray status` says what is free")
        told = news.quiet > PATIENCE


def _check(ray: Any, done: Future[None]) -> None:
    """Raise what Ray Train has given up for as an error with a next step."""
    error = done.exception()
    if error is None:
        return
    causes = getattr(error, "worker_failures", {})
    reason = _line(next(iter(causes.values()), error))
    if any(isinstance(cause, ray.exceptions.OutOfMemoryError) for cause in causes.values()):
        raise OutOfMemory(f"ray has killed workers, because memory ran out: {reason}", AGAIN) from error
    if causes:
        raise OutOfMemory(
            f"workers have died {RESTARTS + 1} times, as happens when memory runs out: {reason}", AGAIN
        ) from error
    raise FacekitError(f"ray cannot run the workers: {reason}", AGAIN) from error


def _line(error: BaseException) -> str:
    """Return the beginning of what Ray says, as one line."""
    return " ".join(str(error).split())[:400]
