"""Teachers: what draws the second image of each pair, by weights, by an ONNX file, or already drawn in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import CardError, InputError, MissingError
from ..inference.translator import Translator
from ..nets import onnx_file
from ..recipe_api import checkpoint
from ..storage import files, images
from ..storage.folder import Folder, output_names

Drawn = Image.Image | Exception
SIZE = 256  # px, of teachers that take any size


class Teacher(Protocol):
    """What draws faces.

    `size` is the edge in px of the faces that it takes, `batch` how many it is given at a time, `inputs` the digests
    of the files that it was loaded from.
    """

    size: int
    batch: int
    inputs: dict[str, str]

    def draw(self, names: Sequence[str], faces: Sequence[Image.Image]) -> list[Drawn]:
        """Draw faces, squares of `size` px, whose files in the output have these names.

        An exception in the place of an image is the failure of that one.
        """
        ...


class WeightsTeacher:
    """Weights of facekit as a teacher."""

    def __init__(self, weights: str, to: str | None, size: int | None, device: str, recipe: str | None = None):
        model = checkpoint.load_model(weights, device, recipe)
        self.translator = Translator(model, to, size)
        if model.recipe.needs_source:
            raise CardError(
                f"{model.card.recipe} must know what each face is, which pairs does not tell it",
                "draw with `facekit translate`, then give that folder as --teacher",
            )
        self.size, self.batch = self.translator.size, 1 if device == "cpu" else 32
        self.inputs = {"teacher": files.digest(model.path)}

    def draw(self, names: Sequence[str], faces: Sequence[Image.Image]) -> list[Drawn]:
        return [*self.translator.batch(faces)]


class OnnxTeacher:
    """A generator in an ONNX file: one image in, one out, [N, 3, H, W] or [N, H, W, 3], values in [-1, 1].

    Raises CardError for a file that takes something else or no faces of `size` px, MissingError for one that cannot be
    loaded.
    """

    def __init__(self, path: Path, size: int | None = None):
        import onnxruntime

        try:
            onnx_file.check_external_data(path)
            self.session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
        except CardError:
            raise
        except Exception as error:  # whatever onnx and onnxruntime raise on what they cannot read
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise MissingError(f"{path} cannot be loaded: {reason}", "give a complete ONNX generator") from error
        self.input, shape = self._image_input(path)
        self.channels_last = shape[1] != 3
        edges = {edge for edge in (shape[1:3] if self.channels_last else shape[2:4]) if isinstance(edge, int)}
        if edges and (len(edges) > 1 or size not in (None, *edges)):
            hint = f"--size {edges.pop()}" if len(edges) == 1 else "give a generator of square images"
            raise CardError(f"{path} takes images of {' x '.join(map(str, shape[1:]))} only", hint)
        self.size = edges.pop() if edges else size or SIZE
        self.batch = shape[0] if isinstance(shape[0], int) else 8
        self.fixed_batch = isinstance(shape[0], int)
        self.inputs = {"teacher": files.digest(path)}

    def _image_input(self, path: Path) -> tuple[str, list[Any]]:
        inputs = self.session.get_inputs()
        shape = list(inputs[0].shape) if len(inputs) == 1 else []
        if len(shape) != 4 or 3 not in (shape[1], shape[3]) or "float" not in inputs[0].type:
            found = ", ".join(f"{value.name} {value.shape}" for value in inputs)
            raise CardError(f"{path} takes {found}, not one image with three colours", "give an image generator")
        return inputs[0].name, shape

    def draw(self, names: Sequence[str], faces: Sequence[Image.Image]) -> list[Drawn]:
        x = np.stack([np.asarray(face, np.float32) for face in faces]) / 127.5 - 1
        if self.fixed_batch and len(x) < self.batch:
            x = np.concatenate([x, np.repeat(x[-1:], self.batch - len(x), 0)])
        given = x if self.channels_last else x.transpose(0, 3, 1, 2)
        made = self.session.run(None, {self.input: np.ascontiguousarray(given)})[0][: len(faces)]
        if made.ndim == 4 and made.shape[1] == 3:
            made = made.transpose(0, 2, 3, 1)
        if made.ndim != 4 or made.shape[3] != 3:
            raise CardError(f"the ONNX file gives {list(made.shape)}, which is no image", "give an image generator")
        if not np.isfinite(made).all():
            return [InputError("the teacher's image holds values that are not finite")] * len(faces)
        pixels = (made * 127.5 + 127.5).clip(0, 255).round().astype(np.uint8)
        return [Image.fromarray(one) for one in pixels]


class FolderTeacher:
    """A folder of drawings that are finished, with the names of the faces; the file type may differ."""

    def __init__(self, folder: Path, size: int | None = None):
        sources = Folder(folder).sources()
        named = output_names(sources)
        self.paths = {named[source.name]: source.path for source in sources}
        self.size, self.batch, self.inputs = size or SIZE, 16, dict[str, str]()

    def draw(self, names: Sequence[str], faces: Sequence[Image.Image]) -> list[Drawn]:
        return [self._read(name) for name in names]

    def _read(self, name: str) -> Drawn:
        if name not in self.paths:
            return InputError("the teacher's folder has no drawing of this name")
        try:
            return images.square(images.read(self.paths[name]))
        except InputError as error:
            return error
