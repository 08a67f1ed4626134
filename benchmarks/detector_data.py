"""Put together the labelled pictures that the shipped weights `detector` are trained and measured on.

    python benchmarks/detector_data.py OUT --data ../shared/data --faceless wallpapers/ --faceless-test textures/

OUT gets train/ and test/, each with folders of links to pictures and their faces.jsonl, as `facekit train-detector`
and benchmarks/detector.py read them. Labels of photos and avatars come from insightface's SCRFD (`--model-root`), those
of anime faces from the boxes beside them, those of game portraits from files that the package animeface made (2.0.3
needs Pillow 11), those of composed sprites from their masks, those of drawn photos from the photos. No picture is in
both. `--faceless` folders hold pictures without any face, at any depth. Landmarks of test photos are means over VIEWS
of the photo, because the teacher's own points differ by 3 % of the eye distance from view to view.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from facekit.data import face_masks
from facekit.data.face_scenes import MIRRORED
from facekit.faces import find_detector
from facekit.faces.types import Face
from facekit.storage import images

SURE = 0.5
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
GAME = {"train": "face2genshin-256/trainB", "test": "face2genshin-256/valB"}
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


def of_animeface(line: dict) -> dict:
    """Return a face of trainB-animeface.jsonl: the eyes' middles, the nose, the ends of the mouth."""
    (x, y, w, h), mouth = line["face"], line["mouth"]
    eyes = sorted(
        (np.array(line[name][:2]) + np.array(line[name][2:]) / 2).tolist() for name in ("left_eye", "right_eye")
    )
    level = mouth[1] + mouth[3] / 2
    points = [*eyes, line["nose"], [mouth[0], level], [mouth[0] + mouth[2], level]]
    return row([x + 0.05 * w, y + 0.02 * h, x + 0.95 * w, y + 1.0 * h], points, "drawing")


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
    points = np.array([*middles, nose.mean(0)[::-1], [mouth[:, 1].min(), level], [mouth[:, 1].max() + 1, level]])
    apart = points[1, 0] - points[0, 0]
    x, y = points[:2].mean(0)
    down = points[3, 1] - y
    box = [x - 1.05 * apart, y - 0.9 * down, x + 1.05 * apart, y + 1.55 * down]
    return row(box, points, "drawing")


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
    parser.add_argument(
        "--game", type=Path, nargs=2, help="parts of trainB and valB of face2genshin-256, as of trainB-animeface.jsonl"
    )
    parser.add_argument("--faceless", type=Path, action="append", default=[])
    parser.add_argument("--faceless-test", type=Path, action="append", default=[])
    args = parser.parse_args()
    sets, teacher = Sets(args.out), find_detector("insightface", args.model_root)
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
            sets.add(part, "anime", anime / "trainB" / line["file"], [of_animeface(line)])
    for part in ("train", "test"):
        folder = args.data / "anime-parts-256" / part
        names = (args.data / "anime-parts-256" / "classes.txt").read_text().split()
        for picture in pictures(folder / "images"):
            mask = face_masks.read_index(folder / "masks" / f"{picture.stem}.png")
            face = by_mask(np.asarray(mask), names)
            if face:
                sets.add(part, "sprites", picture, [face])
    for part, file in zip(("train", "test"), args.game or (), strict=False):
        for line in map(json.loads, file.read_text().splitlines()):
            sets.add(part, "game", args.data / GAME[part] / line["file"], [of_animeface(line)])
    for part, folders in (("train", args.faceless), ("test", args.faceless_test)):
        for folder in folders:
            for picture in sorted(folder.rglob("*")):
                if picture.suffix.lower() in (".jpg", ".png", ".webp", ".tga"):
                    sets.add(part, "faceless", picture, [])
    for name, count in sorted(sets.counts.items()):
        print(f"{count:6d}  {name}")


if __name__ == "__main__":
    main()
