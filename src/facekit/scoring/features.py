"""Features of images for scores: what makes them (clean-fid's Inception, any ONNX or TorchScript file), and a cache.

Images are resized as clean-fid does it: each channel as floats, Pillow's bicubic filter, not rounded to bytes again
(Parmar et al. 2022, arXiv 2104.11222).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CardError, FacekitError, InputError, MissingError, OutputError
from ..runtime import console
from ..storage import files, images
from ..storage.cache import cache_folder
from ..storage.folder import Folder, Source

CLEAN = "clean-fid"
CLEAN_FILE = "inception-2015-12-05.pt"
EDGE = 299
BATCH = 8
WORKERS = 4  # at most; each holds the maps of a batch
FORMAT = 1  # of the cache
SCALES = {  # what a net is given for a pixel v in 0..255: how it is written, what is subtracted, what divides
    "inception": ("(v - 128) / 128", (128.0,), (128.0,)),
    "symmetric": ("(v - 127.5) / 127.5", (127.5,), (127.5,)),
    "unit": ("v / 255", (0.0,), (255.0,)),
    "imagenet": ("(v / 255 - mean) / std of ImageNet", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "bytes": ("v from 0 to 255", (0.0,), (1.0,)),
}


@dataclass(frozen=True)
class Extractor:
    """What makes features: `run` maps pixels [n, 3, edge, edge], RGB floats in 0..255, to features [n, dim].

    `unit` ends the names of its scores: "clean", or the dimension. `digest` is that of the weights. Several threads may
    `run` at once, best within `shared(threads)`, which leaves each its share of the cores.
    """

    name: str
    unit: str
    dim: int
    edge: int
    preprocessing: str
    digest: str
    run: Callable[[np.ndarray], np.ndarray]
    batch: int = BATCH
    shared: Callable[[int], AbstractContextManager[Any]] = contextlib.nullcontext


def load(
    spec: str | Path = CLEAN, preprocessing: str = "inception", edge: int | None = None, device: str = "auto"
) -> Extractor:
    """Return the Extractor for "clean-fid", or for an ONNX or TorchScript file.

    `preprocessing` is one of SCALES; `edge` the input size in px where the file leaves it open (299 if absent).
    A file named as clean-fid names its own is taken as that. Raises MissingError for weights that are missing, cannot
    be downloaded, are damaged or take no square RGB images; CardError for settings that contradict the file.
    """
    if preprocessing not in SCALES:
        raise CardError(f"no preprocessing {preprocessing!r}", f"one of {', '.join(SCALES)}")
    path = Path(spec).expanduser()
    if str(spec) == CLEAN or path.name == CLEAN_FILE:
        if preprocessing != "inception" or edge not in (None, EDGE):
            raise CardError(f"clean-fid's net takes {EDGE} px and scales them itself", "leave both settings out")
        return _clean(path if path.name == CLEAN_FILE else None, device)
    if not path.is_file():
        raise MissingError(f"no features file {path}", "give an ONNX or TorchScript file, or leave --features out")
    of_onnx = path.suffix.lower() == ".onnx"
    load_net = _onnx if of_onnx else _torchscript
    text, subtract, divide = SCALES[preprocessing]
    low, wide = (np.array(v, dtype=np.float32).reshape(1, -1, 1, 1) for v in (subtract, divide))
    net, edge, batch = load_net(path, edge, device)

    def run(pixels: np.ndarray) -> np.ndarray:
        return _flat(net((pixels - low) / wide), len(pixels), path)

    dim = _try(path, edge, run).shape[1]
    shared = contextlib.nullcontext if of_onnx else _torch_threads
    return Extractor(path.name, str(dim), dim, edge, _told(edge, text), files.digest(path), run, batch, shared)


def _told(edge: int, scale: str) -> str:
    return f"RGB, Pillow bicubic per channel in float to {edge} px, clipped to 0..255, {scale}"


def _flat(found: np.ndarray, count: int, path: Path) -> np.ndarray:
    """Return a net's output as [n, d]; maps of one pixel are features too."""
    if found.ndim < 2 or len(found) != count or found[0].size != found.shape[1]:
        raise MissingError(
            f"{path} gives {list(found.shape)} for {count} images, not one row of features each",
            "export it with the pooling that makes one vector of an image",
        )
    return found.reshape(count, -1)


