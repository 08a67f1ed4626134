"""A training step as one recorded graph, which a CUDA device repeats without Python (`torch.cuda.CUDAGraph`)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..errors import FacekitError
from ..recipe_api.base import Scene
from ..runtime import console, distributed

WARM = 3  # steps taken before one is recorded: libraries choose and set up, Adam makes its moments

Batches = Sequence[Mapping[str, Tensor]]
Losses = dict[str, Tensor]
T = TypeVar("T")


class Recorder(Protocol):
    """What records work on a device and repeats it."""

    device: torch.device

    def aside(self) -> AbstractContextManager[None]:
        """Where the steps before a recorded one are taken."""

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """Record work without doing it; return what it returned, still without content, and what does the work."""


class CudaRecorder:
    """Records for a CUDA device. All records share their memory, so none may need what another has left there."""

    def __init__(self, device: torch.device):
        self.device, self.pool = device, torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Work on the stream that records, as torch asks for."""
        here = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            yield
        here.wait_stream(self.stream)

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """See `Recorder`; the thread that reads batches may go on meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
            made = work()
        return made, graph.replay


def recorder_for(device: torch.device) -> Recorder | None:
    """Return what records a single process's steps on a device; None, after saying so, where nothing can."""
    if device.type == "cuda" and distributed.size() == 1:
        return CudaRecorder(device)
    console.note("train: run.graphs is for one process on a CUDA device; steps are taken as without it")
    return None


@dataclass
class Recorded:
    """A step on tensors that stay where they are: its batches, and its losses as one tensor."""

    batches: list[dict[str, Tensor]]
    names: list[str]
    losses: Tensor  # [terms]
    replay: Callable[[], None]

    def __call__(self, batches: Batches) -> Losses:
        for own, given in zip(self.batches, batches, strict=True):
            for name, x in given.items():
                own[name].copy_(x, non_blocking=True)
        self.replay()
        return dict(zip(self.names, self.losses.clone(), strict=True))  # the next replay overwrites them


class Graphs:
    """Takes training steps; the first of a kind as they are, later ones by replaying a record of one.

    A kind is what the caller says (whose turn it is, which terms) and the names, shapes and types of the batches. Steps
    that may not be recorded (see `watched`) are taken as they are for ever, which is said once. `lasting` returns the
    tensors that live longer than a step and that a step writes to.
    """

    def __init__(self, recorder: Recorder, lasting: Callable[[], list[Tensor]]):
        self.recorder, self.lasting = recorder, lasting
        self.warm: Counter[Hashable] = Counter()
        self.records: dict[Hashable, Recorded] = {}
        self.refused: set[Hashable] = set()
        self.said: set[str] = set()

    def take(self, kind: Hashable, batches: Batches, step: Callable[[Batches], Losses]) -> Losses:
        """Take a step on batches. Raises FacekitError for one that turns out, while it is recorded, not to let that."""
        kind = (kind, tuple((name, x.shape, x.dtype) for batch in batches for name, x in batch.items()))
        if kind in self.refused:
            return step(batches)
        if self.warm[kind] < WARM:
            return self._watch(kind, batches, step)
        if kind not in self.records:
            self.records[kind] = self._record(batches, step)
        return self.records[kind](batches)

    def _watch(self, kind: Hashable, batches: Batches, step: Callable[[Batches], Losses]) -> Losses:
        with watched(self.recorder.device, self.lasting) as reasons, self.recorder.aside():
            losses = step(batches)
        self.warm[kind] += 1
        if reasons:
            self.refused.add(kind)
            text = f"train: steps with {', '.join(losses)} are not recorded: they {' and '.join(sorted(reasons))}"
            if text not in self.said:
                console.note(text)
            self.said.add(text)
        return losses

    def _record(self, batches: Batches, step: Callable[[Batches], Losses]) -> Recorded:
        own = [{name: x.clone() for name, x in batch.items()} for batch in batches]

        def work() -> tuple[list[str], Tensor]:
            losses = step(own)
            return list(losses), torch.stack(list(losses.values()))

        try:
            (names, losses), replay = self.recorder.record(work)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise FacekitError(f"a step cannot be recorded: {reason}", "--set run.graphs=false") from error
        return Recorded(own, names, losses, replay)

    def forget(self) -> None:
        """Drop all records, for tensors that they work on are replaced."""
        self.warm.clear()
        self.records.clear()


class Noted:
    """An attribute of scenes that notes when it is read."""

    def __init__(self, name: str, reasons: set[str]):
        self.name, self.reasons = name, reasons

    def __get__(self, scene: Scene, kind: type) -> Any:
        self.reasons.add(f"read the scene's {self.name}")
        return scene.__dict__[self.name]

    def __set__(self, scene: Scene, value: Any) -> None:
        scene.__dict__[self.name] = value


@contextlib.contextmanager
def watched(device: torch.device, lasting: Callable[[], list[Tensor]]) -> Iterator[set[str]]:
    """Collect why the step taken inside may not be recorded: what a record would repeat though it should change.

    That is the scene's step and progress, the step's seed, random numbers of the host (those of a device are drawn anew
    by each replay) and new tensors in the place of lasting ones, which every replay would take as they were.
    """
    reasons: set[str] = set()
    before, state, seed = lasting(), host_state(), torch.initial_seed

    def told() -> int:
        reasons.add("read the step's seed")
        return seed()

    for name in ("step", "progress"):
        setattr(Scene, name, Noted(name, reasons))
    torch.initial_seed = told
    try:
        yield reasons
    finally:
        torch.initial_seed = seed
        for name in ("step", "progress"):
            delattr(Scene, name)
    if device.type != "cpu" and host_state() != state:
        reasons.add("draw random numbers on the host")
    after = lasting()
    if len(after) != len(before) or any(x is not y for x, y in zip(before, after, strict=True)):
        reasons.add("replace tensors of the nets in place of writing to them")


def host_state() -> bytes:
    """Return the state of the host's random numbers."""
    return torch.get_rng_state().numpy().tobytes()
