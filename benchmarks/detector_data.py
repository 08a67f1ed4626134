"""Put together the labelled pictures that the shipped weights `detector` are trained and measured on.

    python benchmarks/detector_data.py OUT --data ../shared/data --faceless wallpapers/ --faceless-test textures/

OUT gets train/ and test/, each with folders of links to pictures and their faces.jsonl, as `facekit train-detector`
and benchmarks/detector.py read them; no picture is in both. Where the labels come from:

| pictures | boxes and points |
|---|---|
| photos, avatars | insightface's SCRFD (`--model-root`); points of test photos are means over VIEWS |
| anime faces | the boxes beside them, by the package animeface; mouth and nose where the weights `segnet` see them |
| game portraits | game_landmarks.json, read by eye |
| composed sprites | their masks |
| drawn photos | the photos |

`--faceless` folders hold pictures without any face, at any depth. SCRFD's points differ by 3 % of the eye distance
from view to view.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from facekit.data import face_masks
from facekit.data.face_scenes import MIRRORED
from facekit.faces import find_detector
from facekit.faces.types import Face
from facekit.recipe_api import checkpoint
from facekit.storage import images

SURE = 0.5
SEGNET = 128  # px that the weights `segnet` are made for
PHOTOS = {  # folder: share kept apart for the test
    "lfw-raw": 0.25,
    "selfie2anime-256/trainA": 0.0,
    "selfie2anime-256/valA": 1.0,
    "celebamask-256/train/images": 0.0,
    "celebamask-256/test/images": 1.0,
    "utkface-128/male": 0.05,
    "utkface-128/female": 0.05,
    "face2genshin-256/trainA": 0.0,
    "photo2cartoon-256/trainA": 0.0,
}
DRAWN_PHOTOS = {"photo2cartoon-256/trainB": "photo2cartoon-256/trainA"}
AVATARS = {"bitmoji-128": 0.1}
BY_EYE = Path(__file__).parent / "game_landmarks.json"  # of GAME, read off a grid to some 2 px of 256
GAME = {"train": "face2genshin-256/trainB", "test": "face2genshin-256/valB"}
LIKELY = 0.7  # animeface's own score from which its points are learnt from; below they are a sixth of a face off
ANIME_HELD_OUT = 300  # last lines of trainB-animeface.jsonl
VIEWS = ((-1, 0), (0.9, 0), (1.12, 0), (1, 6), (1, -6), (-0.93, 6), (-1.06, -6))  # size (< 0: mirrored) and degrees
SAME = 0.15  # of the face's width: how far its middle may be off in another view


def row(box, points, kind, unsure=False) -> dict:
    """Return a face as a line of faces.jsonl has it; the box is x0 y0 x1 y1, points are [5, 2], all in px."""
    face = {"box": np.round(box, 1).tolist(), "landmarks": np.round(points, 1).tolist(), "kind": kind}
    return face | ({"unsure": True} if unsure else {})


class Sets:
    """The folders OUT/train/NAME and OUT/test/NAME while they are written."""

    def __init__(self, out: Path):
        self.out = out
        self.counts: dict[str, int] = {}

    def add(self, part: str, name: str, picture: Path, faces: list[dict]) -> None:
        """Link a picture into a set and write its line."""
        folder = self.out / part / name
        folder.mkdir(parents=True, exist_ok=True)
        number = self.counts[f"{part}/{name}"] = self.counts.get(f"{part}/{name}", 0) + 1
        target = folder / f"{number:05d}{picture.suffix}"
        os.symlink(picture.resolve(), target)
        with open(folder / "faces.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"file": target.name, "faces": faces}) + "\n")


def found_by(detector, picture: Path, kind: str) -> list[dict]:
    """Return the faces that a detector finds; those it is not sure of are marked."""
    found: list[Face] = detector.detect(np.asarray(images.read(picture)), "every")
    return [row(face.box, face.landmarks, kind, face.score < SURE) for face in found]


def steadied(detector, picture: Path, faces: list[dict]) -> list[dict]:
    """Return the faces with landmarks that are means over VIEWS, where the detector sees a face again in most."""
    photo = images.read(picture)
    points = [[np.array(face["landmarks"])] for face in faces]
    middle, out = np.array(photo.size) / 2, np.array(photo.size) * 6 // 5
    for size, degrees in VIEWS:
        cos, sin = abs(size) * np.cos(np.radians(degrees)), abs(size) * np.sin(np.radians(degrees))
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([np.sign(size), 1])
        back = np.linalg.inv(linear)
        shift = middle - back @ (out / 2)
        moves = [*back[0], shift[0], *back[1], shift[1]]
        view = photo.transform(
            tuple(out), Image.Transform.AFFINE, moves, Image.Resampling.BICUBIC, fillcolor=(128,) * 3
        )
        for other in detector.detect(np.asarray(view), "every"):
            seen = other.landmarks @ back.T + shift
            seen = seen[MIRRORED] if size < 0 else seen
            for face, known in zip(faces, points, strict=True):
                width = face["box"][2] - face["box"][0]
                if np.abs(seen.mean(0) - known[0].mean(0)).max() < SAME * width:
                    known.append(seen)
    enough = len(VIEWS) // 2 + 2
    return [
        {**face, "landmarks": np.round(np.mean(known, 0), 1).tolist()} if len(known) >= enough else face
        for face, known in zip(faces, points, strict=True)
    ]


def of_animeface(line: dict, picture: Path, parts: "Parts") -> dict:
    """Return a face of trainB-animeface.jsonl: the middles of the eyes, the nose, and the ends of the mouth.

    Nose and mouth are where `parts` sees them nearby: animeface's boxes of mouths are level, and wider than the mouth.
    """
    (x, y, w, h), mouth = line["face"], line["mouth"]
    eyes = np.array(
        sorted((np.array(line[name][:2]) + np.array(line[name][2:]) / 2).tolist() for name in ("left_eye", "right_eye"))
    )
    apart = max(float(np.hypot(*(eyes[1] - eyes[0]))), 1.0)
    along = (eyes[1] - eyes[0]) / apart
    middle = np.array(mouth[:2]) + np.array(mouth[2:]) / 2
    ends = [middle - along * mouth[2] / 2, middle + along * mouth[2] / 2]
    seen = parts.of(picture)
    lips = region(seen == parts.names.index("mouth"), middle, 0.22 * apart, 8)
    if lips is not None:
        place = lips @ along
        low, high = np.percentile(place, (1, 99))
        ends = [lips[place <= low + 1].mean(0), lips[place >= high - 1].mean(0)]
    nose = region(seen == parts.names.index("nose"), np.array(line["nose"]), 0.2 * apart, 3)
    points = [*eyes, line["nose"] if nose is None else nose.mean(0), *ends]
    return row([x + 0.05 * w, y + 0.02 * h, x + 0.95 * w, y + 1.0 * h], points, "drawing")


def region(where: np.ndarray, middle: np.ndarray, reach: float, least: int) -> np.ndarray | None:
    """Return the pixels [n, 2] of the largest region that lies within `reach` of `middle`, None where there is none."""
    numbers, count = ndimage.label(where)
    found = [np.argwhere(numbers == number)[:, ::-1] + 0.5 for number in range(1, count + 1)]
    near = [each for each in found if len(each) >= least and np.hypot(*(each.mean(0) - middle)) < reach]
    return max(near, key=len, default=None)


class Parts:
    """The parts of drawn faces, as the weights `segnet` see them in a picture and in its mirror image."""

    def __init__(self):
        model = checkpoint.load_model("segnet")
        self.net, self.names = model.nets.net, face_masks.FACE_PARTS

    @torch.inference_mode()
    def of(self, path: Path) -> np.ndarray:
        """Return the number of each pixel's part, [H, W]."""
        picture = images.read(path)
        small = np.array(picture.resize((SEGNET, SEGNET), Image.Resampling.BICUBIC), np.float32)
        x = torch.from_numpy(small).permute(2, 0, 1)[None] / 127.5 - 1
        logits = self.net(x) + self.net(x.flip(3)).flip(3)
        return torch.nn.functional.interpolate(logits, picture.size[::-1], mode="bilinear").argmax(1)[0].numpy()


