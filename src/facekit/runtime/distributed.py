"""Processes that `torchrun` or Ray Train has started: rank, world size, all-reduce, all-gather; one needs no set-up."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import FacekitError

PATIENCE = 600.0  # s for all processes to come to the start
LATE = 300.0  # s after which a process that did not stop when its launcher had died is ended
ERROR = "facekit/error"  # the key under which the first process to fail leaves its error
_store: list[dist.Store] = []  # of the process group, once it is started
_launcher: list[dist.Store] = []  # that of torchrun, which outlives the processes that it starts again
_begun: set[str] = set()  # the work that this very process has begun


def start(device: str) -> torch.device:
    """Join the other processes where a launcher started several; returns this process's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            if hasattr(os, "fork"):
                threading.Thread(target=_stop_with, args=(os.getppid(),), daemon=True).start()
            try:
                _join("nccl" if device.startswith("cuda") else "gloo")
            except dist.DistError as error:
                reason = str(error).partition("\n")[0]
                hint = "see whether the others and their launchers run, and start all of them again"
                raise FacekitError(f"the processes of this run do not find each other: {reason}", hint) from error
        elif not _store:  # Ray Train has started the process group
            _store.append(_open_store())
    return torch.device(device)


def _join(backend: str) -> None:
    """Start the process group; raises FacekitError or dist.DistError if the others cannot be reached."""
    store, number, count = next(dist.rendezvous("env://"))
    _launcher[:] = [store]
    # torchrun restarts processes with the same store: they must not read the addresses of those that died
    store = dist.PrefixStore(_meet(store, number, count), store)
    dist.init_process_group(backend, store=store, rank=number, world_size=count)
    _store[:] = [store]


def _open_store() -> dist.Store:
    """Return a store that the processes of a started group share; the first one serves it. Raises PeerFailed."""
    address, port = os.environ["MASTER_ADDR"], [0]
    served = dist.TCPStore(address, 0, is_master=True, wait_for_workers=False) if rank() == 0 else None
    if served is not None:
        port = [served.port]
    with _together():
        dist.broadcast_object_list(port)
        return served or dist.TCPStore(address, port[0], is_master=False, wait_for_workers=False)


def _meet(store: dist.Store, number: int, count: int) -> str:
    """Return a name on which the processes of this start agree, and which none of an earlier start had.

    The first process chooses it and tells it to each that asks under a name of its own, also to those that died since;
    then it waits for all others to say that they know. The agents of several machines count restarts differently.
    Raises FacekitError if some do not come within PATIENCE.
    """
    own = secrets.token_hex(8)
    late = FacekitError("some processes of this run did not start", "start all of them again")
    if number:
        store.set(f"facekit/asked/{store.add('facekit/asking', 1)}", own)
        try:
            store.wait([f"facekit/told/{own}"], timedelta(seconds=PATIENCE))
        except dist.DistStoreError:
            raise late from None
        name = store.get(f"facekit/told/{own}").decode()
        store.add(f"facekit/known/{name}", 1)
        return name
    end, answered = time.monotonic() + PATIENCE, set[int]()
    while store.add(f"facekit/known/{own}", 0) < count - 1:
        for ask in set(range(1, store.add("facekit/asking", 0) + 1)) - answered:
            if store.check([f"facekit/asked/{ask}"]):
                store.set(f"facekit/told/{store.get(f'facekit/asked/{ask}').decode()}", own)
                answered.add(ask)
        if time.monotonic() > end:
            raise late
        time.sleep(0.02)
    return own


def _stop_with(launcher: int) -> None:
    """Stop this process as SIGTERM does, once the process that started it is gone: nobody else would stop it.

    One that has not found the others yet has nothing to save, and ends at once.
    """
    while os.getppid() == launcher:
        time.sleep(0.5)
    if not _store:
        os._exit(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LATE)
    os._exit(1)


def note_begun(work: str) -> None:
    """Note for processes that torchrun starts in the place of dead ones that some work, by its name, has begun."""
    _begun.add(work)
    for store in _launcher:
        store.set(f"facekit/begun/{work}", "1")


def begun_before(work: str) -> bool:
    """Whether a process that has died since noted that it had begun this work, under the same torchrun."""
    return work not in _begun and any(store.check([f"facekit/begun/{work}"]) for store in _launcher)


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_size() -> int:
    """Return how many of the processes run on this machine: they share its memory and cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if size() > 1 else 1


def local_rank() -> int:
    """Return the number of this process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if local_size() > 1 else 0


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Share an error raised inside with the other processes, so that they fail with its text."""
    try:
        yield
    except Exception as error:
        if size() > 1 and _store and not isinstance(error, PeerFailed):
            text = str(error) or type(error).__name__
            with contextlib.suppress(RuntimeError):  # the process that holds the store is gone
                _store[0].compare_set(ERROR, "", f"process {rank()}: {text}")
        raise


class PeerFailed(FacekitError):
    """Another process of the run has failed."""


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Turn what torch raises when another process has ended into PeerFailed, with the error of that process."""
    try:
        yield
    except RuntimeError as error:
        reason = ""
        with contextlib.suppress(RuntimeError, IndexError):  # the store is gone, or was not there yet
            _store[0].wait([ERROR], timedelta(seconds=2))
            reason = f": {_store[0].get(ERROR).decode()}"
        raise PeerFailed(f"another process of this run has failed{reason}", "see its own error above") from error


def barrier() -> None:
    """Wait for all processes."""
    if size() > 1:
        with _together():
            dist.barrier()


def gather(x: Tensor) -> Tensor:
    """Concatenate x ([N, ...]) of every process in the order of ranks (all-gather); the result has no gradient."""
    if size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(size())]
    with _together():
        dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def of_first(x: Tensor) -> Tensor:
    """Return x of rank 0 in every process (broadcast), for random numbers that must be equal everywhere."""
    if size() > 1:
        x = x.contiguous()
        with _together():
            dist.broadcast(x, 0)
    return x


def from_first_here(text: str) -> str:
    """Return the text of the first process of this machine, to each process (all-gather)."""
    if size() == 1:
        return text
    said = [text] * size()
    with _together():
        dist.all_gather_object(said, text)
    return said[rank() - local_rank()]


def any_of(flag: bool, device: torch.device) -> bool:
    """Return whether `flag` is true in any process (all-reduce)."""
    if size() == 1:
        return flag
    vote = torch.tensor(float(flag), device=device)
    with _together():
        dist.all_reduce(vote, dist.ReduceOp.MAX)
    return bool(vote.item())


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average gradients over the processes in one flattened all-reduce.

    Only parameters with a gradient take part: zeros in place of missing gradients would let Adam's momentum move
    weights that the step does not use.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if size() == 1 or not grads:
        return
    flat = torch.cat([g.reshape(-1) for g in grads])
    with _together():
        dist.all_reduce(flat)
    flat /= size()
    for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))
