"""How often faces are found and how well they are levelled, on the photos of the shared data folder."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facekit.faces import Detector, Face, align_face, find_detector, roll, template

SHARED = Path(os.environ.get("FACEKIT_SHARED", Path(__file__).parents[3] / "shared"))
MODELS = SHARED / "weights" / "insightface"


def photos(folder: str, count: int) -> list[np.ndarray]:
    """`count` photos spread evenly over a shared folder."""
    files = sorted((SHARED / "data" / folder).glob("*.jpg"))
    if len(files) < count:
        pytest.skip(f"needs {count} photos in {SHARED / 'data' / folder} (set FACEKIT_SHARED)")
    chosen = [files[i * len(files) // count] for i in range(count)]
    return [np.asarray(Image.open(file).convert("RGB")) for file in chosen]


@pytest.fixture(scope="module")
def cascade() -> Detector:
    return find_detector("cascade")


@pytest.fixture(scope="module")
def insight() -> Detector:
    pytest.importorskip("insightface")
    if not (MODELS / "models" / "buffalo_sc").is_dir():
        pytest.skip(f"needs the pack buffalo_sc under {MODELS}")
    return find_detector("auto", MODELS)


def tilted(photo: np.ndarray, degrees: float) -> np.ndarray:
    """`photo` turned clockwise about its middle, with room for its corners."""
    padded = np.pad(photo, ((60, 60), (60, 60), (0, 0)), mode="edge")
    return np.asarray(Image.fromarray(padded).rotate(-degrees, Image.Resampling.BICUBIC))


def holds(face: Face, point: np.ndarray) -> bool:
    x0, y0, x1, y1 = face.box
    return x0 < point[0] < x1 and y0 < point[1] < y1


@pytest.mark.slow
def test_cascade_finds_press_photos(cascade):
    """lfw: the person meant stands in the middle of the photo."""
    found = [any(holds(f, np.array(p.shape[1::-1]) / 2) for f in cascade.detect(p)) for p in photos("lfw-raw", 20)]
    assert np.mean(found) >= 0.95


@pytest.mark.slow
def test_cascade_finds_faces_that_fill_the_frame(cascade):
    """Selfies: found, and a face as large as the photo's third rather than an eye or a mouth."""
    pictures = photos("selfie2anime-256/valA", 12)
    faces = [cascade.detect(picture) for picture in pictures]
    right = [bool(f) and f[0].box[3] - f[0].box[1] > p.shape[0] / 3 for f, p in zip(faces, pictures, strict=True)]
    assert np.mean(right) >= 0.9


@pytest.mark.slow
def test_anime_cascade_finds_drawn_faces():
    file = SHARED / "weights" / "lbpcascade_animeface.xml"
    if not file.is_file():
        pytest.skip(f"needs {file}")
    detector = find_detector(f"cascade:{file}")
    found = [detector.detect(picture) for picture in photos("selfie2anime-256/valB", 10)]
    assert np.mean([len(faces) == 1 for faces in found]) >= 0.9


def test_insightface_is_chosen_and_finds_faces_that_fill_the_frame(insight):
    assert insight.name == "insightface:buffalo_sc"
    found = [insight.detect(picture) for picture in photos("selfie2anime-256/valA", 20)]
    assert np.mean([len(faces) > 0 for faces in found]) >= 0.95
    assert all(face.measured for faces in found for face in faces)


@pytest.mark.slow
def test_cascade_levels_turned_heads(cascade, insight):
    """The residual roll of the aligned crop, as insightface's eyes see it."""
    residuals = []
    for i, photo in enumerate(photos("lfw-raw", 12)):
        turned = tilted(photo, (-30, -20, -10, 10, 20, 30)[i % 6])
        for face in cascade.detect(turned)[:1]:
            crop = np.asarray(align_face(turned, face, 128).image)
            residuals += [abs(roll(seen.landmarks)) for seen in insight.detect(crop)[:1]]
    assert len(residuals) >= 10
    assert np.median(residuals) < 4


@pytest.mark.slow
def test_cascade_and_insightface_agree_on_the_eyes(cascade, insight):
    errors = []
    for photo in photos("lfw-raw", 12):
        for face in insight.detect(photo)[:1]:
            eyes = face.landmarks[:2]
            near = [f.landmarks[:2] for f in cascade.detect(photo) if holds(f, eyes.mean(0))]
            errors += [np.linalg.norm(e - eyes, axis=1).mean() / np.linalg.norm(eyes[1] - eyes[0]) for e in near[:1]]
    assert len(errors) >= 10
    assert np.median(errors) < 0.08


@pytest.mark.slow
def test_default_framing_is_that_of_the_training_photos(insight):
    """template() against where insightface sees the landmarks of selfie2anime's photos, as fractions of the side."""
    seen = [insight.detect(picture)[:1] for picture in photos("selfie2anime-128/trainA", 24)]
    mean = np.mean([face.landmarks / 128 for faces in seen for face in faces], axis=0)
    np.testing.assert_allclose(mean, template(1), atol=0.04)