def _try(path: Path, edge: int, run: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Run a net once on a grey image; raises MissingError where it takes no such input."""
    try:
        return run(np.full((1, 3, edge, edge), 128, dtype=np.float32))
    except FacekitError:
        raise
    except Exception as error:  # onnxruntime and TorchScript raise whatever comes to hand
        raise MissingError(
            f"{path} does not take RGB images of {edge} px: {_reason(error)}", "give its own size with --input-size"
        ) from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


def _onnx(path: Path, edge: int | None, device: str) -> tuple[Callable[[np.ndarray], np.ndarray], int, int]:
    """Return an ONNX file as a function of scaled pixels, its input size, and the batch that it takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = (os.cpu_count() or 1) - _workers() + 1  # one pool for all; each caller works, too
    try:
        given = onnxruntime.InferenceSession(str(path), options, providers=_providers(onnxruntime, device))
    except CardError:
        raise
    except Exception as error:
        raise MissingError(f"{path} is not a whole ONNX file: {_reason(error)}", "fetch or export it again") from error
    first, feature = given.get_inputs()[0], given.get_outputs()[0].name
    shape = list(first.shape)
    fixed = [axis for axis in shape[2:] if isinstance(axis, int)]
    other_axes = len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3)
    if other_axes or len(set(fixed)) > 1 or first.type != "tensor(float)" or len(given.get_inputs()) > 1:
        raise MissingError(
            f"{path} takes {first.name} {shape} of {first.type}, not square RGB images as floats",
            "a features file takes [n, 3, edge, edge]",
        )
    if edge and fixed and edge != fixed[0]:
        raise CardError(f"{path} takes images of {fixed[0]} px, not {edge}", "leave out --input-size")
    batch = 1 if shape[0] == 1 else BATCH
    return lambda x: given.run([feature], {first.name: x})[0], fixed[0] if fixed else edge or EDGE, batch


def _providers(onnxruntime: Any, device: str) -> list[str]:
    cuda = "CUDAExecutionProvider"
    there = cuda in onnxruntime.get_available_providers()
    if device.startswith("cuda") and not there:
        raise CardError("this onnxruntime has no CUDA", "pip install onnxruntime-gpu, or --device cpu")
    return [cuda, "CPUExecutionProvider"] if there and device != "cpu" else ["CPUExecutionProvider"]


