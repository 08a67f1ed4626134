"""A training run on a Ray cluster: the loop of `run.run_plan` in each of the workers."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CardError
from ..runtime import console
from ..runtime.engine import Engine
from ..runtime.ray_member import Member
from ..storage import files
from . import run_folder
from .plan import Plan, make_plan
from .run import Launch, OpenValidator, Runner, run_plan

SCRATCH = ".facekit-ray-"  # and digits: a folder in the run folder, for Ray Train's own files
FREE = 20.0  # seconds in which another run may leave the folder: workers end a little after their command
FREE_AGAIN = 120.0  # the same for the run that goes on where a machine died: NFS holds its locks for 90 s


def runner_of(engine: Engine, workers: int | None) -> Runner:
    """Return what trains on an engine; raises CardError for workers without a cluster, and under `torchrun`."""
    if not engine.remote:
        if workers is not None:
            other = f"torchrun --nproc-per-node {workers} -m facekit train ..."
            raise CardError("--workers are of a cluster", f"--engine ray --workers {workers}, or {other}")
        return run_plan
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CardError("--engine ray starts its processes itself", "leave out torchrun: --engine ray --workers N")
    return RayRunner(engine, workers)


@dataclass(frozen=True)
class RayRunner:
    """Runs plans on a cluster as `run.run_plan` does here: with `workers` processes, by default one for each GPU."""

    engine: Engine
    workers: int | None = None

    def __call__(
        self,
        plan: Plan,
        folder: Path,
        device_name: str,
        force: bool,
        reporters: Sequence[str],
        validator: OpenValidator | None,
    ) -> None:
        """Train a plan into a run folder that all machines see; raises what `run_plan` and `run_together` raise."""
        from ..runtime.ray_group import run_together

        if device_name not in ("auto", "cpu", "cuda"):
            raise CardError(f"the cluster chooses the GPU, not --device {device_name}", "--device auto, cpu or cuda")
        plan.refuse_folder(folder)
        if run_folder.check(folder, plan.values, force) == "finished":
            run_plan(plan, folder, "cpu", force, reporters, validator)  # says that there is nothing to do
            return
        with _scratch(folder) as scratch:
            task = Task(plan.values, folder, scratch, force, tuple(reporters), validator)
            engine = self.engine.seeing(*_strings(plan.values))
            run_together(task, engine, device_name, self.workers, plan.card.run.threads, scratch)


@dataclass(frozen=True)
class Task:
    """What each worker does: make the plan of the card again, and train it."""

    values: Mapping[str, Any]
    folder: Path
    scratch: Path
    force: bool
    reporters: tuple[str, ...]
    validator: OpenValidator | None

    def __call__(self, member: Member) -> None:
        """Train; a start after the first goes on with what that has begun."""

        def begun() -> None:
            for old in self.folder.glob(f"{SCRATCH}*"):  # of commands that were killed
                if old.name != self.scratch.name:
                    shutil.rmtree(old, ignore_errors=True)
            member.begin()

        launch = Launch(lambda: contextlib.nullcontext(member.received), FREE_AGAIN if member.again else FREE, begun)
        with console.silenced():  # the command has said all of it
            plan = make_plan([self.values], "these flags")
        force = self.force and not member.begun
        run_plan(plan, self.folder, member.device, force, self.reporters, self.validator, launch)


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give an empty folder in the run folder, and remove it; raises OutputError if that cannot be made."""
    before = folder.exists()
    scratch = files.make_folder(folder / f"{SCRATCH}{secrets.token_hex(4)}")
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not before:
            with contextlib.suppress(OSError):  # there is something in it
                os.rmdir(folder)


def _strings(values: Any) -> Iterator[str]:
    """Yield all texts of a card: some of them are paths."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _strings(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _strings(value)
