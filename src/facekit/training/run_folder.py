"""A run folder: what training leaves behind, and how it goes on after a stop."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.dataset import Layout
from ..errors import CardError, Diverged, MissingError, OutputError
from ..recipe_api import checkpoint, registry
from ..recipe_api.base import Progress
from ..runtime import console, distributed
from ..storage import card, claim, files, jsonl
from .pace import Pace
from .run_page import LOG, PREVIEWS, RunPage
from .state import TrainState

STATE = "state.pt"
WRITTEN = (LOG, checkpoint.FILE, "losses.png", "index.html", PREVIEWS, "tb/events.*")  # beside the cards and the state
LENGTH = ("run.steps", "run.epochs")

Status = Literal["new", "unfinished", "longer", "finished"]


def check(folder: Path, values: dict[str, Any], force: bool) -> Status:
    """Return how the run of card `values` stands in `folder`; writes nothing.

    "longer" is a run that is there, with another length. A run that has saved nothing yet gives way to any other.
    Raises CardError where the folder holds a run of another card, OutputError where it holds files of the same names
    that facekit did not write; `force` makes both "new".
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
    foreign = [path.relative_to(folder).as_posix() for pattern in (STATE, *WRITTEN) for path in folder.glob(pattern)]
    if foreign:
        raise OutputError(
            f"{folder} holds files that facekit did not write and training would replace: {', '.join(foreign[:6])}",
            "choose another output folder, or --force to replace them",
        )
    return "new"


def tidy(folder: Path) -> None:
    """Remove what a kill at the very end of a run left beside the card of the finished run."""
    if distributed.rank() == 0 and (folder / card.UNFINISHED).exists():
        (folder / card.UNFINISHED).unlink()
        files.sweep(folder)


def find(path: Path | None) -> Path | None:
    """Return the run folder that a card belongs to: one that lies beside its log or state; None for other cards."""
    if path and path.name in (card.NAME, card.UNFINISHED):
        return path.parent if any((path.parent / name).exists() for name in (LOG, STATE)) else None
    return None


