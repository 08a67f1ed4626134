"""Where else the losses, scores and previews of a run go: TensorBoard, Weights & Biases, MLflow, another package."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ..errors import CardError, FacekitError, MissingError
from ..runtime import console
from ..storage import files, images
from ..storage.card import suggest

GROUP = "facekit.reporters"  # of entry points: NAME = "package:function", called with the run folder and the card
IDS = "reporters.json"  # in the run folder: under which identity a service knows the run
PROJECT = "facekit"


class Reporter(Protocol):
    """Passes on what a run measures. Steps of a continued run may come twice."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Report losses ("loss/NAME") or scores ("score/NAME") of a step."""

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Report a picture of a step."""

    def close(self) -> None:
        """Pass on what is left: the run has finished or stopped."""


class TensorBoard:
    """Writes event files into `tb/` in the run folder."""

    def __init__(self, folder: Path, values: Mapping[str, Any]):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingError("tensorboard is not installed", "pip install tensorboard") from error
        self.writer = SummaryWriter(str(folder / "tb"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Add an image."""
        self.writer.add_image(name, images.to_tensor(picture).add(1).div(2), step)

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


class WeightsAndBiases:
    """A run of the project `facekit`; where it goes is for wandb's own settings to say (WANDB_PROJECT, WANDB_MODE)."""

    def __init__(self, folder: Path, values: Mapping[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise MissingError("wandb is not installed", "pip install wandb") from error
        self.wandb = wandb
        known = _ids(folder).get("wandb")
        name = files.real(folder).name
        self.run = wandb.init(
            project=None if _is_set("WANDB_PROJECT") else PROJECT, name=name, id=known, resume="allow",
            dir=str(folder), config=dict(values),
        )  # fmt: skip
        _keep_id(folder, "wandb", self.run.id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log values."""
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Log an image."""
        self.run.log({name: self.wandb.Image(picture)}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class MLflow:
    """A run of the experiment `facekit`; where it goes is for mlflow's own settings to say (MLFLOW_TRACKING_URI)."""

    def __init__(self, folder: Path, values: Mapping[str, Any]):
        try:
            import mlflow
        except ImportError as error:
            raise MissingError("mlflow is not installed", "pip install mlflow") from error
        self.mlflow, known = mlflow, _ids(folder).get("mlflow")
        if not _is_set("MLFLOW_EXPERIMENT_NAME"):
            mlflow.set_experiment(PROJECT)
        self.run = mlflow.start_run(run_id=known, run_name=None if known else files.real(folder).name)
        _keep_id(folder, "mlflow", self.run.info.run_id)
        if not known:
            mlflow.log_dict(dict(values), "card.json")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log metrics."""
        self.mlflow.log_metrics(dict(values), step=step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Log an image as a file."""
        self.mlflow.log_image(picture, f"{name}/{step:08d}.png")

    def close(self) -> None:
        """End the run."""
        self.mlflow.end_run()


BUILT_IN: dict[str, Callable[[Path, Mapping[str, Any]], Reporter]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def check(names: Sequence[str]) -> None:
    """Raise CardError for a reporter that neither facekit nor an installed package has."""
    known = {**BUILT_IN, **_added(names)}
    for name in names:
        if name not in known:
            raise CardError(f"no reporter {name!r}{suggest(name, tuple(known))}", f"known: {', '.join(known)}")


def _added(names: Sequence[str]) -> dict[str, metadata.EntryPoint]:
    """Return the reporters of other packages by name; none where facekit's own are enough, as looking takes 0.01 s."""
    if all(name in BUILT_IN for name in names):
        return {}
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


class Reporters:
    """Several reporters; one that fails is left out from then on, with a warning, and training goes on."""

    def __init__(self, opened: Mapping[str, Reporter]):
        self.opened = dict(opened)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Report losses or scores of a step to all of them."""
        self._each(lambda reporter: reporter.scalars(step, values))

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Report a picture of a step to all of them."""
        self._each(lambda reporter: reporter.picture(step, name, picture))

    def close(self) -> None:
        """Close all of them."""
        self._each(lambda reporter: reporter.close())

    def _each(self, work: Callable[[Reporter], None]) -> None:
        for name, reporter in list(self.opened.items()):
            try:
                work(reporter)
            except Exception as error:  # services raise errors of their own libraries
                console.warn(f"{name} has failed and gets no more of this run: {type(error).__name__}: {error}")
                del self.opened[name]


def open_reporters(names: Sequence[str], folder: Path, values: Mapping[str, Any]) -> Reporters:
    """Return the reporters of these names for a run folder with its card.

    Raises MissingError where the package of one is missing, or does not start with its settings.
    """
    others = _added(names)
    opened: dict[str, Reporter] = {}
    for name in dict.fromkeys(names):
        try:
            opened[name] = BUILT_IN[name](folder, values) if name in BUILT_IN else others[name].load()(folder, values)
        except FacekitError:
            raise
        except Exception as error:  # services raise errors of their own libraries
            raise MissingError(
                f"--report {name} does not start: {type(error).__name__}: {error}",
                "check its settings, or leave it out",
            ) from error
    return Reporters(opened)


def _ids(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads(files.read_text(folder / IDS)))
    except (OSError, ValueError, TypeError):
        return {}


def _keep_id(folder: Path, name: str, identity: str) -> None:
    files.write_text(folder / IDS, json.dumps({**_ids(folder), name: identity}) + "\n")


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable))
