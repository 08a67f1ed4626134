"""Pictures drawn from noise by a trained generator: per seed, between seeds, with mixed styles or swapped layers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import CardError
from ..nets.stylegan2 import Generator
from ..nets.stylegan2_blend import check_related, layers_from, swap_layers
from ..recipe_api import checkpoint
from ..reports import contact_sheet
from ..runtime import console
from ..storage import card, claim, files, images, jsonl, lock, provenance
from ..storage.folder import MANIFEST

BATCH = 8  # pictures drawn at once
MOST_SHOWN = 64  # rows of a contact sheet


@dataclass(frozen=True)
class Plan:
    """What is drawn: a picture for each of `count` seeds from `seed` on.

    `truncation` pulls latents to their mean: 1 leaves them, 0 gives one face. `between` adds that many pictures on the
    way to the next seed. `mix_at` takes the styles of layers from that many px on from the next seed.
    """

    count: int
    seed: int = 0
    truncation: float = 0.7
    between: int = 0
    mix_at: int | None = None


@dataclass(frozen=True)
class Picture:
    """One picture to draw: its file name, its seed, the seed it moves to or mixes with, and how far it has moved."""

    name: str
    seed: int
    other: int | None = None
    share: float = 0.0


def pictures(plan: Plan) -> list[Picture]:
    """Return the pictures of a plan in order; a name depends on the picture alone, not on the plan's length."""
    found = []
    for seed in range(plan.seed, plan.seed + plan.count):
        if plan.mix_at is not None:
            found.append(Picture(f"seed{seed:06d}-mixed.png", seed, seed + 1))
            continue
        found.append(Picture(f"seed{seed:06d}.png", seed))
        if seed + 1 < plan.seed + plan.count:
            for step in range(1, plan.between + 1):
                share = step / (plan.between + 1)
                found.append(Picture(f"seed{seed:06d}-{step:03d}.png", seed, seed + 1, share))
    return found


def open_generator(weights: str | Path, device: str) -> tuple[Generator, checkpoint.Model]:
    """Load the generator of a StyleGAN2 run; raises CardError for weights that do not draw from noise."""
    model = checkpoint.load_model(weights, device)
    generator = dict(model.nets.items()).get("g")
    if not isinstance(generator, Generator):
        raise CardError(
            f"{model.path} translates images and does not draw from noise", "facekit translate, or a stylegan2 run"
        )
    return generator, model


@torch.no_grad()
def latent(generator: Generator, seed: int) -> Tensor:
    """Return the latent z [1, D] of a seed: the same on every machine and device."""
    z = torch.randn(1, generator.width, generator=torch.Generator().manual_seed(seed))
    return z.to(generator.const.device, generator.const.dtype)


@torch.no_grad()
def draw(generator: Generator, plan: Plan, wanted: Sequence[Picture]) -> list[Image.Image]:
    """Draw pictures, all with the generator's fixed noise maps."""
    mean = generator.mean_w()
    styles = []
    for picture in wanted:
        w = mean.lerp(generator.mapping(latent(generator, picture.seed)), plan.truncation)
        rows = generator.styles(w)
        if picture.other is not None:
            other = mean.lerp(generator.mapping(latent(generator, picture.other)), plan.truncation)
            if plan.mix_at is not None:
                rows = rows.clone()
                rows[:, layers_from(generator, plan.mix_at) :] = other[:, None]
            else:
                rows = generator.styles(w.lerp(other, picture.share))
        styles.append(rows)
    return images.to_images(generator.synthesis(torch.cat(styles), generator.noises).clamp(-1, 1))


