"""Two StyleGAN2 generators of one shape as one: fine layers of the second, or weights between both."""

from __future__ import annotations

import copy

import torch

from ..errors import CardError
from .stylegan2 import Generator

RELATED = 0.5  # correlation of styles; about 0 where two generators were trained apart, 1 where their mapping is one
TRIED = 256  # latents


def layers_from(generator: Generator, size: int) -> int:
    """Return the index of the first style that acts at `size` px or more; raises CardError for another size."""
    if size not in generator.resolutions:
        raise CardError(
            f"the generator has no layers of {size} px", f"one of {', '.join(map(str, generator.resolutions))}"
        )
    return max(0, 2 * generator.resolutions.index(size) - 1)


@torch.no_grad()
def check_related(first: Generator, second: Generator, names: tuple[str, str]) -> None:
    """Raise CardError where a latent does not mean the same in both generators, called `names`.

    It does where one was fine-tuned from the other, or both from a third: the styles w of equal latents z correlate.
    """
    alike = 0.0
    if first.width == second.width:
        z = torch.randn(TRIED, first.width, generator=torch.Generator().manual_seed(0))
        styles = [g.mapping(z.to(g.const.device, g.const.dtype)).float().cpu() for g in (first, second)]
        one, other = (w - w.mean(0) for w in styles)
        alike = float((one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-12))
    if alike < RELATED:
        raise CardError(
            f"{names[0]} and {names[1]} were trained apart: a latent of one means another face in the other",
            f"give a run that was fine-tuned from {names[0]}",
        )


@torch.no_grad()
def swap_layers(low: Generator, high: Generator, size: int) -> Generator:
    """Return `low` with the layers from `size` px on taken from `high`; the mapping stays that of `low`.

    Pinkney and Adler 2020, "Resolution Dependent GAN Interpolation". Raises CardError where the two differ in shape.
    """
    first = layers_from(low, size)
    level = low.resolutions.index(size)
    own, other = low.state_dict(), _fitting(low, high)
    for name in own:
        part, _, number = name.partition(".")
        index = int(number.split(".")[0]) if part in ("layers", "to_rgb") else -1
        if (part == "layers" and index >= first) or (part == "to_rgb" and index >= level):
            own[name].copy_(other[name])
    return low


@torch.no_grad()
def between(first: Generator, second: Generator, share: float) -> Generator:
    """Return a generator whose weights lie between two that were fine-tuned from one another, at `share` of the way.

    Wang et al. 2019, "Deep Network Interpolation". Raises CardError where the two differ in shape.
    """
    made = copy.deepcopy(first)
    other = _fitting(first, second)
    for name, value in made.state_dict().items():
        value.lerp_(other[name], share)
    return made


def _fitting(first: Generator, second: Generator) -> dict[str, torch.Tensor]:
    own, other = first.state_dict(), second.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in other.items()}:
        raise CardError("the two generators differ in size or width", "take runs that share their base")
    return other
