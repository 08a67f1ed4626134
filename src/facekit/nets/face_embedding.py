"""Embeddings of faces that gradients pass through: ONNX recognition models, and LightCNN's published weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CardError, MissingError
from ..ops.losses import wide
from . import onnx_file
from .lightcnn import LIGHTCNN, FaceNet, resized
from .pretrained import read_weights

SIZE = 112  # px, of a model that does not say: what insightface's recognition models take

# What a net sees of a face that `facekit align` cut: share of the edge, and the middle's place down, of half an edge
ARCFACE = (0.883, -0.209)  # eyes 0.315 of the side apart, 0.46 from the top: insightface's template
LIGHTCNN_FRAME = (0.75, 0.004)  # eyes 0.31 from the top, the mouth 0.375 below


def framed(x: Tensor, share: float, rise: float) -> Tensor:
    """Cut images [N, 3, H, W] framed as `facekit align` frames faces to another framing, same size; edges repeat."""
    whole = F.pad(torch.eye(2, device=x.device, dtype=x.dtype), (0, 1)).expand(len(x), 2, 3)
    grid = share * F.affine_grid(whole, list(x.shape), align_corners=False)
    grid[..., 1].add_(rise)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


class OnnxEmbedding(nn.Module):
    """A frozen recognition model: images [N, 3, H, W] in [-1, 1] RGB to embeddings [N, features].

    Images are brought to `size` px, then to (v - mean) / scale with v in 0..255. `alone` gives the graph one image at
    a time: some hold a batch of one.
    """

    def __init__(self, graph: nn.Module, size: int, mean: float, scale: float):
        super().__init__()
        self.graph, self.size, self.mean, self.scale = graph, size, mean, scale
        self.alone, self.features = False, 0
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        x = (resized(x, self.size) * 127.5 + (127.5 - self.mean)) / self.scale
        return torch.cat([self.run(image) for image in x.split(1)]) if self.alone else self.run(x)

    def run(self, x: Tensor) -> Tensor:
        """Return the first output of the graph, flat."""
        found = self.graph(x)
        return (found[0] if isinstance(found, (tuple, list)) else found).flatten(1)

    def train(self, mode: bool = True) -> OnnxEmbedding:
        """Stay as it is: what is frozen does not learn."""
        return super().train(False)


def onnx_embedding(path: str | Path, mean: float = 127.5, scale: float = 128.0) -> OnnxEmbedding:
    """Load a face-recognition model from an ONNX file as a differentiable module.

    `mean` and `scale` normalise the model's input pixels: 127.5 and 127.5 for most of insightface's models,
    0 and 1 for those that subtract the mean themselves. Raises CardError where its weights lie elsewhere than in it or
    beside it, MissingError where the file is missing or broken, or
    where it is not a model of one image [N, 3, S, S].
    """
    if not Path(path).is_file():
        raise MissingError(f"no ONNX file {str(path)!r}", "check the path; insightface's are in ~/.insightface/models")
    path = Path(path)
    try:
        onnx_file.check_external_data(path)
        net = OnnxEmbedding(nn.Identity(), _input_size(path), mean, scale)
        net.graph = _converted(path)
        _probe(net)
    except (CardError, MissingError):
        raise
    except ImportError as error:
        raise MissingError(f"reading {path} needs {error.name}", "pip install onnx2torch") from error
    except Exception as error:  # whatever onnx, onnxruntime and onnx2torch raise on what they cannot read
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise MissingError(f"{path} cannot be used: {reason}", "give a complete ONNX recognition model") from error
    return net


def _input_size(path: Path) -> int:
    """Return the edge of the image that the model takes; raises MissingError where it takes something else."""
    import onnx

    graph = onnx.load(str(path)).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3 or shapes[0][2] != shapes[0][3]:
        found = ", ".join(f"{value.name} {shape}" for value, shape in zip(inputs, shapes, strict=True)) or "nothing"
        raise MissingError(
            f"{path} takes {found} (0: any), not one image [N, 3, S, S]", "give a face-recognition model"
        )
    return shapes[0][2] or SIZE


def _converted(path: Path) -> nn.Module:
    """Turn an ONNX graph into torch, after onnxruntime has folded normalisations into convolutions: 2 times as fast."""
    import onnx
    import onnx2torch
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    _free_batch(model)
    return onnx2torch.convert(model).requires_grad_(False).eval()


def _free_batch(model: Any) -> None:
    """Let Reshape nodes that were exported for a batch of one keep the batch: a 0 in their shape says so."""
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[0] not in weights and node.input[1] in weights:
            tensor = weights[node.input[1]]
            shape = numpy_helper.to_array(tensor).copy()
            if len(shape) and shape[0] == 1:
                shape[0] = 0
                tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


@torch.no_grad()
def _probe(net: OnnxEmbedding) -> None:
    """Find the number of features, and whether the graph takes two images at a time and keeps them apart."""
    x = torch.linspace(-1, 1, 2 * 3 * net.size**2).view(2, 3, net.size, net.size).sin()
    net.alone = True
    apart = net(x)
    net.features = apart.shape[1]
    net.alone = False
    try:
        together = net(x)
    except (RuntimeError, ValueError):
        net.alone = True
    else:
        net.alone = together.shape != apart.shape or not torch.allclose(together, apart, rtol=1e-3, atol=1e-3)


def lightcnn(kind: str, source: str | Path) -> FaceNet:
    """Return a frozen LightCNN (`lightcnn-9`, `lightcnn-29` or `lightcnn-29v2`) with the weights of a file.

    Raises CardError for another kind, MissingError where the file is missing, broken or of another net.
    """
    if kind not in LIGHTCNN:
        raise CardError(f"no face net {kind!r}", f"known: {', '.join(LIGHTCNN)}")
    net = LIGHTCNN[kind]()
    load_lightcnn(net, source)
    return net.requires_grad_(False).eval()


def load_lightcnn(net: FaceNet, source: str | Path) -> None:
    """Give a LightCNN the weights of one of its authors' checkpoints, or of a bare state dict (torch or safetensors).

    A checkpoint keeps them under `state_dict`, their names begin with `module.`, and `fc2`, the classifier, is left
    out. Raises MissingError where the file is missing or broken, or not of this net.
    """
    found = read_weights(Path(source))
    inner: Any = found.get("state_dict")
    if isinstance(inner, dict):
        found = inner
    found = {name.removeprefix("module."): value for name, value in found.items()}
    needed = net.state_dict()
    wrong = [name for name, value in needed.items() if name not in found or found[name].shape != value.shape]
    left = [name for name in found if name not in needed and not name.startswith("fc2.")]
    if wrong or left:
        what = f"{wrong[0]} is missing or of another shape" if wrong else f"it has no {left[0]}"
        raise MissingError(f"{source} is not of a {type(net).__name__}: {what}", "give the file of the same net")
    net.load_state_dict({name: found[name] for name in needed})


class Face(nn.Module):
    """A face-feature net as a frozen helper: faces [N, 3, H, W] in [-1, 1] as `facekit align` cuts them to [N, d].

    `source` is a name, run folder or file of recipe facefeat, an .onnx recognition model, or a LightCNN checkpoint as
    `lightcnn-29v2:FILE`. Raises CardError for weights that do not compute embeddings.
    """

    def __init__(self, source: str, load: Any):
        super().__init__()
        kind, _, file = source.partition(":")
        self.frame: tuple[float, float] | None = None
        self.net: nn.Module
        if kind in LIGHTCNN and file:
            self.net, self.frame = lightcnn(kind, file), LIGHTCNN_FRAME
        elif source.endswith(".onnx"):
            self.net, self.frame = onnx_embedding(source), ARCFACE
        else:
            model = load(source)
            if not hasattr(model.recipe, "embed"):
                raise CardError(f"{source} does not compute face features", "give weights of the recipe facefeat")
            self.net, self.embed = model.nets, model.recipe.embed

    def forward(self, x: Tensor) -> Tensor:
        x = wide(x)
        return self.net(framed(x, *self.frame)) if self.frame else self.embed(self.net, x)


def similarities(embeddings: Tensor) -> Tensor:
    """Return the cosines between all pairs of embeddings [N, d]: [N, N]."""
    unit = F.normalize(embeddings, dim=1)
    return unit @ unit.T


def known_again(views: Tensor, others: Tensor) -> float:
    """Return the share of images whose other view is the nearest of all other views, by cosine (rank 1).

    `views` and `others` are embeddings [N, d] of two views of the same images, in the same order.
    """
    nearest = (F.normalize(views, dim=1) @ F.normalize(others, dim=1).T).argmax(1)
    return (nearest == torch.arange(len(views), device=views.device)).float().mean().item()


def agreement(student: Tensor, teacher: Tensor) -> float:
    """Return the correlation of the pairwise cosines of two embeddings, [N, d] and [N, e], of the same images."""
    above = torch.ones(len(student), len(student), device=student.device).triu(1).bool()
    pairs = torch.stack([similarities(student)[above], similarities(teacher)[above]])
    return torch.corrcoef(pairs)[0, 1].item()
