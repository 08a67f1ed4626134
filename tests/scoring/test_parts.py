"""Measures of face parts on masks whose answer is known."""

import numpy as np
import pytest
from PIL import Image

from facekit.scoring import parts


def masks(**boxes) -> parts.Masks:
    """Masks of 32 px from boxes (left, top, right, bottom), several for a part."""
    found = {}
    for name, several in boxes.items():
        found[name] = np.zeros((32, 32), bool)
        for left, top, right, bottom in several:
            found[name][top:bottom, left:right] = True
    return found


def face(x: int = 0, y: int = 0) -> parts.Masks:
    """A face whose eyes are 10 px apart, moved by (x, y)."""
    boxes = {"eyes": [(6, 8, 8, 10), (16, 8, 18, 10)], "nose": [(11, 14, 13, 16)], "mouth": [(9, 20, 15, 22)]}
    return masks(**{k: [(a + x, b + y, c + x, d + y) for a, b, c, d in v] for k, v in boxes.items()})


def test_landmarks_of_one_face_are_nowhere_else():
    assert parts.landmark_distance(face(), face()) == 0


def test_a_moved_face_is_measured_in_eye_distances():
    assert parts.landmark_distance(face(), face(x=3, y=4)) == pytest.approx(5 / 10)


def test_one_landmark_counts_a_quarter():
    moved = {**face(), "mouth": face(y=2)["mouth"]}
    assert parts.landmark_distance(face(), moved) == pytest.approx(0.2 / 4)


@pytest.mark.parametrize("part", ["eyes", "nose", "mouth"])
def test_a_face_without_a_landmark_is_left_out(part):
    hidden = {**face(), part: np.zeros((32, 32), bool)}
    assert parts.landmark_distance(face(), hidden) is None and parts.landmark_distance(hidden, face()) is None


def test_one_eye_gives_no_scale():
    column = {**face(), "eyes": masks(eyes=[(8, 8, 9, 12)])["eyes"]}
    assert parts.landmark_distance(column, column) is None


def test_colours_differ_by_ciede2000():
    from skimage.color import deltaE_ciede2000, rgb2lab

    hair = masks(hair=[(0, 0, 32, 8)])
    before, after = (Image.new("RGB", (32, 32), colour) for colour in ((200, 40, 40), (40, 40, 200)))
    expected = deltaE_ciede2000(*(rgb2lab(np.uint8([[c]]))[0, 0] for c in ((200, 40, 40), (40, 40, 200))))
    assert parts.colour_distances(hair, hair, (before, after)) == {"hair": pytest.approx(expected)}
    assert parts.colour_distances(hair, hair, (before, before)) == {"hair": 0}


def test_colour_is_taken_inside_the_part_only():
    skin = masks(skin=[(8, 8, 24, 24)])
    before, after = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
    after.paste("red", (8, 8, 24, 24))
    assert parts.colour_distances(skin, skin, (before, after)) == {"skin": 0}
    assert parts.colour_distances(skin, {}, (before, after)) == {}


def test_overlap_counts_parts_that_either_image_shows():
    assert parts.overlap(face(), {k: v for k, v in face().items() if k != "nose"} | masks(nose=[])) == {
        "eyes": 1,
        "nose": 0,
        "mouth": 1,
    }
