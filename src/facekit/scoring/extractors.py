"""What makes features of images: clean-fid's Inception, facekit's own net, or any ONNX or TorchScript file."""

from __future__ import annotations

import contextlib
import platform
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CardError, FacekitError, MissingError
from ..nets import onnx_file
from ..runtime import console
from ..runtime.cores import usable_cores
from ..storage import files
from ..storage.cache import cache_folder
from . import torchscript
from .named_features import NAMED, OWN, Named, split
from .pixel_scales import SCALES, describe

CLEAN = "clean-fid"
CLEAN_FILE = "inception-2015-12-05.pt"
CLEAN_ADDRESS = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{CLEAN_FILE}"
EDGE = 299
BATCH = 8
MAX_WORKERS = 4  # each holds the activations of a batch
Net = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Extractor:
    """A net that makes features: `run` maps pixels [n, 3, edge, edge], RGB floats in 0..255, to features [n, dim].

    `unit` ends the names of its scores: "clean", a name, or the dimension. `digest` is that of the weights. Several
    threads may call `run` at once, best within `shared(threads)`, which gives each its share of the cores. `cmmd`:
    whether the features are those that CMMD is defined on. Sent to another process, it is loaded there with the
    arguments of `load` that are `given`.
    """

    name: str
    unit: str
    dim: int
    edge: int
    preprocessing: str
    digest: str
    run: Net
    batch: int = BATCH
    shared: Callable[[int], AbstractContextManager[Any]] = contextlib.nullcontext
    cmmd: bool = False
    given: tuple[Any, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return load, self.given


def load(
    spec: str | Path = CLEAN,
    preprocessing: str = "inception",
    edge: int | None = None,
    device: str = "auto",
    allow_torchscript: bool = False,
) -> Extractor:
    """Return the Extractor for "clean-fid", "facekit", "NAME:FILE" with a name of NAMED, or a file.

    A file is ONNX, TorchScript, or weights of the recipe `features` ("facekit" are those that facekit ships; a run
    folder is good, too). `preprocessing` is one of SCALES; `edge` the input size in px if the file leaves it open (299
    by default); named features bring both. A file named CLEAN_FILE is taken as clean-fid's own. `allow_torchscript`
    runs TorchScript code of any kind, see `torchscript`. Raises MissingError for weights that are missing, cannot be
    downloaded, are damaged or take no square RGB images; CardError for settings that contradict the file and for code
    that is not allowed.
    """
    if preprocessing not in SCALES:
        raise CardError(f"no preprocessing {preprocessing!r}", f"one of {', '.join(SCALES)}")
    name, _ = split(spec)
    if is_clean(spec) and (preprocessing != "inception" or edge not in (None, EDGE)):
        raise CardError(
            f"clean-fid's net takes {EDGE} px and scales pixels itself", "leave out --preprocessing and --input-size"
        )
    if is_own(spec) and (preprocessing != "inception" or edge):
        raise CardError(f"{spec} says itself what it takes", "leave out --preprocessing and --input-size")
    if name and preprocessing != "inception":
        raise CardError(f"{name} scales pixels itself", "leave out --preprocessing")
    return replace(
        _load(spec, preprocessing, edge, device, allow_torchscript),
        given=(spec, preprocessing, edge, device, allow_torchscript),
    )


def _load(spec: str | Path, preprocessing: str, edge: int | None, device: str, allow_torchscript: bool) -> Extractor:
    (name, _), path = split(spec), find(spec)
    if is_clean(spec):
        return _clean(path, device, allow_torchscript)
    if is_own(spec):
        return _own(path, device)
    if name:
        return _of_file(path, NAMED[name].preprocessing, edge, device, allow_torchscript, NAMED[name])
    return _of_file(path, preprocessing, edge, device, allow_torchscript)


def _of_file(
    path: Path, preprocessing: str, edge: int | None, device: str, trusted: bool, named: Named | None = None
) -> Extractor:
    """Return the Extractor of an ONNX or TorchScript file."""
    of_onnx = path.suffix.lower() == ".onnx"
    usual = named.edge if named else EDGE
    net, edge, batch = (
        _onnx(path, edge, device, usual) if of_onnx else _torchscript(path, edge or usual, device, trusted)
    )
    formula, subtract, divide = SCALES[preprocessing]
    low, wide = (np.array(v, dtype=np.float32).reshape(1, -1, 1, 1) for v in (subtract, divide))

    def run(pixels: np.ndarray) -> np.ndarray:
        found = net((pixels - low) / wide)
        return _flat(named.pooled(found) if named else found, len(pixels), path)

    dim = _try(path, edge, run).shape[1]
    shared = contextlib.nullcontext if of_onnx else _torch_threads
    unit, text = (named.unit if named else str(dim)), describe(edge, formula)
    digest = files.digest(path)
    return Extractor(path.name, unit, dim, edge, text, digest, run, batch, shared, bool(named and named.gaussian))


def is_clean(spec: str | Path) -> bool:
    """Return whether `spec` means clean-fid's own net."""
    return str(spec) == CLEAN or Path(spec).name == CLEAN_FILE


def is_own(spec: str | Path) -> bool:
    """Return whether `spec` means weights of the recipe `features`: facekit's, a run folder or a .safetensors file."""
    return str(spec) == OWN or Path(spec).suffix == ".safetensors" or Path(spec).is_dir()


def find(spec: str | Path) -> Path:
    """Return the features file that `spec` means, clean-fid's downloaded if need be; raises MissingError."""
    if str(spec) == CLEAN:
        return clean_file()
    if is_own(spec):
        from ..recipe_api import checkpoint

        return checkpoint.find_weights("features" if str(spec) == OWN else Path(spec).expanduser())
    name, file = split(spec)
    path = Path(file).expanduser()
    if name and not path.is_file():
        raise MissingError(
            f"no features file {path}", f"{name} needs {NAMED[name].needs}; see docs/commands/score-fid.md"
        )
    if not path.is_file():
        raise MissingError(
            f"no features file {path}",
            f"give an ONNX or TorchScript file (clean-fid's is at {CLEAN_ADDRESS}; docs/commands/score-fid.md lists "
            "others), or leave --features out",
        )
    return path


def default_workers() -> int:
    """Return how many batches run at once: several nets on few threads each are faster than one on many."""
    return min(MAX_WORKERS, usable_cores())


def clean_file() -> Path:
    """Return clean-fid's weights, from where it keeps them or from our cache; it downloads them there if need be.

    Raises MissingError if they cannot be downloaded.
    """
    from cleanfid import downloads_helper

    theirs = Path("./" if platform.system() == "Windows" else "/tmp") / CLEAN_FILE
    ours = cache_folder() / CLEAN_FILE
    for path in (theirs, ours):
        if path.is_file():
            return path
    console.note(f"clean-fid downloads its weights to {ours}")
    files.make_folder(ours.parent)
    try:
        with tempfile.TemporaryDirectory(dir=ours.parent) as place:  # a cut download never gets the name
            Path(downloads_helper.check_download_inception(fpath=place)).replace(ours)
    except (OSError, HTTPException) as error:
        raise MissingError(
            f"clean-fid cannot download its weights: {error}",
            f"go online, fetch {CLEAN_ADDRESS} elsewhere and give --features {CLEAN_FILE}, "
            "or give --features with another ONNX or TorchScript file",
        ) from error
    return ours


def _flat(found: np.ndarray, count: int, path: Path) -> np.ndarray:
    """Return a net's output as [n, d]; maps of one pixel are features too."""
    if found.ndim < 2 or len(found) != count or found[0].size != found.shape[1]:
        raise MissingError(
            f"{path} gives {list(found.shape)} for {count} images, not one row of features each",
            "export it with the pooling that makes one vector of an image",
        )
    return found.reshape(count, -1)


def _try(path: Path, edge: int, run: Net) -> np.ndarray:
    """Run a net once on a grey image; raises MissingError if it takes no such input."""
    try:
        return run(np.full((1, 3, edge, edge), 128, dtype=np.float32))
    except FacekitError:
        raise
    except Exception as error:  # onnxruntime and TorchScript raise exceptions of every kind
        raise MissingError(
            f"{path} does not take RGB images of {edge} px: {_reason(error)}", "give its input size with --input-size"
        ) from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


def _onnx(path: Path, edge: int | None, device: str, usual: int) -> tuple[Net, int, int]:
    """Return an ONNX file as a function of scaled pixels, its input size, and the batch that it takes.

    `usual` is the input size where neither the file nor `edge` says one.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores() - default_workers() + 1  # one pool that all callers share
    try:
        onnx_file.check_external_data(path)
        session = onnxruntime.InferenceSession(str(path), options, providers=_providers(onnxruntime, device))
    except CardError:
        raise
    except Exception as error:
        raise MissingError(
            f"{path} is not a complete ONNX file: {_reason(error)}", "download or export it again"
        ) from error
    first, feature = session.get_inputs()[0], session.get_outputs()[0].name
    shape = list(first.shape)
    fixed = [axis for axis in shape[2:] if isinstance(axis, int)]
    other_axes = len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3)
    if other_axes or len(set(fixed)) > 1 or first.type != "tensor(float)" or len(session.get_inputs()) > 1:
        raise MissingError(
            f"{path} takes {first.name} {shape} of {first.type}, not square RGB images as floats",
            "a features file takes [n, 3, edge, edge]",
        )
    if edge and fixed and edge != fixed[0]:
        raise CardError(f"{path} takes images of {fixed[0]} px, not {edge}", "leave out --input-size")
    batch = 1 if shape[0] == 1 else BATCH
    return lambda x: session.run([feature], {first.name: x})[0], fixed[0] if fixed else edge or usual, batch


def _providers(onnxruntime: Any, device: str) -> list[str]:
    cuda = "CUDAExecutionProvider"
    there = cuda in onnxruntime.get_available_providers()
    if device.startswith("cuda") and not there:
        raise CardError("this onnxruntime has no CUDA", "pip install onnxruntime-gpu, or --device cpu")
    return [cuda, "CPUExecutionProvider"] if there and device != "cpu" else ["CPUExecutionProvider"]


def _torchscript(path: Path, edge: int, device: str, trusted: bool) -> tuple[Net, int, int]:
    """Return a TorchScript file as a function of scaled pixels, its input size, and the batch that it takes."""
    import torch

    from ..runtime.device import find_device

    place = find_device(device)
    try:
        net = torchscript.load(path, place, trusted)
    except CardError:
        raise
    except Exception as error:
        raise MissingError(
            f"{path} is neither a complete ONNX nor a TorchScript file: {_reason(error)}",
            "ONNX files end in .onnx; write the other kind with torch.jit.save",
        ) from error
    return _of_torch(net, place, torch.contiguous_format), edge, BATCH


def _of_torch(net: Any, place: str, memory_format: Any) -> Net:
    import torch

    @torch.inference_mode()
    def run(x: np.ndarray) -> np.ndarray:
        found = net(torch.from_numpy(x).to(place).contiguous(memory_format=memory_format))
        found = found[0] if isinstance(found, (tuple, list)) else found
        return found.float().cpu().numpy()

    return run


def _own(path: Path, device: str) -> Extractor:
    """Return the Extractor of weights of the recipe `features`."""
    import torch

    from ..recipe_api import checkpoint
    from ..runtime.device import find_device

    place = find_device(device)
    model = checkpoint.load_model(path, place)
    recipe: Any = model.recipe
    if not callable(getattr(recipe, "describe", None)):
        raise CardError(f"{path} makes no features of images", "give weights of the recipe features")
    run_net = _of_torch(lambda x: recipe.describe(model.nets, x), place, torch.contiguous_format)

    def run(pixels: np.ndarray) -> np.ndarray:
        return run_net(pixels / np.float32(127.5) - 1)

    dim, unit = _try(path, recipe.size, run).shape[1], "facekit" if path == checkpoint.shipped().get("features") else ""
    text = describe(recipe.size, SCALES["symmetric"][0])
    return Extractor(
        path.name, unit or str(dim), dim, recipe.size, text, files.digest(path), run, 4 * BATCH, _torch_threads
    )


def _torch_threads(count: int) -> AbstractContextManager[None]:
    from ..runtime.device import share_threads

    return share_threads(count)


def _clean(path: Path, device: str, trusted: bool) -> Extractor:
    """Return clean-fid's own extractor: the layers of its net, with pixels scaled as clean-fid scales them."""
    import torch

    from ..runtime.device import find_device

    place = find_device(device)
    ours = path.parent == cache_folder()  # clean-fid downloaded it from its own address
    try:
        net = torchscript.load(path, place, trusted or ours).layers.to(memory_format=torch.channels_last)
        with contextlib.suppress(RuntimeError), warnings.catch_warnings():  # a net that cannot be frozen works as it is
            warnings.simplefilter("ignore")
            net = torch.jit.freeze(net)  # folds batch norms into convolutions
    except CardError:
        raise
    except Exception as error:
        raise MissingError(f"{path} is damaged: {_reason(error)}", f"remove it: rm {path}") from error
    layers = _of_torch(net, place, torch.channels_last)

    def run(pixels: np.ndarray) -> np.ndarray:
        return _flat(layers((pixels - 128) / 128), len(pixels), path)

    dim = _try(path, EDGE, run).shape[1]
    text = describe(EDGE, SCALES["inception"][0])
    digest = files.digest(path)
    return Extractor(f"clean-fid {CLEAN_FILE}", "clean", dim, EDGE, text, digest, run, shared=_torch_threads)
