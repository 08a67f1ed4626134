"""XGAN's nets (Royer et al. 2017) as its re-implementations agree on them, and the reversal of gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .blocks import initialise, normal_002


class Reversal(torch.autograd.Function):
    """Identity forward, -strength times the gradient backward (Ganin et al. 2016, section 4.2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return -ctx.strength * gradients[0], None


def reversed_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """Return x with its gradient reversed: what computed x learns the opposite of what follows."""
    return Reversal.apply(x, strength)


class XGANGenerator(nn.Module):
    """The dual auto-encoder: images [N, 3, S, S] in [-1, 1] and embeddings [N, features], per domain "a" and "b".

    The encoders share their upper layers and the decoders their lower ones: the same objects, kept here once. Its
    linear layers tie it to `size`, 64 in the paper; any multiple of 16 will do.
    """

    def __init__(self, width: int = 32, features: int = 1024, size: int = 64):
        super().__init__()
        w, edge = width, size // 16
        self.size = size
        self.encoders = nn.ModuleDict(
            {
                domain: nn.Sequential(
                    nn.Conv2d(3, w, 4, stride=2, padding=1),  # S/2
                    nn.ReLU(),
                    nn.Conv2d(w, 2 * w, 4, stride=2, padding=1),  # S/4
                    nn.ReLU(),
                )
                for domain in ("a", "b")
            }
        )
        self.shared_encoder = nn.Sequential(
            nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1),  # S/8
            nn.ReLU(),
            nn.Conv2d(4 * w, 8 * w, 4, stride=2, padding=1),  # S/16
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * w * edge * edge, features),
            nn.ReLU(),
            nn.Linear(features, features),
        )
        self.shared_decoder = nn.Sequential(
            nn.Unflatten(1, (features, 1, 1)),
            nn.ConvTranspose2d(features, 16 * w, edge),  # S/16
            nn.BatchNorm2d(16 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(16 * w, 8 * w, 4, stride=2, padding=1),  # S/8
            nn.BatchNorm2d(8 * w),
            nn.ReLU(),
        )
        self.decoders = nn.ModuleDict(
            {
                domain: nn.Sequential(
                    nn.ConvTranspose2d(8 * w, 4 * w, 4, stride=2, padding=1),  # S/4
                    nn.BatchNorm2d(4 * w),
                    nn.ReLU(),
                    nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1),  # S/2
                    nn.BatchNorm2d(2 * w),
                    nn.ReLU(),
                    nn.ConvTranspose2d(2 * w, 3, 4, stride=2, padding=1),  # S
                    nn.Tanh(),
                )
                for domain in ("a", "b")
            }
        )
        initialise(self.encoders, nn.init.kaiming_normal_)  # nothing else keeps the size of what has no norm
        initialise(self.shared_encoder, nn.init.kaiming_normal_)
        initialise(self.shared_decoder, normal_002)
        initialise(self.decoders, normal_002)

    def encoder(self, domain: str) -> nn.Sequential:
        """Return the encoder of a domain; its upper part is shared with the other domain."""
        return nn.Sequential(self.encoders[domain], self.shared_encoder)

    def decoder(self, domain: str) -> nn.Sequential:
        """Return the decoder of a domain; its lower part is shared with the other domain."""
        return nn.Sequential(self.shared_decoder, self.decoders[domain])

    def encode(self, x: Tensor, domain: str) -> Tensor:
        """Return the embeddings of images of a domain; raises ValueError for images of another size than its own."""
        if x.shape[2:] != (self.size, self.size):
            raise ValueError(f"these weights take images of {self.size} x {self.size} px only")
        return self.encoder(domain)(x)

    def decode(self, embedding: Tensor, domain: str) -> Tensor:
        """Return images of a domain."""
        return self.decoder(domain)(embedding)


class SmallDiscriminator(nn.Module):
    """Judge images [N, 3, S, S] as a whole: [N, 1]; no norm, no sigmoid. S is a multiple of 16."""

    def __init__(self, width: int = 16, size: int = 64):
        super().__init__()
        w, edge = width, size // 16
        self.layers = nn.Sequential(
            nn.Conv2d(3, w, 4, stride=2, padding=1),  # S/2
            nn.LeakyReLU(0.2),
            nn.Conv2d(w, 2 * w, 4, stride=2, padding=1),  # S/4
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * w, 2 * w, 4, stride=2, padding=1),  # S/8
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * w, 2 * w, 4, stride=2, padding=1),  # S/16
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * w * edge * edge, 1),
        )
        initialise(self, nn.init.kaiming_normal_)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class EmbeddingClassifier(nn.Module):
    """Classify the domain of embeddings [N, features]: logits [N, 1]; hidden layers of 1/4 and 1/16 the features."""

    def __init__(self, features: int = 1024):
        super().__init__()
        wide, narrow = max(1, features // 4), max(1, features // 16)
        self.layers = nn.Sequential(
            nn.Linear(features, wide),
            nn.ReLU(),
            nn.Linear(wide, narrow),
            nn.ReLU(),
            nn.Linear(narrow, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MapClassifier(nn.Module):
    """Classify the domain of feature maps [N, channels, H, W], per place: [N, 1, H/4, W/4]; no norm, no sigmoid."""

    def __init__(self, channels: int, width: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),  # H/2
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 4, stride=2, padding=1),  # H/4
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 1, 1),
        )
        initialise(self, nn.init.kaiming_normal_)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