def by_mask(mask: np.ndarray, names: list[str]) -> dict | None:
    """Return the face of a part mask, or None where a part is missing: a sprite with closed or covered eyes."""
    eyes, number = ndimage.label(mask == names.index("eyes"))
    sizes = ndimage.sum_labels(np.ones_like(eyes), eyes, range(1, number + 1))
    best = 1 + np.argsort(sizes)[::-1][:2] if number > 1 else []
    mouth, nose = (np.argwhere(mask == names.index(name)) for name in ("mouth", "nose"))
    if len(best) < 2 or not len(mouth) or not len(nose) or min(sizes[i - 1] for i in best) < 20:
        return None
    middles = sorted([x, y] for y, x in ndimage.center_of_mass(np.ones_like(eyes), eyes, best))
    level = mouth[:, 0].mean()
    return by_points(
        np.array([*middles, nose.mean(0)[::-1], [mouth[:, 1].min(), level], [mouth[:, 1].max() + 1, level]])
    )


def by_points(points: np.ndarray) -> dict:
    """Return the drawn face with these points [5, 2]; its box follows from them."""
    apart = points[1, 0] - points[0, 0]
    x, y = points[:2].mean(0)
    down = points[3:, 1].mean() - y
    return row([x - 1.05 * apart, y - 0.9 * down, x + 1.05 * apart, y + 1.55 * down], points, "drawing")


