"""An image-to-image or image-editing pipeline of diffusers as a teacher."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
import yaml
from PIL import Image

from ..errors import CardError, InputError, MissingError
from .teachers import SIZE, Drawn

PREFIX = "diffusers:"
OWN = ("image", "prompt", "generator", "output_type", "return_dict")  # arguments that facekit gives


class DiffusersTeacher:
    """Draws with the pipeline `name`, a folder or a repository of the Hugging Face hub, and a prompt.

    Each face has a seed of its own, from `seed` and its name: a stopped run continues with the same drawings. Only
    safetensors weights are read, and no code of the repository is run. `settings` are `KEY=VALUE` arguments of the
    pipeline. With a `batch` above 1 the pipeline gets that many faces in one call; some pipelines take several images
    as references for one. Raises MissingError without diffusers or the weights, CardError for a pipeline that takes
    no image and for settings that it does not know.
    """

    def __init__(
        self,
        name: str,
        prompt: str | None,
        settings: Sequence[str] = (),
        size: int | None = None,
        device: str = "cpu",
        seed: int = 0,
        batch: int = 1,
    ):
        self.pipeline = load_pipeline(name, device)
        known = inspect.signature(self.pipeline.__call__).parameters
        if "prompt" in known and not prompt:
            raise CardError(f"{name} needs a prompt", "--prompt 'the same person as a flat-colour anime drawing'")
        self.prompt, self.seed = (prompt or "") if "prompt" in known else None, seed
        self.settings = read_settings(settings, [key for key in known if key not in OWN])
        self.size, self.batch, self.inputs = size or SIZE, batch, dict[str, str]()
        for edge in ("height", "width"):
            if edge in known:
                self.settings.setdefault(edge, self.size)

    def draw(self, names: Sequence[str], faces: Sequence[Image.Image]) -> list[Drawn]:
        out: list[Drawn] = []
        for start in range(0, len(faces), self.batch):
            out += self._call(names[start : start + self.batch], [*faces[start : start + self.batch]])
        return out

    def _call(self, names: Sequence[str], faces: list[Image.Image]) -> list[Drawn]:
        generators = [torch.Generator().manual_seed(seed_for(name, self.seed)) for name in names]
        alone = len(faces) == 1
        given: dict[str, Any] = {
            "image": faces[0] if alone else faces,
            "generator": generators[0] if alone else generators,
            **self.settings,
        }
        if self.prompt is not None:
            given["prompt"] = self.prompt if alone else [self.prompt] * len(faces)
        made = self.pipeline(**given).images
        if len(made) != len(faces):
            problem = f"the pipeline gave {len(made)} images for {len(faces)} faces"
            raise CardError(problem, "leave out --batch: it takes one face at a time")
        return [one if isinstance(one, Image.Image) else InputError("the pipeline gave no image") for one in made]


def load_pipeline(name: str, device: str) -> Any:
    """Load a pipeline that takes an image; see `DiffusersTeacher` for what is raised."""
    try:
        import diffusers
    except ImportError as error:
        raise MissingError(
            f"--teacher {PREFIX}{name} needs the package diffusers", "pip install 'facekit-anime[teacher]'"
        ) from error
    diffusers.utils.logging.disable_progress_bar()
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        found = diffusers.DiffusionPipeline.from_pretrained(name, dtype=dtype, use_safetensors=True)
        if "image" not in inspect.signature(found.__call__).parameters:
            found = diffusers.AutoPipelineForImage2Image.from_pipe(found)
    except Exception as error:  # whatever diffusers and the hub raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise MissingError(
            f"the pipeline {name} cannot be loaded: {reason}",
            "give the folder or the hub name of a pipeline that takes an image, with safetensors weights",
        ) from error
    found.set_progress_bar_config(disable=True)
    return found.to(device)


def read_settings(settings: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """Return `KEY=VALUE` texts as arguments; values are read as YAML. Raises CardError for a key not in `known`."""
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise CardError(f"--set {setting} has no value", f"--set {key}=VALUE")
        if key not in known:
            raise CardError(f"the pipeline has no argument {key!r} to set", f"it has: {', '.join(known)}")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise CardError(f"--set {setting} is not a YAML value", "put quotes around it") from error
    return found


def seed_for(name: str, seed: int) -> int:
    """Return the seed of one face: the same whenever and in whatever order it is drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()[:4], "little")
