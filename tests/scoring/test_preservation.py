"""What a translation keeps of its source: which images pair, agreement of parts, likeness of faces."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
import toy_scores
from facekit.errors import CardError, InputError
from facekit.scoring import pairing, preservation


def flat(path: Path, colour: tuple[int, int, int], size: int = 16) -> None:
    """Write an image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), colour).save(path)


def test_a_translation_that_keeps_everything_scores_one(tmp_path):
    toy_scores.draw(tmp_path / "in" / "a.png", toy_scores.FACE)
    toy_scores.draw(tmp_path / "out" / "a.png", toy_scores.FACE)
    found = preservation.measure(tmp_path / "in", tmp_path / "out", toy_scores.segnet(), toy_scores.face())
    assert found == pytest.approx(
        {
            "IoU-parts": 1,
            "IoU-eyes": 1,
            "IoU-nose": 1,
            "IoU-mouth": 1,
            "IoU-skin": 1,
            "landmark-distance": 0,
            "landmark-distance std": 0,
            "colour-skin": 0,
            "colour-skin std": 0,
            "colour-eyes": 0,
            "colour-eyes std": 0,
            "identity-cosine": 1,
            "unchanged": 1,
            "pairs": 1,
        }
    )


def test_parts_agree_by_intersection_over_union_averaged_over_pairs(tmp_path):
    toy_scores.draw(tmp_path / "in" / "a.png", toy_scores.FACE)
    toy_scores.draw(
        tmp_path / "out" / "a.png", {**toy_scores.FACE, "eyes": (5, 4, 9, 6)}
    )  # half of it shifted off: 4 of 12 pixels
    toy_scores.draw(tmp_path / "in" / "b.png", toy_scores.FACE)
    toy_scores.draw(tmp_path / "out" / "b.png", {k: v for k, v in toy_scores.FACE.items() if k != "mouth"})  # lost: 0
    found = preservation.measure(tmp_path / "in", tmp_path / "out", toy_scores.segnet(), None)
    assert found["IoU-eyes"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["IoU-mouth"] == pytest.approx(0.5)
    assert found["IoU-parts"] == pytest.approx((2 / 3 + 1 + 0.5) / 3)
    assert "identity-cosine" not in found


def test_a_part_that_neither_image_shows_does_not_count(tmp_path):
    for name in ("in", "out"):
        toy_scores.draw(tmp_path / name / "a.png", toy_scores.FACE)
        toy_scores.draw(tmp_path / name / "b.png", {"skin": (0, 0, 9, 9)})
    found = preservation.measure(tmp_path / "in", tmp_path / "out", toy_scores.segnet(), None)
    assert found["IoU-parts"] == 1 and "IoU-hair" not in found and found["pairs"] == 2


def test_a_part_that_is_seen_nowhere_is_warned_about(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(preservation.console, "warn", told.append)
    for name in ("in", "out"):
        toy_scores.draw(tmp_path / name / "a.png", {"eyes": toy_scores.FACE["eyes"]})
    assert preservation.measure(tmp_path / "in", tmp_path / "out", toy_scores.segnet(), None)["IoU-parts"] == 1
    assert told == ["the segnet sees no nose and no mouth in any image: IoU-parts leaves it out"]


def test_likeness_is_the_mean_cosine(tmp_path):
    flat(tmp_path / "in" / "a.png", (255, 128, 128))
    flat(tmp_path / "out" / "a.png", (128, 255, 128))
    flat(tmp_path / "in" / "b.png", (255, 0, 0))
    flat(tmp_path / "out" / "b.png", (0, 255, 255))
    found = preservation.measure(tmp_path / "in", tmp_path / "out", None, toy_scores.face())
    assert found["identity-cosine"] == pytest.approx((0 + -1) / 2, abs=0.01)
    assert set(found) == {"identity-cosine", "unchanged", "pairs"}


def test_images_are_brought_to_the_size_of_each_model(tmp_path):
    sizes = []

    def label(nets, x):
        sizes.append(tuple(x.shape))
        return torch.full(x.shape[:1] + x.shape[2:], 3)

    for name, size in (("in", 40), ("out", 20)):
        flat(tmp_path / name / "a.png", (9, 9, 9), size)
    preservation.measure(tmp_path / "in", tmp_path / "out", toy_scores.model(32, label=label), None)
    assert sizes == [(1, 3, 32, 32)] * 2


def test_more_pairs_than_a_batch_all_count(tmp_path):
    for name in ("in", "out"):
        toy.fill(tmp_path / name, pairing.BATCH + 3)
    assert (
        preservation.measure(tmp_path / "in", tmp_path / "out", None, toy_scores.face())["pairs"] == pairing.BATCH + 3
    )
    assert preservation.measure(tmp_path / "in", tmp_path / "out", None, toy_scores.face(), limit=2)["pairs"] == 2


def test_images_pair_by_name_and_sub_folder_whatever_the_type(tmp_path):
    for name in ("in/a.jpg", "in/x/b.jpg", "in/lost.jpg", "out/a.png", "out/x/b.png", "out/alone.png"):
        flat(tmp_path / name, (1, 2, 3))
    found = pairing.pairs(tmp_path / "in", tmp_path / "out", "give the source")
    assert [(x.name, y.name) for x, y in found] == [("a.jpg", "a.png"), ("x/b.jpg", "x/b.png")]


def test_equal_stems_pair_as_translate_names_them(tmp_path):
    for name in ("in/a.jpg", "in/a.png", "out/a_jpg.png", "out/a_png.png"):
        flat(tmp_path / name, (1, 2, 3))
    found = pairing.pairs(tmp_path / "in", tmp_path / "out", "give the source")
    assert [(x.name, y.name) for x, y in found] == [("a.jpg", "a_jpg.png"), ("a.png", "a_png.png")]


def test_a_pair_that_cannot_be_read_is_left_out(tmp_path):
    for name in ("in", "out"):
        toy.fill(tmp_path / name, 3)
    (tmp_path / "out" / "001.png").write_bytes(b"")
    assert preservation.measure(tmp_path / "in", tmp_path / "out", None, toy_scores.face())["pairs"] == 2
    for path in (tmp_path / "out").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="can be read"):
        preservation.measure(tmp_path / "in", tmp_path / "out", None, toy_scores.face())


def test_folders_without_a_pair_are_refused(tmp_path):
    flat(tmp_path / "in" / "a.png", (1, 2, 3))
    flat(tmp_path / "out" / "b.png", (1, 2, 3))
    with pytest.raises(InputError, match="has the name") as told:
        pairing.pairs(tmp_path / "in", tmp_path / "out", "give the source")
    assert told.value.hint == "give the source"


def test_images_without_a_face_are_refused(tmp_path):
    for name in ("in", "out"):
        flat(tmp_path / name / "a.png", (0, 0, 0))
    with pytest.raises(InputError, match="no eyes, nose or mouth"):
        preservation.measure(tmp_path / "in", tmp_path / "out", toy_scores.segnet(), None)


@pytest.mark.parametrize(
    "wrong", [toy_scores.model(embed=None), toy_scores.face(), toy_scores.segnet(classes=("background", "skin"))]
)
def test_a_model_of_another_kind_is_refused(tmp_path, wrong):
    with pytest.raises(CardError, match="segnet"):
        preservation.measure(tmp_path, tmp_path, wrong, None)
    with pytest.raises(CardError, match="embeddings"):
        preservation.measure(tmp_path, tmp_path, None, toy_scores.segnet())


@pytest.mark.parametrize("name", ["segnet", "facefeat"])
def test_the_shipped_weights_measure_real_faces(shared, tmp_path, name):
    from facekit.recipe_api import checkpoint

    loaded = checkpoint.load_model(name)
    faces = shared / "data" / "face-masks" / "test" / "images"
    models = (loaded, None) if name == "segnet" else (None, loaded)
    found = preservation.measure(faces, faces, *models, limit=4)
    assert found.pop("pairs") == 4
    distances = {key: found.pop(key) for key in list(found) if key.startswith(("landmark-", "colour-"))}
    assert found and all(math.isclose(value, 1, rel_tol=1e-4) for value in found.values())
    assert all(value == 0 for value in distances.values()) and bool(distances) == (name == "segnet")


def test_pixels_that_hardly_moved_count_as_unchanged(tmp_path):
    flat(tmp_path / "in" / "a.png", (100, 100, 100))
    pixels = np.full((16, 16, 3), 100, np.uint8)
    pixels[:4] = (100, 100, 100 + preservation.NEAR)
    pixels[4:8] = (100, 100, 101 + preservation.NEAR)
    Image.fromarray(pixels).save(tmp_path / "in" / "b.png")
    (tmp_path / "out").mkdir()
    Image.fromarray(pixels).save(tmp_path / "out" / "a.png")
    found = preservation.measure(tmp_path / "in", tmp_path / "out", None, None)
    assert found == {"unchanged": 0.75, "pairs": 1}
    flat(tmp_path / "in" / "a.png", (100, 100, 100), 32)  # of another size
    assert preservation.measure(tmp_path / "in", tmp_path / "out", None, None)["unchanged"] == 0.75


def test_masks_say_how_much_of_a_face_is_left_alone(tmp_path):
    flat(tmp_path / "masks" / "x" / "a.png", (255, 255, 255))
    flat(tmp_path / "masks" / "b.png", (51, 51, 51))
    assert preservation.unmasked(tmp_path / "masks") == pytest.approx(1 - 0.6)
