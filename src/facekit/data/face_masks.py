"""Photos with face-part masks: a plain layout of index images, and CelebAMask-HQ's own of one binary image per part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import CardError, InputError
from ..runtime import console
from ..storage import card, content, files, images
from ..storage.folder import Folder, Source
from ..storage.headers import read_sizes
from ..storage.listing import composed
from .dataset import Layout, shares, spread
from .own_outputs import training_images
from .reader import Reader, Sample

CELEBAMASK_PARTS = (
    *("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"),
    *("mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
)  # in the order in which later parts cover earlier ones (the authors' g_mask.py)
FACE_PARTS = ("background", "skin", "hair", "eyes", "nose", "mouth")
GROUPS = {
    **dict.fromkeys(("skin", "l_brow", "r_brow", "l_ear", "r_ear", "neck"), "skin"),
    **dict.fromkeys(("l_eye", "r_eye", "eye_g"), "eyes"),
    **dict.fromkeys(("mouth", "u_lip", "l_lip"), "mouth"),
    "nose": "nose",
    "hair": "hair",
    **dict.fromkeys(("hat", "ear_r", "neck_l", "cloth"), "background"),
}
VAL_FROM, TEST_FROM = 162771, 182638  # CelebA's official split, by CelebA's own index
CHECKED = 64  # masks that are looked through for unknown classes before training starts


@dataclass(frozen=True)
class MaskReader(Reader):
    """Reads a photo and its label map; the entries are `NAME` and `NAME_mask` (class indices, uint8)."""

    classes: tuple[str, ...] = ()
    masks: Mapping[Path, Path] = field(default_factory=dict)

    def read(self, path: Path, size: int) -> Sample:
        """Decode photo and mask; raises InputError where one is broken, or their sizes or the classes do not fit."""
        photo = images.read(path)
        mask = self.mask(path)
        if photo.size != mask.size:
            raise InputError(f"{path} is {photo.size} px and its mask {mask.size} px", "give masks of the photo's size")
        return {
            self.name: np.asarray(images.resize(images.square(photo), size)),
            f"{self.name}_mask": np.asarray(images.square(mask).resize((size, size), Image.Resampling.NEAREST)),
        }

    def mask(self, path: Path) -> Image.Image:
        """Return the label map of a photo as an image of class indices."""
        mask = read_index(self.masks[path])
        top = int(np.asarray(mask).max())
        if top >= len(self.classes):
            raise InputError(
                f"{self.masks[path]} has class {top}, of only {len(self.classes)} ({', '.join(self.classes)})",
                "correct the mask, or list all classes in classes.txt (the first line is class 0)",
            )
        return mask

    def mirror(self, sample: Sample) -> Sample:
        """Mirror photo and mask; left parts become right parts."""
        out = super().mirror(sample)
        out[f"{self.name}_mask"] = mirrored(self.classes)[out[f"{self.name}_mask"]]
        return out


@dataclass(frozen=True)
class CelebAMaskReader(MaskReader):
    """Reads CelebAMask-HQ: `masks` gives the folder and number of a photo's parts, put together in the list's order."""

    def read(self, path: Path, size: int) -> Sample:
        """Decode photo (1024 px) and parts (512 px); parts that a face does not have simply have no file."""
        mask = images.square(self.mask(path)).resize((size, size), Image.Resampling.NEAREST)
        photo = images.resize(images.square(images.read(path)), size)
        return {self.name: np.asarray(photo), f"{self.name}_mask": np.asarray(mask)}

    def mask(self, path: Path) -> Image.Image:
        labels: np.ndarray | None = None
        stem = self.masks[path]
        for part in CELEBAMASK_PARTS:
            file = stem.with_name(f"{stem.name}_{part}.png")
            if not file.is_file():
                continue
            covered = np.asarray(images.read(file).convert("L")) > 127
            labels = np.zeros(covered.shape, np.uint8) if labels is None else labels
            if covered.shape != labels.shape:
                raise InputError(f"{file} has another size than the parts before it", "fetch it again")
            labels[covered] = self.classes.index(part if part in self.classes else GROUPS[part])
        if labels is None:
            raise InputError(f"no mask of {path}", f"{stem.name}_skin.png and so on belong in {stem.parent}")
        return Image.fromarray(labels)


def read_index(path: Path) -> Image.Image:
    """Read an image of class indices: a palette's or grey image's own values, never its colours."""
    image = images.read_raw(path)
    if image.mode not in ("P", "L", "1", "I;16", "I"):
        raise InputError(f"{path} is a colour image ({image.mode})", "masks hold a class index per pixel")
    values = np.asarray(image)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def mirrored(classes: Sequence[str]) -> np.ndarray:
    """Return the class that each class is in a mirror: l_ and r_ change places; uint8 [len(classes)]."""
    other = {"l_": "r_", "r_": "l_"}
    names = [other[name[:2]] + name[2:] if name[:2] in other else name for name in classes]
    return np.array([classes.index(n) if n in classes else i for i, n in enumerate(names)], np.uint8)


def open_masks(data: card.Data, parts: str = "face") -> Layout:
    """Find photos with masks below `data.root`, in either layout, and say in one line what was found.

    `parts` chooses what CelebAMask-HQ's parts become: "face" groups them to FACE_PARTS, "all" keeps all 19 classes.
    The layout's `params` hold the class names. Raises CardError without a root, InputError where photos, masks or
    class names are missing.
    """
    if not data.root:
        raise CardError("no photos with masks", "give --data ROOT (with images/ masks/ classes.txt, or CelebAMask-HQ)")
    root = Folder(data.root).path
    if (root / "CelebA-HQ-img").is_dir() or (root / "CelebAMask-HQ-mask-anno").is_dir():
        reader, found = _celebamask(root, data, parts)
    else:
        reader, found = _plain(root, data)
    if not found["train"]:
        raise InputError(f"no photo for training has a mask in {root}", "check names and folders")
    train, val, test = found["train"][: data.limit], found["val"], found["test"]
    if not test:
        train, val, test = shares(train, data.split or (8, 1, 1))
    previews = spread(val or test, data.holdout or 16)
    console.note(
        f"{len(train)} photos with masks of {len(reader.classes)} classes ({', '.join(reader.classes)}); "
        f"{len(val)} for validation, {len(test)} for the test; previews of {len(previews)}"
    )
    console.fact("data", root=str(root), train=len(train), val=len(val), test=len(test), classes=reader.classes)
    return Layout(
        {"a": train},
        {"a": previews},
        {"a": "face", "b": "parts"},
        {"a": test},
        {"a": reader},
        {"classes": reader.classes},
    )


def _plain(root: Path, data: card.Data) -> tuple[MaskReader, dict[str, list[Path]]]:
    """Find ROOT/images and ROOT/masks, or both below train/, val/ and test/; masks have their photo's name."""
    classes = root / "classes.txt"
    if not classes.is_file():
        raise InputError(f"no {classes}", "write one: a class name per line, the first is class 0")
    names = tuple(line.strip() for line in files.read_text(classes).split("\n") if line.strip())
    found: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    masks: dict[Path, Path] = {}
    tops = {
        "train": root / "train" if content.is_folder(root / "train") else root,
        "val": root / "val",
        "test": root / "test",
    }
    for part, top in tops.items():
        if part != "train" and not content.is_folder(top):
            continue
        for needed in ("images", "masks"):
            if not content.is_folder(top / needed):
                raise InputError(f"no folder {top / needed}", "photos belong in images/, their masks in masks/")
        by_name = {_key(mask.name): mask for mask in training_images(Folder(top / "masks"))}
        both: list[tuple[Source, Source]] = []
        for photo in training_images(Folder(top / "images")):
            if _key(photo.name) in by_name:
                both.append((photo, by_name[_key(photo.name)]))
            else:
                console.warn(f"{photo.path} has no mask; left out")
        used = {mask.name for _, mask in both}
        for mask in by_name.values():
            if mask.name not in used:
                console.warn(f"{mask.path} has no photo; left out")
        for photo, mask in _of_equal_size(top, both):
            masks[photo.path] = mask.path
            found[part].append(photo.path)
    reader = MaskReader("a", names, masks)
    for path in spread(list(masks), CHECKED):
        reader.mask(path)
    return reader, found


