"""Edge smoothing: drawings with blurred contours and unchanged areas (CartoonGAN, Chen et al., CVPR 2018).

A discriminator that must call them fake learns that a drawing has clear edges. Pixels are uint8 [H, W, 3] RGB.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Backend = Literal["opencv", "skimage"]
LOW, HIGH = 100, 200  # thresholds of Canny's gradient |dx| + |dy| (3 x 3 Sobel, grey 0..255), as published
EDGE = 5  # px: of the square that widens the edges, and of the Gaussian
SIGMA = 1.1  # px, 0.3 ((5 - 1) / 2 - 1) + 0.8: of scikit-image's Gaussian


def smooth(pixels: np.ndarray, backend: Backend = "opencv") -> tuple[np.ndarray, float]:
    """Blur an image along its edges; return it, and the share of its pixels that are edge (0 to 1).

    `opencv` is the published variant, of pytorch-CartoonGAN's `edge_promoting.py` and AnimeGAN's `edge_smooth.py`:
    Canny 100/200, 5 x 5 dilation, 5 x 5 Gaussian, reflection at the border without the border pixel, floor. `skimage`
    does the same steps with scikit-image, which ArtifyGAN names without numbers: Canny as scikit-image sets
    it (sigma 1, thresholds 0.1 and 0.2), so fainter lines count, and a Gaussian of sigma 1.1 cut to 5 x 5, rounded.
    """
    pixels = np.ascontiguousarray(pixels, dtype=np.uint8)
    mask, blurred = _opencv(pixels) if backend == "opencv" else _skimage(pixels)
    return np.where(mask[..., None], blurred, pixels), float(mask.mean())


def _opencv(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    edges = cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), LOW, HIGH)
    mask = cv2.dilate(edges, np.ones((EDGE, EDGE), np.uint8)) > 0
    # For sigma 0 OpenCV takes (1 4 6 4 1) / 16, not exponentials: sums are exact, so that floor has one answer.
    kernel = cv2.getGaussianKernel(EDGE, 0)
    blurred = cv2.sepFilter2D(pixels, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    return mask, blurred.astype(np.uint8)


def _skimage(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from skimage import color, feature, filters, morphology

    mask = morphology.dilation(feature.canny(color.rgb2gray(pixels)), np.ones((EDGE, EDGE), bool))
    cut = (EDGE // 2) / SIGMA
    blurred = filters.gaussian(pixels, SIGMA, mode="mirror", preserve_range=True, truncate=cut, channel_axis=-1)
    return mask, blurred.round().astype(np.uint8)
