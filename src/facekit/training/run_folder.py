"""The run folder: what training writes to disk, and how a stopped run continues."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.dataset import Layout
from ..errors import CardError, Diverged, MissingError, OutputError
from ..nets.old_pickle import read_without_code
from ..recipe_api import checkpoint, registry
from ..recipe_api.base import Progress
from ..runtime import console, distributed
from ..storage import card, claim, files, jsonl
from .pace import Pace
from .reporters import IDS, Reporters, open_reporters
from .run_page import BEST, LOG, PLOT, PREVIEWS, PROGRESS, SCORES, SEVERAL, RunPage
from .state import TrainState

STATE = "state.pt"
WRITTEN = (
    LOG,
    BEST,
    SCORES,
    f"{SEVERAL}/{8 * '[0-9]'}.safetensors",
    checkpoint.FILE,
    PLOT,
    PROGRESS,
    "index.html",
    "overlays.png",
    "snapshots.png",
    PREVIEWS,
    "tb/events.*",
    IDS,
)
"""All outputs but cards and state."""
BROKEN = (RuntimeError, ValueError, LookupError, AttributeError, TypeError, EOFError, OSError, pickle.UnpicklingError)
LENGTH = ("run.steps", "run.epochs")

Status = Literal["new", "unfinished", "longer", "finished"]


def check(folder: Path, values: dict[str, Any], force: bool) -> Status:
    """Return the status of the run of card `values` in `folder`; writes nothing.

    "longer" means that the folder holds this run with another length. An unfinished run that has saved nothing yet
    counts as "new", whatever its card; with `force` everything does. Raises CardError if the folder holds a run of
    another card, OutputError if it holds files that training would overwrite and facekit did not write.
    """
    if force:
        return "new"
    for name, status in ((card.NAME, "finished"), (card.UNFINISHED, "unfinished")):
        if not (folder / name).exists():
            continue
        old = card.load(folder / name)
        trained = old.get("command") == "train"
        if trained and status == "unfinished" and not (folder / STATE).exists():
            return "new"
        changed = claim.differences(old, values, registry.completed)
        if not changed:
            return status  # type: ignore[return-value]
        if trained and (folder / STATE).exists() and all(line.startswith(LENGTH) for line in changed):
            return "longer"
        raise CardError(
            f"{folder} holds a run of another card: " + "; ".join(changed),
            "choose another output folder, or --force to replace this one",
        )
    there = {path for pattern in (STATE, *WRITTEN) for path in folder.glob(pattern)}
    there |= {folder / name for name in (STATE, *WRITTEN) if os.path.lexists(folder / name)}  # links to nowhere, too
    foreign = sorted(path.relative_to(folder).as_posix() for path in there)
    if foreign:
        raise OutputError(
            f"{folder} holds files that facekit did not write and training would replace: {', '.join(foreign[:6])}",
            "choose another output folder, or --force to replace them",
        )
    return "new"


def tidy(folder: Path) -> None:
    """Remove the unfinished card and temporary files that a kill at the very end of a run left."""
    if distributed.rank() == 0 and (folder / card.UNFINISHED).exists():
        (folder / card.UNFINISHED).unlink()
        files.sweep(folder)


def find(path: Path | None) -> Path | None:
    """Return the run folder that a card belongs to, if a log or state lies beside it; None for other cards."""
    if path and path.name in (card.NAME, card.UNFINISHED):
        return path.parent if any((path.parent / name).exists() for name in (LOG, STATE)) else None
    return None


class RunFolder:
    """Saves and restores a run: `model.safetensors`, `state.pt`, `log.jsonl`, `previews/`, `index.html`."""

    def __init__(self, path: Path, values: dict[str, Any], layout: Layout, steps: int, reporters: Sequence[str] = ()):
        self.path, self.values, self.pace = path, values, Pace(steps)
        self.first = distributed.rank() == 0
        self.begun = False
        self.wanted = reporters if self.first else ()
        self.reporters = Reporters({})
        self.page = RunPage(path, values, layout.previews, self.pace)

    def begin(self, status: Status, step: int) -> None:
        """Write the card of a run that starts, or continues from `step`, and remove logs and previews of later steps.

        Whenever a kill comes, the next start finds either the old run with its state or a run that has saved nothing.
        """
        if not self.first:
            return
        files.make_folder(self.path)
        done, begun = self.path / card.NAME, self.path / card.UNFINISHED
        if status == "new":
            if done.exists():
                done.replace(begun)
            for pattern in (STATE, *WRITTEN):
                for old in self.path.glob(pattern):
                    files.remove(old)
        if status in ("new", "longer"):
            files.write_text(begun, card.dump(self.values))
            done.unlink(missing_ok=True)
        files.sweep(self.path)
        self.page.forget_after(step)
        self.begun = True
        self.reporters = open_reporters(self.wanted, self.path, self.values)
        self.page.write(running=True)

    def resume(self, state: TrainState, clock: Progress) -> None:
        """Restore the last save of the run.

        Raises MissingError if the state file is damaged, CardError if the run is already longer than `clock.steps`.
        """
        file = self.path / STATE
        with _readable(file):
            state.restore(torch.load(file, map_location=state.device, weights_only=True))
        if state.step > clock.steps:
            raise CardError(
                f"{self.path} is already trained to step {state.step}, beyond {clock.steps}",
                f"--steps {state.step} or more continues it; --force starts it again",
            )
        self.pace.step = state.step
        if self.first:
            self._compare_rates(state, clock)

    def _compare_rates(self, state: TrainState, clock: Progress) -> None:
        """Warn if the steps so far had other learning rates than they would have in a run of the new length."""
        path = next(path for path in (self.path / card.NAME, self.path / card.UNFINISHED) if path.exists())
        old = card.load(path).get("run", {})
        length = old.get("steps") or old.get("epochs", 0) * clock.epoch_steps or clock.steps
        factor, before = state.recipe.lr_factor, replace(clock, steps=length)
        steps = range(0, state.step, max(1, state.step // 100))
        if any(factor(replace(before, step=step)) != factor(replace(clock, step=step)) for step in steps):
            console.warn(
                f"the first {state.step} steps had the learning rates of a run of {length} steps; "
                f"the result will differ from a new run of {clock.steps} steps"
            )

    def start_from(self, state: TrainState, init: str) -> None:
        """Load initial weights from another run folder (all its nets), a model file or a public checkpoint.

        Raises CardError if at least half of the shared weights have other shapes.
        """
        file = Path(init) / STATE
        if file.is_file():
            with _readable(file):
                saved = torch.load(file, map_location="cpu", weights_only=True)
                averaged = saved.get("ema") if state.recipe.starts_averaged else None
                tensors = {**saved["nets"], **(averaged or {})}
        elif Path(init).suffix in checkpoint.PICKLED:
            tensors = self._public(state, Path(init))
        else:
            tensors, _ = checkpoint.read_tensors(checkpoint.find_weights(init))
        own = state.nets.state_dict()
        shared = {key: value for key, value in tensors.items() if key in own and isinstance(value, Tensor)}
        fitting = {key: value for key, value in shared.items() if own[key].shape == value.shape}
        if 2 * sum(x.numel() for x in fitting.values()) <= sum(x.numel() for x in shared.values()):
            raise CardError(
                f"the weights of {init} do not fit this recipe's nets",
                "start from weights of the same recipe and width",
            )
        state.nets.load_state_dict(fitting, strict=False)
        console.note(f"train: initial weights from {init}: {len(fitting)} of {len(own)} tensors")

    def _public(self, state: TrainState, file: Path) -> dict[str, Tensor]:
        """Read a public checkpoint without running code in it; raises CardError if the recipe does not know its layout.

        Raises MissingError if the file is missing or damaged.
        """
        tensors = state.recipe.from_public(read_without_code(file))
        if tensors is None:
            raise CardError(
                f"{state.card.recipe} does not know the layout of {file}",
                "give a run folder, or convert the file with: facekit import",
            )
        return tensors

    def log(self, step: int, losses: dict[str, float]) -> None:
        """Append one line of losses."""
        if not self.first or not losses:
            return
        jsonl.append(self.path / LOG, [{"step": step, "losses": losses}])
        self.page.write_progress(running=True)
        console.fact("losses", step=step, losses=losses)
        self.reporters.scalars(step, {f"loss/{name}": value for name, value in losses.items()})

    def report_scores(self) -> None:
        """Pass the last scores on held-out images to the reporters."""
        for row in list(jsonl.read_lines(self.path / SCORES))[-1:]:
            self.reporters.scalars(row["step"], {f"score/{name}": value for name, value in row["scores"].items()})

    def save(self, state: TrainState) -> None:
        """Save the model, the previews and, last, the state that a resume starts from.

        Raises Diverged if a weight is not finite; the previous save stays.
        """
        if not all(bool(torch.isfinite(p).all()) for p in state.nets.parameters()):
            raise Diverged(
                f"weights became infinite or NaN by step {state.step}", "lower optim.lr; the last save is untouched"
            )
        if self.first:
            checkpoint.save_model(
                self.path / checkpoint.FILE, state.exports, {**self.values, "made": {"step": state.step}}
            )
            sheet = self.page.preview(state)
            if sheet:
                self.reporters.picture(state.step, "preview", sheet)
            self.pace.step = state.step
            self.page.write(running=state.step < self.pace.steps)
            with files.replacing(self.path / STATE) as part, part.open("wb") as file:
                torch.save(state.snapshot(), file)
        distributed.barrier()

    @torch.no_grad()
    def score(self, state: TrainState, layout: Layout) -> dict[str, Any]:
        """Return the scores that the recipe measures of the finished nets."""
        nets = state.exports
        was = nets.training
        scores = state.recipe.finish(nets.eval(), layout, self.path)
        nets.train(was)
        return scores

    def finish(self, results: dict[str, Any]) -> None:
        """Write the final run page, then the card of the finished run with its results."""
        self.page.write(running=False)
        claim.finish(self.path, self.values, results)

    def close(self) -> None:
        """Close the reporters; the page of an unfinished run says where it stopped."""
        self.reporters.close()
        if self.begun and self.pace.step < self.pace.steps:
            self.page.write(running=False)


@contextlib.contextmanager
def _readable(file: Path, hint: str = "--force starts the run again") -> Iterator[None]:
    """Turn whatever torch raises on a damaged file into MissingError."""
    try:
        yield
    except BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(f"{file} cannot be read: {reason}", hint) from error
