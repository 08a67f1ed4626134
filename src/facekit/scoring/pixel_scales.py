"""How pixels are scaled for networks that make features."""

from __future__ import annotations

SCALES = {  # what a net is given for a pixel v in 0..255: the formula, what is subtracted, what divides
    "inception": ("(v - 128) / 128", (128.0,), (128.0,)),
    "symmetric": ("(v - 127.5) / 127.5", (127.5,), (127.5,)),
    "unit": ("v / 255", (0.0,), (255.0,)),
    "imagenet": ("(v / 255 - mean) / std of ImageNet", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "clip": ("(v / 255 - mean) / std of CLIP", (122.7709, 116.7460, 104.0937), (68.5005, 66.6322, 70.3232)),
    "bytes": ("v from 0 to 255", (0.0,), (1.0,)),
}


def describe(edge: int, scale: str) -> str:
    """Return what a network is given, for people: `edge` is its input in px, `scale` a formula of SCALES."""
    return f"RGB, Pillow bicubic per channel in float to {edge} px, clipped to 0..255, {scale}"
