"""Faces over time: which detections are one face, and how steady it stands."""

import numpy as np
import pytest

from facekit.faces import Face, similarity, template
from facekit.faces.alignment import MEAN_FACE
from facekit.faces.one_euro import both_ways, one_euro
from facekit.faces.tracking import GAP, is_cut, link, place, thumbnail

RATE = 25


def face(x: float, y: float = 100, eyes: float = 40, turn: float = 0) -> Face:
    """A face of a mean shape with its eyes around (x, y), turned by `turn` rad."""
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = MEAN_FACE @ rotation.T * eyes + (x, y)
    return Face((x - eyes, y - 0.8 * eyes, x + eyes, y + 1.8 * eyes), 1.0, points, True)


def times(count: int) -> np.ndarray:
    return np.arange(count) / RATE


def matrices(found, count: int, smooth: bool = True, every: bool = True, cuts=frozenset()):
    places = place(link(found, times(count), set(cuts)), times(count), set(cuts), 0.25, every, smooth)
    return [[placed.matrix(64) for placed in frame] for frame in places]


def test_two_faces_that_pass_each_other_stay_two_tracks():
    found = [[face(100 + 4 * i, 100), face(300 - 4 * i, 190)][:: (-1) ** i] for i in range(50)]
    tracks = link(found, times(50), set())
    assert sorted(len(track.frames) for track in tracks) == [50, 50]
    for track in tracks:
        assert len({track.faces[i].box[1] for i in range(50)}) == 1


def test_a_face_that_is_missed_for_a_moment_is_one_and_is_shown_in_between():
    found = [[face(100 + i)] if i not in (10, 11, 12) else [] for i in range(30)]
    assert len(link(found, times(30), set())) == 1
    shown = matrices(found, 30, smooth=False)
    assert all(len(frame) == 1 for frame in shown)
    assert shown[11][0] == pytest.approx(similarity(face(111).landmarks, template(64)), abs=1e-6)
    gone = int(GAP * RATE) + 1
    found = [[face(100)] if not 10 <= i < 10 + gone else [] for i in range(50)]
    assert len(link(found, times(50), set())) == 2


def test_the_same_place_after_a_cut_is_another_face():
    found = [[face(100)] for _ in range(20)]
    assert len(link(found, times(20), set())) == 1
    assert len(link(found, times(20), {10})) == 2


def test_flashes_are_no_faces_but_short_films_have_some():
    found = [[face(100)] if 10 <= i < 12 else [] for i in range(30)]
    assert link(found, times(30), set()) == []
    assert len(link(found[10:12], times(2), set())) == 1
    assert len(link(found[10:11], times(1), set())) == 1


def test_without_smoothing_a_face_is_cut_as_in_a_photo():
    turned = face(120, 90, 33, 0.3)
    (made,) = matrices([[turned]], 1, smooth=False)[0]
    assert made == pytest.approx(similarity(turned.landmarks, template(64, 0.25)))


def test_jitter_goes_and_movement_stays():
    random = np.random.default_rng(0)
    count = 100
    at = 100 + 60 * np.sin(np.arange(count) / 15)
    found = [[face(x + dx, 100 + dy)] for x, (dx, dy) in zip(at, random.normal(0, 0.6, (count, 2)), strict=True)]
    true = np.array([similarity(face(x).landmarks, template(64)) for x in at])[:, :, 2]
    errors = {}
    for smooth in (True, False):
        made = np.array([frame[0] for frame in matrices(found, count, smooth)])[:, :, 2]
        errors[smooth] = made - true
    jitter = {key: np.diff(error, 2, axis=0).std() for key, error in errors.items()}
    assert jitter[True] < 0.5 * jitter[False]
    assert np.abs(errors[True]).max() < 3  # px of a crop of 64


def test_a_turn_through_half_a_circle_is_smooth():
    found = [[face(100, 100, 40, np.pi - 0.2 + 0.01 * i)] for i in range(40)]
    made = np.array([frame[0][:, :2] for frame in matrices(found, 40)])
    assert np.abs(np.diff(made, axis=0)).max() < 0.02


def test_one_face_at_a_time_is_the_largest_of_all_time():
    small, large = face(100, eyes=30), face(300, eyes=60)
    found = [[small] if i < 10 else [large, small] if i < 20 else [small] for i in range(30)]
    places = place(link(found, times(30), set()), times(30), set(), 0.25, every=False)
    at = [[round(placed.pose[0], -2) for placed in frame] for frame in places]
    assert at == [[100]] * 10 + [[300]] * 10 + [[100]] * 10


def test_faces_fade_where_they_come_and_go_but_not_at_cuts():
    found = [[face(100)] if i >= 10 else [] for i in range(40)]

    def opacities(cuts):
        places = place(link(found, times(40), cuts), times(40), cuts, 0.25, every=True)
        return [frame[0].opacity if frame else 0 for frame in places]

    soft = opacities(set())
    assert 0 < soft[10] < soft[11] < soft[13] < soft[16] == 1 and soft[-1] == 1
    assert opacities({10})[10] == 1


def test_a_cut_is_a_change_of_the_whole_picture():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    frame = np.repeat(np.repeat(coarse, 20, 0), 20, 1)
    moved, face = np.roll(frame, 1, axis=1), frame.copy()
    face[30:60, 40:80] = 255
    assert not is_cut(thumbnail(frame), thumbnail(moved)) and not is_cut(thumbnail(frame), thumbnail(face))
    assert is_cut(thumbnail(frame), thumbnail(frame[::-1]))


def test_the_filter_is_steady_at_rest_and_quick_in_motion():
    at = times(200)
    noise = np.random.default_rng(0).normal(0, 0.01, (200, 1))
    assert one_euro(noise, at)[50:].std() < 0.5 * noise[50:].std()
    ramp = at[:, None] * 5
    slow, quick = (np.abs(one_euro(ramp, at, beta=beta)[-1] - ramp[-1])[0] for beta in (0, 1))
    assert quick < 0.3 * slow
    assert np.abs(both_ways(ramp, at)[100] - ramp[100])[0] < 0.1 * quick


def test_the_first_value_of_the_filter_is_that_of_the_paper():
    # by hand: step 0.1 s; speed weight 2pi*0.1/(2pi*0.1+1) = 0.38587; speed = 0.38587 * 10 = 3.8587
    # cutoff 1 + 0.5 * 3.8587 = 2.92935 Hz; weight = 2pi*2.92935*0.1/(that + 1) = 0.64797
    found = one_euro(np.array([[0.0], [1.0]]), np.array([0.0, 0.1]), cutoff=1, beta=0.5, speed_cutoff=1)
    assert found[1, 0] == pytest.approx(0.64797, abs=1e-4)
