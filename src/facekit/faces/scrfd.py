"""Faces by insightface's SCRFD (Guo et al. 2021): five measured landmarks, for those who have its models."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingError
from .types import Effort, Face

PACK = "buffalo_l"
ROOT = Path("~/.insightface")
INPUT = 640  # px, the side of the picture that the model is shown
SURE = 0.5  # the model's own score from which a box counts
URL = "https://github.com/deepinsight/insightface/releases/download/model-zoo"


class InsightFaceDetector:
    """The detection model of `pack`, a folder `<root>/models/<pack>/` of onnx files; all landmarks are measured.

    Without `pack`: buffalo_l, or else the only pack found. A missing pack is downloaded.
    The models are for non-commercial research. Raises MissingError where insightface, pack or detector is missing.
    """

    def __init__(self, pack: str | None = None, root: Path | None = None):
        root = (root or ROOT).expanduser()
        local = local_packs(root)
        pack = pack or (local[0] if len(local) == 1 and PACK not in local else PACK)
        self.name = f"insightface:{pack}"
        self._model = _detection_model(pack, root)

    def detect(self, image: np.ndarray, effort: Effort = "first") -> list[Face]:
        """Return the faces in `image` (uint8 HxWx3 RGB), largest first; the effort is always the same.

        The model misses faces that fill the frame, so it sees the photo with half its size added around it; photos
        that this would shrink are also shown as they are, for the small faces.
        """
        longest = max(image.shape[:2])
        faces = self._search(image, longest // 2)
        if longest > INPUT // 2:
            faces += self._search(image, 0)
        kept: list[Face] = []
        for face in sorted(faces, key=lambda f: -f.score):
            if all(_overlap(face, other) < 0.4 for other in kept):
                kept.append(face)
        return sorted(kept, key=lambda f: (f.box[0] - f.box[2]) * (f.box[3] - f.box[1]))

    def _search(self, image: np.ndarray, pad: int) -> list[Face]:
        height, width = image.shape[:2]
        padded = np.zeros((height + 2 * pad, width + 2 * pad, 3), np.uint8)
        padded[pad : pad + height, pad : pad + width] = image[..., ::-1]  # BGR
        boxes, points = self._model.detect(padded)
        faces = []
        for (x0, y0, x1, y1, score), landmarks in zip(boxes.tolist(), points, strict=True):
            box = (x0 - pad, y0 - pad, x1 - pad, y1 - pad)
            faces.append(Face(box, score, landmarks.astype(float) - pad, measured=True))
        return faces


def local_packs(root: Path | None = None) -> list[str]:
    """Names of the packs under `root` (default ~/.insightface) with a detection model; none without insightface."""
    if importlib.util.find_spec("insightface") is None:
        return []
    folders = sorted((root or ROOT).expanduser().glob("models/*/"))
    return [folder.name for folder in folders if _detection_files(folder)]


def _detection_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.onnx") if "det" in file.stem or "scrfd" in file.stem)


def _detection_model(pack: str, root: Path) -> Any:
    """The model of `pack` under `root`, ready to use; downloads the pack where its folder is missing."""
    try:
        import onnxruntime
        from insightface.model_zoo import model_zoo
        from insightface.utils.storage import ensure_available
    except ImportError as error:
        raise MissingError(f"insightface cannot be used: {error}", "pip install insightface onnxruntime") from error
    folder = root / "models" / pack
    fix = f"unzip {URL}/{pack}.zip so that its .onnx files lie in {folder}/, or name another root with --model-root"
    if not folder.is_dir():
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                ensure_available("models", pack, root=str(root))
        except Exception as error:  # requests', zipfile's and the file system's
            raise MissingError(f"no insightface pack at {folder}, and it cannot be downloaded: {error}", fix) from error
    files = _detection_files(folder)
    if not files:
        raise MissingError(f"the insightface pack {folder} holds no detection model (det_*.onnx)", fix)
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait slow other processes
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model = model_zoo.get_model(str(files[0]), providers=["CPUExecutionProvider"], sess_options=options)
            model.prepare(-1, input_size=(INPUT, INPUT), det_thresh=SURE)
    except Exception as error:  # onnxruntime's, which share no base class
        raise MissingError(f"{files[0]} is not a model that insightface can use: {error}", fix) from error
    if getattr(model, "taskname", None) != "detection" or not getattr(model, "use_kps", True):
        raise MissingError(f"{files[0]} is not a detector of faces with five landmarks", fix)
    return model


def _overlap(one: Face, other: Face) -> float:
    """Intersection over union of two boxes."""
    (a0, b0, a1, b1), (c0, d0, c1, d1) = one.box, other.box
    shared = max(0.0, min(a1, c1) - max(a0, c0)) * max(0.0, min(b1, d1) - max(b0, d0))
    return shared / max((a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - shared, 1e-9)