def sample(
    weights: Sequence[str], out: Path, plan: Plan, swap_at: int | None, sheet: bool, device: str, force: bool
) -> int:
    """Draw the pictures of a plan into `out`, with their latents in manifest.jsonl; returns how many were drawn.

    With several weights the same latents are drawn into one folder for each, unless `swap_at` joins two generators
    into one. Existing pictures are not drawn again. Raises CardError where the weights do not fit together or the
    folder holds another run.
    """
    opened = [open_generator(name, device) for name in weights]
    generators = {Path(name).name: generator for name, (generator, _) in zip(weights, opened, strict=True)}
    if len(generators) < len(weights):
        raise CardError("two of the runs have the same name", "copy one to a folder of another name")
    if swap_at is not None:
        if len(opened) != 2:
            raise CardError("--swap-at joins two generators", "name the second with --with RUN")
        check_related(opened[0][0], opened[1][0], (weights[0], weights[1]))
        generators = {"": swap_layers(opened[0][0], opened[1][0], swap_at)}
    elif len(generators) == 1:
        generators = {"": next(iter(generators.values()))}
    else:
        for name, (other, _) in zip(weights[1:], opened[1:], strict=True):
            try:
                check_related(opened[0][0], other, (weights[0], name))
            except CardError as error:  # for the same seeds side by side no error
                console.warn(error.message)
    if plan.mix_at is not None:
        for generator in generators.values():
            layers_from(generator, plan.mix_at)
    options: dict[str, Any] = {"weights": weights[0], "with": [*weights[1:]] or None, "out": str(out)}
    options |= {"n": plan.count, "seed": plan.seed, "truncation": plan.truncation}
    options |= {"between": plan.between, "mix_at": plan.mix_at, "swap_at": swap_at}
    values = {
        "facekit": 1,
        "command": "sample",
        "options": {key: value for key, value in options.items() if value is not None},
        "inputs": {"weights": "+".join(files.digest(model.path) for _, model in opened)},
    }
    wanted = pictures(plan)
    sheet_path = files.real(out).with_name(f"{files.real(out).name}-sheet.png")
    if sheet and not force:
        contact_sheet.refuse_foreign(sheet_path)
    with lock.held(out, "sample"):
        if not force and not any((out / name).exists() for name in (card.NAME, card.UNFINISHED)):
            _refuse_foreign([out / name for name in generators], wanted)
        state = claim.take(out, values, force=force)
        for name in generators:
            files.sweep(out / name, ours=False)
        drawn = 0
        with console.progress("sample", len(wanted) * len(generators)) as bar:
            for name, generator in generators.items():
                for count in _draw_missing(generator, out / name, plan, wanted, force and state == "new"):
                    drawn += count
                    bar.advance(count)
        if state != "finished":
            claim.finish(out, values, provenance.collect("torch"))
    if sheet:
        rows = [[images.read(out / name / picture.name) for name in generators] for picture in wanted[:MOST_SHOWN]]
        titles = [name for name in generators if name]
        groups = max(1, min(len(rows), 8 // len(generators)))
        contact_sheet.save_sheet(sheet_path, rows, titles=titles, size=128, groups=groups)
        console.note(f"sample: contact sheet in {sheet_path}")
    return drawn


def _draw_missing(
    generator: Generator, out: Path, plan: Plan, wanted: Sequence[Picture], afresh: bool
) -> Iterator[int]:
    """Draw what is not in the folder yet, some at a time; yields how many are done at each step."""
    manifest = files.make_folder(out) / MANIFEST
    if afresh:
        files.remove(manifest)
    jsonl.drop_cut_line(manifest)
    listed = {str(row.get("file")) for row in jsonl.read_lines(manifest)}
    missing = [p for p in wanted if p.name not in listed or not (out / p.name).exists()]
    yield len(wanted) - len(missing)
    for first in range(0, len(missing), BATCH):
        group = missing[first : first + BATCH]
        for picture, image in zip(group, draw(generator, plan, group), strict=True):
            images.save(image, out / picture.name)
            if picture.name not in listed:
                jsonl.append(manifest, [_row(generator, plan, picture)])
        yield len(group)


def _refuse_foreign(folders: Sequence[Path], wanted: Sequence[Picture]) -> None:
    """Raise CardError where a picture or a manifest would replace a file that no run of facekit has made."""
    for folder in folders:
        for name in (MANIFEST, *(picture.name for picture in wanted)):
            if os.path.lexists(folder / name):
                raise CardError(
                    f"{folder / name} already exists and was not created by facekit", "choose another output folder"
                )


def _row(generator: Generator, plan: Plan, picture: Picture) -> dict[str, Any]:
    """Return the manifest's line for a picture: how to draw it again."""
    row: dict[str, Any] = {"file": picture.name, "seed": picture.seed, "truncation": plan.truncation}
    if picture.other is not None:
        row["other_seed"] = picture.other
        row |= {"mix_at": plan.mix_at} if plan.mix_at is not None else {"share": round(picture.share, 6)}
    return {**row, "z": [round(value, 6) for value in latent(generator, picture.seed)[0].tolist()]}
