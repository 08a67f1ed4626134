"""The processes of a `torchrun`: who we are, sums and gathers over all of us; a single process needs no set-up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import FacekitError


def start(device: str) -> torch.device:
    """Join the other processes where `torchrun` started several; return the device that is ours."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return torch.device(device)


def rank() -> int:
    """Return our number among the processes, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Name what torch raises where another process is gone: that one's error is the one to read."""
    try:
        yield
    except RuntimeError as error:
        raise FacekitError("another process of this run has ended", "its own error says why") from error


def barrier() -> None:
    """Wait for all processes."""
    if size() > 1:
        with _together():
            dist.barrier()


def gather(x: Tensor) -> Tensor:
    """Concatenate every process's x ([N, ...]) in rank order; without a gradient."""
    if size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(size())]
    with _together():
        dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def any_of(flag: bool, device: torch.device) -> bool:
    """Return whether `flag` is true in any process."""
    if size() == 1:
        return flag
    vote = torch.tensor(float(flag), device=device)
    with _together():
        dist.all_reduce(vote, dist.ReduceOp.MAX)
    return bool(vote.item())


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average the gradients over the processes in one flattened all-reduce.

    Only parameters that have a gradient take part: zeros in place of the missing ones would let Adam's momentum move
    what this step does not use.
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