def _key(name: str) -> Path:
    """Return what a photo's name and its mask's have in common."""
    return Path(composed(name)).with_suffix("")


def _of_equal_size(top: Path, pairs: list[tuple[Source, Source]]) -> list[tuple[Source, Source]]:
    """Return the pairs of photo and mask that can be read and have one size; warns about the others."""
    photos, bad_photos = read_sizes(top / "images", [photo for photo, _ in pairs])
    masks, bad_masks = read_sizes(top / "masks", [mask for _, mask in pairs])
    fit = []
    for index, (photo, mask) in enumerate(pairs):
        error = bad_photos.get(index) or bad_masks.get(index)
        if error:
            console.warn(f"{error.message}; left out")
        elif (photos[index] != masks[index]).any():
            sizes = tuple(photos[index].tolist()), tuple(masks[index].tolist())
            console.warn(f"{photo.path} is {sizes[0]} px and its mask {sizes[1]} px; left out")
        else:
            fit.append((photo, mask))
    return fit


def _celebamask(root: Path, data: card.Data, parts: str) -> tuple[MaskReader, dict[str, list[Path]]]:
    """Find CelebAMask-HQ's images, mask folders of 2,000 and the mapping that gives the official split."""
    mapping = root / "CelebA-HQ-to-CelebA-mapping.txt"
    for needed in (root / "CelebA-HQ-img", root / "CelebAMask-HQ-mask-anno", mapping):
        if not needed.exists():
            raise InputError(f"no {needed}", "unpack all of CelebAMask-HQ")
    try:
        rows = [line.split() for line in files.read_text(mapping).split("\n")[1:] if line.strip()]
        original = {int(row[0]): int(row[1]) for row in rows}
    except (ValueError, IndexError) as error:
        raise InputError(f"{mapping} cannot be read: {error}", "lines are: idx orig_idx orig_file") from error
    found: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    masks: dict[Path, Path] = {}
    gaps: dict[str, list[int]] = {"in the mapping": [], "as an image": [], "with masks": []}
    numbers = {int(p.stem): p for p in (root / "CelebA-HQ-img").glob("*.jpg") if p.stem.isdigit()}
    folders: dict[int, set[str]] = {}
    for number in sorted(set(numbers) | set(original)):
        top = root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        if number // 2000 not in folders:
            folders[number // 2000] = {p.name[:5] for p in top.glob("*_*.png")}
        if number not in original:
            gaps["in the mapping"].append(number)
        elif number not in numbers:
            gaps["as an image"].append(number)
        elif f"{number:05d}" not in folders[number // 2000]:
            gaps["with masks"].append(number)
        else:
            masks[numbers[number]] = top / f"{number:05d}"
            index = original[number]
            found["test" if index >= TEST_FROM else "val" if index >= VAL_FROM else "train"].append(numbers[number])
    for where, missing in gaps.items():
        if missing:
            first = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
            console.warn(f"CelebAMask-HQ: {len(missing)} faces are missing {where} ({first}); left out")
    classes = FACE_PARTS if parts == "face" else ("background", *CELEBAMASK_PARTS)
    return CelebAMaskReader("a", classes, masks), found
