"""A run folder: what training leaves behind, and how it goes on after a stop."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..data.dataset import Layout
from ..errors import CardError, Diverged, InputError, MissingError
from ..recipe_api import checkpoint, registry
from ..reports import contact_sheet
from ..runtime import console, distributed
from ..storage import card, files, images
from ..storage import claim as folder_claim
from ..storage.jsonl import read_lines
from .loop import TrainState

STATE = "state.pt"
LOG = "log.jsonl"
LEFT = (
    card.NAME,
    card.UNFINISHED,
    STATE,
    LOG,
    checkpoint.FILE,
    "losses.png",
    "index.html",
    "previews/*.png",
    "tb/events.*",
)


def claim(folder: Path, values: dict[str, Any], force: bool) -> folder_claim.State:
    """Say whether the run of card `values` is new in `folder`, unfinished or finished there; see `storage.claim`.

    What an earlier run left goes before the folder is claimed for a new one, the cards first: killed in between, the
    next start finds nothing of it to go on from.
    """
    if force or not any((folder / name).exists() for name in (card.NAME, card.UNFINISHED)):
        for pattern in LEFT:
            for old in folder.glob(pattern):
                old.unlink()
    state = folder_claim.take(folder, values, complete=registry.completed)
    if state == "unfinished":
        files.sweep(folder)
    return state


class RunFolder:
    """Saves and restores a run: `model.safetensors`, `state.pt`, `log.jsonl`, `previews/`, `index.html`."""

    def __init__(self, path: Path, values: dict[str, Any], held: dict[str, list[Path]], tensorboard: bool = False):
        self.path, self.values = path, values
        self.first = distributed.rank() == 0
        self.held = held
        self.board = _board(path / "tb") if tensorboard and self.first else None

    def resume(self, learner: TrainState) -> bool:
        """Take the run up where its last save left it; returns False where there is no save.

        Raises MissingError for a state file that is damaged.
        """
        file = self.path / STATE
        if not file.exists():
            return False
        with _readable(file):
            learner.restore(torch.load(file, map_location=learner.device, weights_only=True))
        if self.first:
            rows = [row for row in read_lines(self.path / LOG) if row["step"] <= learner.step]
            files.write_text(self.path / LOG, "".join(json.dumps(row) + "\n" for row in rows))
            for preview in (self.path / "previews").glob("*.png"):
                if preview.stem.isdigit() and int(preview.stem) > learner.step:
                    preview.unlink()
        return True

    def start_from(self, learner: TrainState, init: str) -> None:
        """Take first weights from another run folder (all its nets as they were saved) or from a model.

        Raises CardError where less than half of those weights fit.
        """
        state = Path(init) / STATE
        if state.is_file():
            with _readable(state):
                found = torch.load(state, map_location="cpu", weights_only=True)["nets"]
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
        if learner.ema is not None:
            learner.ema.load_state_dict({key: learner.nets.state_dict()[key] for key in learner.ema.state_dict()})
        console.note(f"train: first weights from {init}: {len(fitting)} of {len(own)} tensors")

    def log(self, step: int, losses: dict[str, float]) -> None:
        """Append one line of losses."""
        if not self.first or not losses:
            return
        files.append_line(self.path / LOG, json.dumps({"step": step, "losses": losses}))
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
            self.preview(learner)
            with files.replacing(self.path / STATE) as part, part.open("wb") as file:
                torch.save(learner.state(), file)
        distributed.barrier()

    @functools.cached_property
    def faces(self) -> dict[str, list[Image.Image]]:
        """The first held-out images of each domain that can be decoded: previews always show the same."""
        size = self.values["data"]["size"]
        return {side: list(itertools.islice(_decoded(paths, size), 8)) for side, paths in self.held.items()}

    @torch.no_grad()
    def preview(self, learner: TrainState) -> None:
        """Write the preview of this step, the plot of the losses, and the page that shows both."""
        tables = []
        for to, source in learner.recipe.previews().items():
            faces = self.faces[source]
            if faces:
                tables.append(_preview_table(learner, faces, to))
        if tables:
            images.save(_stack(tables), self.path / "previews" / f"{learner.step:08d}.png")
            if self.board:
                self.board.add_image("preview", images.to_tensor(_stack(tables)).add(1).div(2), learner.step)
        plot_losses(self.path)
        contact_sheet.preview_page(self.path, f"{self.values['recipe']}: {self.path.name}", card.dump(self.values))

    @torch.no_grad()
    def score(self, learner: TrainState, layout: Layout) -> dict[str, Any]:
        """Return what the recipe measures of the finished nets."""
        nets = learner.exports
        was = nets.training
        found = learner.recipe.finish(nets.eval(), layout, self.path)
        nets.train(was)
        return found

    def close(self) -> None:
        """Let go of what is open."""
        if self.board:
            self.board.close()


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn what torch raises on a damaged state file into MissingError."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(f"{file} cannot be restored: {reason}", "--force starts the run again") from error


def _decoded(paths: list[Path], size: int) -> Iterator[Image.Image]:
    for path in paths:
        try:
            yield images.resize(images.square(images.read(path)), size)
        except InputError as error:
            console.warn(f"{error.message}; left out of the previews")


def _preview_table(learner: TrainState, faces: list[Image.Image], to: str) -> Image.Image:
    size, recipe = learner.card.data.size, learner.recipe
    nets = torch.nn.ModuleDict({**learner.nets, **learner.exports})
    was = learner.exports.training
    nets.eval()
    dtype = next(nets.parameters()).dtype
    columns: dict[str, list[Image.Image]] = {}
    for image in faces:  # one by one: a preview must not need more memory than a training step
        x = images.to_tensor(image)[None].to(learner.device, dtype)
        for title, y in recipe.preview(nets, x, to).items():
            columns.setdefault(title, []).append(images.to_image(y[0]))
    nets.train(was)
    name = next(name for name, side in recipe.targets(learner.card.domains).items() if side == to)
    columns = {name if title == "translation" else title: column for title, column in columns.items()}
    rows = [list(row) for row in zip(faces, *columns.values(), strict=True)]
    groups = 2 if len(columns) < 4 else 1
    return contact_sheet.contact_sheet(rows, ["input", *columns], size=min(size, 256), groups=groups)


def _stack(tables: list[Image.Image]) -> Image.Image:
    page = Image.new("RGB", (max(t.width for t in tables), sum(t.height for t in tables)), contact_sheet.PAPER)
    top = 0
    for table in tables:
        page.paste(table, (0, top))
        top += table.height
    return page


def plot_losses(folder: Path) -> None:
    """Draw `losses.png` from `log.jsonl`: every term over the steps, on a logarithmic scale where it can be."""
    rows = list(read_lines(folder / LOG))
    if not rows:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(name for row in rows for name in row["losses"]))
    for name in names:
        points = [(row["step"], row["losses"][name]) for row in rows if name in row["losses"]]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1, marker="." if len(points) < 30 else None)
    if all(value > 0 for row in rows for value in row["losses"].values()):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, unweighted")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    with files.replacing(folder / "losses.png") as part:
        canvas.print_png(str(part))


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingError("tensorboard is not installed", "pip install tensorboard") from error
    return SummaryWriter(str(folder))


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list given instead of dying of them; a second SIGINT kills at once."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    old = {}
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
