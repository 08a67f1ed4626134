"""A small face-feature network, distilled from a larger recognition model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..errors import CardError, InputError, MissingError
from ..nets import face_embedding
from ..nets.lightcnn import SmallLightCNN
from ..ops import augment
from ..ops.losses import cosine_distance, wide
from ..recipe_api import base
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term, view
from ..recipe_api.schedules import warmup_cosine
from ..storage import images


def jittered(x: Tensor, strength: float) -> Tensor:
    """Turn, scale and move each image at random: by 6 degrees, 8 % and 4 % of the edge at strength 1; edges repeat."""
    grid = augment.affine_grid(x, 6 * strength, 0.08 * strength, 0.04 * strength)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def mixed(x: Tensor, share: float) -> Tensor:
    """Blend the first `share` of the images with other images, by random weights."""
    count = int(len(x) * share)
    part = torch.rand(count, 1, 1, 1, device=x.device, dtype=x.dtype)
    other = x[augment.order(len(x), x.device)[:count]]
    return torch.cat([x[:count].lerp(other, part), x[count:]])


class FaceScene(Scene):
    """Faces of both folders as one batch; the student and its teacher see the same changed images."""

    @view
    def faces(self) -> Tensor:
        """All faces, moved, in changed light, some blended: [2N, 3, S, S]."""
        x = torch.cat([self.a, self.b])
        x = x[augment.order(len(x), x.device)]
        x = augment.lighting(jittered(x, self.params.jitter), self.params.lighting)
        return mixed(x, self.params.mixed)

    @view
    def wanted(self) -> Tensor:
        """The teacher's embeddings, of unit length: [2N, d]."""
        with torch.no_grad():
            return unit(self.helpers.teacher(face_embedding.framed(self.faces, *face_embedding.ARCFACE)))

    @view
    def found(self) -> Tensor:
        """The student's embeddings, of unit length: [2N, d]."""
        return unit(self.nets.face(self.faces))

    @term("F")
    def distance(self) -> Tensor:
        """A face's embedding is the teacher's: 1 - cosine."""
        return cosine_distance(self.found, self.wanted)

    @term("F", 5)
    def relation(self) -> Tensor:
        """Pairs of faces are as similar as to the teacher: squared difference of all cosines (Park et al. 2019)."""
        return (alike(self.found) - alike(self.wanted)).square().mean()


def unit(x: Tensor) -> Tensor:
    """Return vectors [N, d] at length 1."""
    return F.normalize(wide(x), dim=1)


def alike(x: Tensor) -> Tensor:
    """Return the cosines of all pairs of unit vectors [N, d]: [N, N]; autocast would make a matmul one of 16 bits."""
    return (x[:, None] * x[None]).sum(2)


class StandIn(nn.Module):
    """Has the teacher's shapes, for the memory estimate."""

    def __init__(self, features: int):
        super().__init__()
        self.fc = nn.Linear(3, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class FaceParams(base.Params):
    """Parameters of facefeat."""

    teacher: str = Field("", description="ONNX face-recognition model to learn from")
    mean: float = Field(127.5, description="what the teacher's input is: (v - mean) / scale, v in 0..255")
    scale: float = Field(128.0, gt=0, description="see mean")
    features: int = Field(128, ge=2, description="length of the embedding: the teacher's")
    width: int = Field(48, ge=2, multiple_of=2, description="channels of the student at 24 px")
    jitter: float = Field(1.0, ge=0, description="how much faces are moved, turned and scaled")
    lighting: float = Field(1.0, ge=0, le=1, description="how much the photos' light is varied")
    mixed: float = Field(0.25, ge=0, le=1, description="share of faces that are blended with another face")


class FaceFeatures(Recipe):
    """Face features: a small LightCNN (Wu et al. 2018) distilled from a recognition model; translates nothing.

    Both domains are faces as `facekit align` cuts them; their difference has no meaning here. The teacher sees what
    the student sees, in its own framing: consistent teaching (Beyer et al. 2022).
    """

    Scene = FaceScene
    Params = FaceParams
    phases = (Phase("F", ("face",)),)
    presets = {"facefeat": {}}
    defaults = {
        "data": {"size": 128, "batch": 24},
        "optim": {"lr": 2e-3, "betas": [0.9, 0.999]},
        "run": {"steps": 3000, "ema": 0.998, "save_every": 500},
    }
    sizes = (64, 1)
    exports = ("face",)
    directions = ()

    def nets(self) -> dict[str, nn.Module]:
        return {"face": SmallLightCNN(self.params.width, self.params.features)}

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        p = self.params
        if torch.empty(0).device.type == "meta":
            return {"teacher": StandIn(p.features)}
        try:
            teacher = face_embedding.onnx_embedding(p.teacher, p.mean, p.scale)
        except MissingError as error:
            error.hint = error.hint if p.teacher else "name an ONNX recognition model: --set params.teacher=FILE"
            raise
        if teacher.features != p.features:
            hint = f"--set params.features={teacher.features}"
            raise CardError(f"{p.teacher} gives {teacher.features} features, not {p.features}", hint)
        return {"teacher": teacher}

    def lr_factor(self, clock: Progress) -> float:
        """Rise over the first 5 % of the run, then fall along a cosine to 0."""
        return warmup_cosine(clock)

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        """Raise CardError: there is nothing to translate to."""
        raise CardError("face features translate nothing", "give weights of a recipe that translates")

    def embed(self, nets: Any, x: Tensor) -> Tensor:
        """Return embeddings [N, d] of faces [N, 3, H, W] in [-1, 1]; compare them by cosine."""
        return nets.face(x)

    @torch.no_grad()
    def finish(self, nets: Any, layout: Any, folder: Path) -> dict[str, Any]:
        """Measure on held-out faces: cosine to the teacher, and the share known again mirrored and in other light."""
        faces = [face for face in map(self._read, layout.test["a"] + layout.test["b"]) if face is not None]
        teacher = self.helpers(None, ())["teacher"].to(next(nets.parameters()))
        torch.manual_seed(0)
        cosines, plain, changed = [], [], []
        for x in torch.stack(faces).to(next(nets.parameters())).split(16):
            plain.append(self.embed(nets, x))
            changed.append(self.embed(nets, augment.lighting(jittered(x.flip(3), 1.0))))
            cosines.append(F.cosine_similarity(plain[-1], teacher(face_embedding.framed(x, *face_embedding.ARCFACE))))
        known = face_embedding.known_again(torch.cat(plain), torch.cat(changed))
        mean = torch.cat(cosines).mean().item()
        return {"faces": len(faces), "cosine_to_teacher": round(mean, 4), "known_again": round(known, 4)}

    def _read(self, path: Path) -> Tensor | None:
        try:
            return images.to_tensor(images.resize(images.square(images.read(path)), self.size))
        except InputError:
            return None