class RunFolder:
    """Saves and restores a run: `model.safetensors`, `state.pt`, `log.jsonl`, `previews/`, `index.html`."""

    def __init__(self, path: Path, values: dict[str, Any], layout: Layout, steps: int, tensorboard: bool = False):
        self.path, self.values, self.pace = path, values, Pace(steps)
        self.first = distributed.rank() == 0
        self.begun = False
        self.board = _board(path / "tb") if tensorboard and self.first else None
        self.page = RunPage(path, values, layout.previews, self.pace, self.board)

    def begin(self, status: Status, step: int) -> None:
        """Note in the folder that the run starts, or goes on from `step`, and remove what lies beyond that.

        Killed at any moment, the next start finds the old run with its state or a run that has saved nothing.
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
                    old.unlink()
        if status in ("new", "longer"):
            files.write_text(begun, card.dump(self.values))
            done.unlink(missing_ok=True)
        files.sweep(self.path)
        self.page.forget_after(step)
        self.begun = True
        self.page.write(running=True)

    def resume(self, learner: TrainState, clock: Progress) -> None:
        """Restore the run as its last save left it.

        Raises MissingError for a state file that is damaged, CardError for a run that is longer than `clock` says.
        """
        file = self.path / STATE
        with _readable(file):
            learner.restore(torch.load(file, map_location=learner.device, weights_only=True))
        if learner.step > clock.steps:
            raise CardError(
                f"{self.path} is already trained to step {learner.step}, beyond {clock.steps}",
                f"--steps {learner.step} or more continues; --force starts again",
            )
        self.pace.step = learner.step
        if self.first:
            self._compare_rates(learner, clock)

    def _compare_rates(self, learner: TrainState, clock: Progress) -> None:
        """Warn where the steps done had other learning rates than a run of the new length gives them."""
        path = next(path for path in (self.path / card.NAME, self.path / card.UNFINISHED) if path.exists())
        old = card.load(path).get("run", {})
        length = old.get("steps") or old.get("epochs", 0) * clock.epoch_steps or clock.steps
        factor, before = learner.recipe.lr_factor, replace(clock, steps=length)
        steps = range(0, learner.step, max(1, learner.step // 100))
        if any(factor(replace(before, step=step)) != factor(replace(clock, step=step)) for step in steps):
            console.warn(
                f"the first {learner.step} steps had the learning rates of a run of {length} steps; "
                f"a run of {clock.steps} from the start would differ"
            )

    def start_from(self, learner: TrainState, init: str) -> None:
        """Take the first weights from another run folder (all its nets as they were saved), a model or a public file.

        Raises CardError where less than half of those weights fit.
        """
        state = Path(init) / STATE
        if state.is_file():
            with _readable(state):
                saved = torch.load(state, map_location="cpu", weights_only=True)
            averaged = saved.get("ema") if learner.recipe.starts_averaged else None
            found = {**saved["nets"], **(averaged or {})}
        elif Path(init).suffix in (".pt", ".pth"):
            found = self._public(learner, Path(init))
        else:
            found, _ = checkpoint.read_tensors(checkpoint.find_weights(init))
        own = learner.nets.state_dict()
        shared = {key: value for key, value in found.items() if key in own}
        fitting = {key: value for key, value in shared.items() if own[key].shape == value.shape}
        if 2 * sum(x.numel() for x in fitting.values()) <= sum(x.numel() for x in shared.values()):
            raise CardError(
                f"the weights of {init} do not fit this recipe's nets",
                "start from weights of the same recipe and width",
            )
        learner.nets.load_state_dict(fitting, strict=False)
        console.note(f"train: first weights from {init}: {len(fitting)} of {len(own)} tensors")

    def _public(self, learner: TrainState, file: Path) -> dict[str, Tensor]:
        """Read a public checkpoint without running code that it may hold; raises CardError for another layout."""
        if not file.is_file():
            raise MissingError(f"no weights file {file}", "check the path")
        with _readable(file, "give a complete checkpoint"):
            found = torch.load(file, map_location="cpu", weights_only=True)
        tensors = learner.recipe.from_public(found) if isinstance(found, dict) else None
        if tensors is None:
            raise CardError(
                f"{file} is not in a layout that {learner.card.recipe} knows",
                "give a run folder, or turn it into facekit's weights with: facekit import",
            )
        return tensors

    def log(self, step: int, losses: dict[str, float]) -> None:
        """Append one line of losses."""
        if not self.first or not losses:
            return
        jsonl.append(self.path / LOG, [{"step": step, "losses": losses}])
        console.fact("losses", step=step, losses=losses)
        if self.board:
            for name, value in losses.items():
                self.board.add_scalar(f"loss/{name}", value, step)

    def save(self, learner: TrainState) -> None:
        """Save the model, its previews and, last, the state that a resume starts from.

        Raises Diverged where a weight is not finite; what was saved before stays.
        """
        if not all(bool(torch.isfinite(p).all()) for p in learner.nets.parameters()):
            raise Diverged(
                f"weights became infinite or NaN by step {learner.step}", "lower optim.lr; the last save is untouched"
            )
        if self.first:
            checkpoint.save_model(
                self.path / checkpoint.FILE, learner.exports, {**self.values, "made": {"step": learner.step}}
            )
            self.page.preview(learner)
            self.pace.step = learner.step
            self.page.write(running=learner.step < self.pace.steps)
            with files.replacing(self.path / STATE) as part, part.open("wb") as file:
                torch.save(learner.state(), file)
        distributed.barrier()

    @torch.no_grad()
    def score(self, learner: TrainState, layout: Layout) -> dict[str, Any]:
        """Return what the recipe measures of the finished nets."""
        nets = learner.exports
        was = nets.training
        found = learner.recipe.finish(nets.eval(), layout, self.path)
        nets.train(was)
        return found

    def finish(self, results: dict[str, Any]) -> None:
        """Write the card of the finished run, with its results, and the finished page."""
        self.page.write(running=False)
        claim.finish(self.path, self.values, results)

    def close(self) -> None:
        """Close the TensorBoard file; a page of a run that is not finished says where it stopped."""
        if self.board:
            self.board.close()
        if self.begun and self.pace.step < self.pace.steps:
            self.page.write(running=False)


@contextlib.contextmanager
def _readable(file: Path, hint: str = "--force starts the run again") -> Iterator[None]:
    """Turn what torch raises on a damaged file into MissingError."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(f"{file} cannot be read: {reason}", hint) from error


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingError("tensorboard is not installed", "pip install tensorboard") from error
    return SummaryWriter(str(folder))