def held_out(index: int, share: float) -> bool:
    """Whether the picture of this number is kept apart: evenly spread."""
    return int((index + 1) * share) > int(index * share)


def pictures(folder: Path) -> list[Path]:
    """Return the images of a folder, in order."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model-root", type=Path, required=True, help="insightface's models")
    parser.add_argument("--faceless", type=Path, action="append", default=[])
    parser.add_argument("--faceless-test", type=Path, action="append", default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    sets, parts, teacher = Sets(args.out), Parts(), find_detector("insightface", args.model_root)
    for name, share in PHOTOS.items():
        label = name.removesuffix("/images").replace("/", "-")
        for index, picture in enumerate(pictures(args.data / name)):
            part = "test" if held_out(index, share) else "train"
            faces = found_by(teacher, picture, "photo")
            if any("unsure" not in face for face in faces):
                sets.add(part, label, picture, steadied(teacher, picture, faces) if part == "test" else faces)
    for name, photos in DRAWN_PHOTOS.items():
        for picture in pictures(args.data / name):
            faces = found_by(teacher, args.data / photos / picture.name, "drawing")
            if any("unsure" not in face for face in faces):
                sets.add("train", name.replace("/", "-"), picture, faces)
    for name, share in AVATARS.items():
        for index, picture in enumerate(pictures(args.data / name)):
            faces = found_by(teacher, picture, "drawing")
            if any("unsure" not in face for face in faces):
                sets.add("test" if held_out(index, share) else "train", name, picture, faces)
    anime = args.data / "selfie2anime-256"
    lines = [json.loads(text) for text in (anime / "trainB-animeface.jsonl").read_text().splitlines()]
    for index, line in enumerate(lines):
        if {"face", "left_eye", "right_eye", "mouth", "nose"} <= line.keys():
            part = "train" if index < len(lines) - ANIME_HELD_OUT else "test"
            if part == "train" and line["likelihood"] < LIKELY:
                continue
            sets.add(
                part,
                "anime",
                anime / "trainB" / line["file"],
                [of_animeface(line, anime / "trainB" / line["file"], parts)],
            )
    for part in ("train", "test"):
        folder = args.data / "anime-parts-256" / part
        names = (args.data / "anime-parts-256" / "classes.txt").read_text().split()
        for picture in pictures(folder / "images"):
            mask = face_masks.read_index(folder / "masks" / f"{picture.stem}.png")
            face = by_mask(np.asarray(mask), names)
            if face:
                sets.add(part, "sprites", picture, [face])
    for part, labelled in json.loads(BY_EYE.read_text()).items():
        for name, points in labelled.items():
            sets.add(part, "game", args.data / GAME[part] / name, [by_points(np.array(points, float))])
    for part, folders in (("train", args.faceless), ("test", args.faceless_test)):
        for folder in folders:
            for picture in sorted(folder.rglob("*")):
                if picture.suffix.lower() in (".jpg", ".png", ".webp", ".tga"):
                    sets.add(part, "faceless", picture, [])
    for name, count in sorted(sets.counts.items()):
        print(f"{count:6d}  {name}")


if __name__ == "__main__":
    main()
