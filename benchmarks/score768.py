"""KID-768 and FID-768 of a folder of images against another.

Features are those of the 2015 FID Inception up to Mixed_6e, averaged over the map (768-d); images are resized to
299 px by Pillow's bicubic filter, channel by channel in float. The figures do not compare with published 2048-d ones.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from machine import machine
from PIL import Image

from facekit.folder import Folder
from facekit.images import read


def features(folder: Path, session: onnxruntime.InferenceSession) -> np.ndarray:
    """Return [n, 768] features, in float64."""
    rows = []
    for source in Folder(folder).sources():
        channels = [c.convert("F").resize((299, 299), Image.Resampling.BICUBIC) for c in read(source.path).split()]
        pixels = np.stack([np.asarray(c) for c in channels]).clip(0, 255)
        x = ((pixels - 128) / 128).astype(np.float32)[None]
        rows.append(session.run(["feat"], {session.get_inputs()[0].name: x})[0][0])
    return np.array(rows, dtype=np.float64)


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3 over the whole sets (Binkowski et al. 2018)."""
    m, n, d = len(x), len(y), x.shape[1]
    xx, yy, xy = ((p @ q.T / d + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    within_x = (xx.sum() - np.trace(xx)) / (m * (m - 1))
    within_y = (yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within_x + within_y - 2 * xy.mean())


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to the sets (Heusel et al. 2017)."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * root)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("reference", type=Path)
parser.add_argument("--inception", type=Path, required=True, help="ONNX file with outputs feat [n, 768]")
arguments = parser.parse_args()
session = onnxruntime.InferenceSession(str(arguments.inception), providers=["CPUExecutionProvider"])
made, reference = features(arguments.folder, session), features(arguments.reference, session)
print(machine())
print(f"{len(made)} against {len(reference)} images:", end=" ")
print(f"KID-768 {kid(made, reference):.5f}, FID-768 {fid(made, reference):.3f}")