def _torchscript(path: Path, edge: int | None, device: str) -> tuple[Callable[[np.ndarray], np.ndarray], int, int]:
    """Return a TorchScript file as a function of scaled pixels, its input size, and the batch that it takes."""
    import torch

    from ..runtime.device import find_device

    place = find_device(device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
            net = torch.jit.load(str(path), map_location=place).eval()
    except Exception as error:
        raise MissingError(
            f"{path} is neither a whole ONNX nor a TorchScript file: {_reason(error)}",
            "ONNX files end in .onnx; make the other with torch.jit.save",
        ) from error
    return _of_torch(net, place, torch.contiguous_format), edge or EDGE, BATCH


def _of_torch(net: Any, place: str, memory_format: Any) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    @torch.inference_mode()
    def run(x: np.ndarray) -> np.ndarray:
        found = net(torch.from_numpy(x).to(place).contiguous(memory_format=memory_format))
        found = found[0] if isinstance(found, (tuple, list)) else found
        return found.float().cpu().numpy()

    return run


def _torch_threads(count: int) -> AbstractContextManager[None]:
    from ..runtime.device import share_threads

    return share_threads(count)


def _workers() -> int:
    """Return how many batches are worked on at once: several nets of few threads outrun one of many."""
    return min(WORKERS, os.cpu_count() or 1)


def _clean(path: Path | None, device: str) -> Extractor:
    """Return clean-fid's own extractor; its weights come from where it publishes them."""
    try:
        from cleanfid.inception_torchscript import InceptionV3W
    except ImportError as error:
        raise MissingError(
            f"clean-fid is not here: {error}", "pip install clean-fid, or give --features FILE"
        ) from error
    import torch

    from ..runtime.device import find_device

    place = find_device(device)
    path = path or clean_file()
    if not path.is_file():
        raise MissingError(f"no features file {path}", "leave --features out to download it, or give another file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
            net = InceptionV3W(str(path.parent), download=False).to(place, memory_format=torch.channels_last).eval()
            with contextlib.suppress(RuntimeError):  # what cannot be frozen works as it is
                net.layers, net.base = torch.jit.freeze(net.layers), None  # folds batch norms into convolutions
    except (RuntimeError, ValueError, AttributeError) as error:
        raise MissingError(f"{path} is damaged: {_reason(error)}", f"remove it: rm {path}") from error
    run = _of_torch(net, place, torch.channels_last)
    dim = _try(path, EDGE, run).shape[1]
    text = _told(EDGE, SCALES["inception"][0])
    digest = files.digest(path)
    return Extractor(f"clean-fid {CLEAN_FILE}", "clean", dim, EDGE, text, digest, run, shared=_torch_threads)


def clean_file() -> Path:
    """Return clean-fid's weights, from where it keeps them or from our cache, downloaded by it if need be.

    Raises MissingError where they cannot be downloaded.
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
        with tempfile.TemporaryDirectory(dir=ours.parent) as place:  # it would leave a cut download under the name
            Path(downloads_helper.check_download_inception(fpath=place)).replace(ours)
    except (OSError, HTTPException) as error:
        raise MissingError(
            f"clean-fid cannot download its weights: {error}",
            f"go online, fetch {downloads_helper.inception_url} elsewhere and give --features {CLEAN_FILE}, "
            "or give --features with another ONNX or TorchScript file",
        ) from error
    return ours


class ImageSet:
    """The images of a folder that are scored: sources, sizes, file types, and a digest of names and contents.

    `failed` holds the reasons by name of those that cannot be read, now or later. Raises InputError for a folder that
    is missing or has no images.
    """

    def __init__(self, folder: str | Path, limit: int | None = None):
        self.path = Path(folder)
        self.sources = Folder(folder).sources()[:limit]
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.kinds: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        found = hashlib.sha256()
        for source in self.sources:
            try:
                data = source.path.read_bytes()
                self.sizes[images.size_of(source.path)] += 1
            except (InputError, OSError) as error:
                self.fail(source, error)
                continue
            self.kinds[_kind(data, source.name)] += 1
            found.update(f"{source.name}\0{hashlib.sha256(data).hexdigest()}\n".encode("utf-8", "backslashreplace"))
        self.digest = found.hexdigest()[:16]

    @property
    def good(self) -> list[Source]:
        """The sources that have not failed."""
        return [source for source in self.sources if source.name not in self.failed]

    def fail(self, source: Source, error: Exception) -> None:
        """Note that an image cannot be read."""
        self.failed[source.name] = error.message if isinstance(error, FacekitError) else str(error)
        console.warn(f"left out: {self.failed[source.name]}")

    def __len__(self) -> int:
        return len(self.good)


def _kind(data: bytes, name: str) -> str:
    """Return what a file is by its first bytes: what JPEG does to an image is what features notice."""
    heads = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WebP"}
    known = (kind for head, kind in heads.items() if data.startswith(head))
    return next(known, Path(name).suffix.lower().lstrip(".").upper())


def of_folder(
    folder: str | Path | ImageSet,
    extractor: Extractor,
    *,
    resize: int | None = None,
    limit: int | None = None,
    cache: bool = False,
    workers: int | None = None,
) -> np.ndarray:
    """Return the features [n, dim] of a folder's images, in the order of their names, as float32.

    `resize` crops the middle square and brings it to so many px first. With `cache` they are kept by the digest of
    all they depend on. Images that cannot be read are left out, with a warning (and noted by an ImageSet).
    Raises InputError where none is left, and for images of several sizes without `resize`.
    """
    found = folder if isinstance(folder, ImageSet) else ImageSet(folder, limit)
    count = workers or _workers()
    if len(found.sizes) > 1 and not resize:
        raise InputError(mixed([found]), f"--resize {smallest([found])} crops squares and brings them to one size")
    path = cache_folder() / "features" / f"{_key(found, extractor, resize)}.npz"
    kept = _cached(path, len(found), extractor.dim) if cache else None
    if kept is not None:
        console.note(f"features of {found.path}: taken from the cache")
        return kept
    todo = found.good
    groups = [todo[start : start + extractor.batch] for start in range(0, len(todo), extractor.batch)]

    def work(group: list[Source]) -> tuple[dict[str, Exception], np.ndarray | None]:
        read = [_read(source, extractor.edge, resize) for source in group]
        failed = {s.name: value for s, value in zip(group, read, strict=True) if isinstance(value, Exception)}
        good = [value for value in read if isinstance(value, np.ndarray)]
        return failed, extractor.run(np.stack(good)) if good else None

    rows: list[np.ndarray] = []
    with console.progress(f"features of {found.path.name}", len(todo)) as bar, extractor.shared(count):
        pool = ThreadPoolExecutor(count)  # each thread takes a batch from its files to its features
        try:
            for group, (failed, features) in zip(groups, pool.map(work, groups), strict=True):
                for source in group:
                    if source.name in failed:
                        found.fail(source, failed[source.name])
                if features is not None:
                    rows.append(features)
                bar.advance(len(group))
        finally:
            pool.shutdown(cancel_futures=True)
    if not rows:
        raise InputError(f"no image in {found.path} can be read", "look at the warnings")
    made = np.concatenate(rows).astype(np.float32)
    if cache and not found.failed:
        _keep(path, made)
    return made


def mixed(sets: list[ImageSet]) -> str:
    """Say which sizes image sets have, the most frequent first."""
    parts = []
    for one in sets:
        sizes = [f"{w} x {h} ({count})" for (w, h), count in one.sizes.most_common(3)]
        parts.append(f"{one.path} has {', '.join(sizes)}{' and more' if len(one.sizes) > 3 else ''}")
    return f"images of several sizes: {'; '.join(parts)}"


def smallest(sets: list[ImageSet]) -> int:
    """Return the shortest edge in image sets, px: to enlarge images would count as a difference."""
    return min(min(size) for one in sets for size in one.sizes)


def _read(source: Source, edge: int, resize: int | None) -> np.ndarray | Exception:
    try:
        image = images.read(source.path)
        return pixels(images.resize(images.square(image), resize) if resize else image, edge)
    except (InputError, OSError) as error:
        return error


def pixels(image: Image.Image, edge: int) -> np.ndarray:
    """Return an RGB image as floats [3, edge, edge] in 0..255, resized as clean-fid resizes."""
    channels = [c.convert("F").resize((edge, edge), Image.Resampling.BICUBIC) for c in image.split()]
    return np.stack([np.asarray(channel) for channel in channels]).clip(0, 255)


def _key(found: ImageSet, extractor: Extractor, resize: int | None) -> str:
    """Return a digest of all that a set's features depend on."""
    values = [FORMAT, found.digest, extractor.digest, extractor.preprocessing, resize]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def _cached(path: Path, count: int, dim: int) -> np.ndarray | None:
    """Return kept features; None where there are none, or none that are whole."""
    with contextlib.suppress(FileNotFoundError):
        try:
            with np.load(path, allow_pickle=False) as file:
                found = file["features"]
            if found.shape == (count, dim) and np.isfinite(found).all():
                return found
        except FileNotFoundError:
            raise
        except Exception as error:  # zip, zlib, NumPy and the system each raise their own on a damaged file
            console.note(f"{path} is damaged ({_reason(error)}): it is made again")
    return None


def _keep(path: Path, features: np.ndarray) -> None:
    try:
        with files.replacing(path) as part, part.open("wb") as file:
            np.savez(file, features=features)
    except OutputError as error:
        console.warn(f"the features are not kept: {error.message}")
