"""The net's detector on pictures of any size, framing by template, calibration, and the trial that scores detectors."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

from facekit.data.face_boxes import COLUMNS, face_row
from facekit.errors import CardError, InputError, MissingError
from facekit.faces import Face, align_face, calibration, cut_face, detectors, face_warp, find_detector, find_faces, roll
from facekit.faces.alignment import MEAN_FACE, inverse, moved
from facekit.faces.neural import SECOND, Copies, NeuralDetector, look_again, pick
from facekit.faces.trial import Trial
from facekit.nets import face_points
from facekit.nets.detector import OUTPUTS, STRIDES, Cells, FaceDetector
from facekit.nets.detector_file import load_detector
from facekit.recipe_api import checkpoint
from facekit.storage import images


class RedSquares(nn.Module):
    """Calls red squares of about 32 px (of what it is shown) faces: much red around a cell, and less farther off."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        red = (x[:, :1] > 0.5).float() * (x[:, 1:2] < 0).float()
        around = F.avg_pool2d(F.pad(red, (12, 12, 12, 12)), 32, 8)
        beyond = F.avg_pool2d(F.pad(red, (28, 28, 28, 28)), 64, 8)
        maps = [torch.full((len(x), OUTPUTS, x.shape[2] // s, x.shape[3] // s), -8.0) for s in STRIDES]
        maps[0][:, :1] = 60 * (around - 0.7) - 200 * F.relu(beyond - 0.4)
        maps[0][:, 2:] = 0
        return maps


class Middle(nn.Module):
    """Puts eyes and mouth level around the middle of the square, and is sure of a face."""

    def __init__(self, logit=9.0):
        super().__init__()
        self.logit = logit

    def forward(self, x):
        points = torch.tensor(MEAN_FACE, dtype=x.dtype).mul(0.2).reshape(1, 10).expand(len(x), 10)
        return torch.cat([points, points, torch.full((len(x), 1), self.logit)], 1)


@pytest.fixture
def squares():
    return NeuralDetector(nets=(RedSquares(), Middle()))


def picture(width, height, places, side):
    image = np.full((height, width, 3), 60, np.uint8)
    for x, y in places:
        image[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2] = (230, 20, 20)
    return image


def middles(faces):
    return sorted(((f.box[0] + f.box[2]) / 2, (f.box[1] + f.box[3]) / 2) for f in faces)


def test_a_small_face_is_found_on_a_finer_copy(squares):
    image = picture(1200, 800, [(900, 500)], 32)
    assert squares.detect(image, "quick") == []
    (face,) = squares.detect(image, "first")
    assert np.allclose(middles([face]), (900, 500), atol=6) and face.box[2] - face.box[0] == pytest.approx(32, abs=8)


def test_a_face_of_the_first_copy_ends_the_search_unless_every_face_is_wanted(squares):
    image = picture(1200, 800, [(300, 400)], 160)
    image[484:516, 884:916] = (230, 20, 20)
    (large,) = squares.detect(image, "first")
    assert np.allclose(middles([large]), (300, 400), atol=20)
    assert any(np.allclose(at, (900, 500), atol=6) for at in middles(squares.detect(image, "every")))


@pytest.mark.parametrize("at", [((60.0, 50.0), 40.0, 0.3), ((75.5, 40.25), 90.0, -2.0), ((4.0, 92.0), 60.0, 1.2)])
def test_a_square_is_cut_as_in_training(at):
    """Out of the part of the picture that it covers or, past its edge, of its last pixels."""
    y, x = np.mgrid[:96, :128]
    image = np.stack([2 * x, 2 * y, 127 + 120 * np.sin((x + y) / 9)], 2).astype(np.uint8)
    where = torch.tensor([at[0]]), torch.tensor([at[1]]), torch.tensor([at[2]])
    found = Copies(image).squares(*where)
    x = images.to_tensor(Image.fromarray(image))[None]
    expected = face_points.squares(x, torch.zeros(1, dtype=torch.long), *where)
    assert (found - expected).abs().max() < 0.04 and (found - expected).abs().mean() < 0.006  # of 2


@pytest.mark.slow
def test_two_hundred_faces_in_one_picture(squares):
    places = [(44 + 64 * (i % 20), 44 + 64 * (i // 20)) for i in range(200)]
    faces = find_faces(detectors.Sure(squares, 0.5), picture(1312, 704, places, 32), every=True)
    assert len(faces) == 200 and np.allclose(middles(faces), sorted(places), atol=5)
    assert [f.box[0] for f in faces] == sorted(f.box[0] for f in faces)


def test_an_8k_picture_is_shown_scaled_and_its_coordinates_are_those_of_the_picture(squares):
    image = picture(7680, 1600, [(6000, 900)], 96)
    (face,) = squares.detect(image, "every")
    assert np.allclose(middles([face]), (6000, 900), atol=12) and 70 < face.box[2] - face.box[0] < 130


class Upright:
    """Sees a face of 60 x 80 px where a red pixel is above a blue one, and counts how often it looks."""

    name = "upright"

    def __init__(self, score):
        self.score, self.looks = score, 0

    def detect(self, image, effort="first"):
        self.looks += 1
        reds, blues = (np.argwhere((image == colour).all(-1))[:, ::-1] for colour in ((255, 0, 0), (0, 0, 255)))
        if not len(reds) or not len(blues):  # single pixels are mixed in a picture turned by an eighth
            return []
        red, blue = reds[0], blues[0]
        if abs(red[0] - blue[0]) > 20 or red[1] > blue[1]:
            return []
        box = (*(red - (30.0, 20.0)), *(red + (30.0, 60.0)))
        return [Face(box, self.score, np.stack([red, red, red, blue, blue]) + 0.5, True, "drawing")]


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_face_that_is_seen_turned_only_counts_where_its_score_is_high(quarters):
    upright = np.zeros((300, 400, 3), np.uint8)
    upright[100, 150], upright[140, 155] = (255, 0, 0), (0, 0, 255)
    image = np.ascontiguousarray(np.rot90(upright, quarters))
    ((red_y, red_x),) = np.argwhere((image == (255, 0, 0)).all(-1))
    ((blue_y, blue_x),) = np.argwhere((image == (0, 0, 255)).all(-1))
    for score, seen in ((0.95, True), (0.85, quarters == 0)):
        inner = Upright(score)
        faces = detectors.Sure(inner, 0.7, turned=0.9).detect(image)
        assert (len(faces), inner.looks) == (int(seen), 1 if not quarters else 4 if seen else 8)
        for face in faces:
            assert np.allclose(face.landmarks[[0, 3]], [(red_x + 0.5, red_y + 0.5), (blue_x + 0.5, blue_y + 0.5)])
            assert face.kind == "drawing" and sorted(np.ptp(np.reshape(face.box, (2, 2)), 0)) == [60, 80]
        assert len(detectors.Sure(Upright(score), 0.7).detect(image)) == int(quarters == 0)


class Discs(Upright):
    """The same for discs, anywhere in the picture."""

    def detect(self, image, effort="first"):
        self.looks += 1
        pure = [(image[..., at].astype(int) - image[..., 2 - at]) > 150 for at in (0, 2)]
        red, blue = (np.argwhere(disc).mean(0)[::-1] + 0.5 for disc in pure)
        if abs(red[0] - blue[0]) > 20 or red[1] > blue[1]:
            return []
        box = (*(red - (30.0, 20.0)), *(red + (30.0, 60.0)))
        return [Face(box, self.score, np.stack([red, red, red, blue, blue]), True, "photo")]


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [45, 135, 225, 315])
def test_a_face_between_the_quarters_is_seen_in_a_picture_turned_by_eighths(degrees):
    red, blue = np.array([200.0, 150.0]), np.array([200.0, 200.0])
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    blue = red + np.array([[cos, -sin], [sin, cos]]) @ (blue - red)
    for factor in (1, 8):  # a picture of 3,200 px is turned at a reduced size
        image = Image.new("RGB", (400 * factor, 300 * factor), (90, 90, 90))
        draw = ImageDraw.Draw(image)
        for (x, y), colour in ((factor * red, (255, 0, 0)), (factor * blue, (0, 0, 255))):
            radius = 6 * factor
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        inner = Discs(0.95)
        (face,) = detectors.Sure(inner, 0.7, turned=0.9).detect(np.asarray(image))
        assert inner.looks > 4
        assert np.abs(face.landmarks[[0, 3]] / factor - [red, blue]).max() < 1
        if factor == 1:
            middle = (np.array(face.box[:2]) + face.box[2:]) / 2
            assert np.hypot(*(middle - red - (blue - red) * 0.4)) < 1  # 20 of 50 px towards the mouth
            assert np.allclose(np.subtract(face.box[2:], face.box[:2]), np.hypot(60, 80) / np.sqrt(2), atol=1)
    assert detectors.Sure(Discs(0.85), 0.7, turned=0.9).detect(np.asarray(image)) == []


@pytest.mark.parametrize(
    ("score", "degrees", "count"), [(0.85, 112.5, 1), (0.84, 112.5, 0), (0.89, 95, 0), (0.9, 95, 1)]
)
def test_a_face_that_is_seen_turned_by_quarters_and_again_by_eighths_counts_sooner(score, degrees, count):
    image = Image.new("RGB", (400, 300), (90, 90, 90))
    draw = ImageDraw.Draw(image)
    way = np.array([-np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])
    for (x, y), colour in (((200, 150), (255, 0, 0)), ((200, 150) + 50 * way, (0, 0, 255))):
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)
    faces = detectors.Sure(Discs(score), 0.7, turned=0.9).detect(np.asarray(image))
    assert len(faces) == count
    for face in faces:
        assert np.abs(face.landmarks[[0, 3]] - [(200, 150), (200, 150) + 50 * way]).max() < 1


@pytest.mark.parametrize(("apart", "count"), [(14, 1), (16, 0)])
def test_two_places_are_no_face_that_is_seen_twice(apart, count):
    one, other = (Face((x, 0.0, x + 60.0, 60.0), 0.86, np.zeros((5, 2)), True, "photo") for x in (0.0, float(apart)))
    assert len(detectors._twice([one], [other])) == count


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (33, 20), (256, 256)])
def test_pictures_of_any_shape_pass(squares, size):
    assert squares.detect(np.full((*size, 3), 90, np.uint8), "every") == []


def test_a_photo_without_a_face_says_what_the_best_candidate_scores(squares):
    detector = detectors.Sure(squares, 0.5)
    image = picture(256, 256, [(128, 128)], 32)
    image[112:127, 112:144] = 60  # less than half of the square is left
    image = np.asarray(Image.fromarray(image).resize((292, 292)))
    with pytest.raises(InputError, match="no face found by facekit") as raised:
        find_faces(detector, image)
    best = max((face.score for face in squares.detect(image)), default=0)
    assert (f"scores {best:.2f}" in raised.value.message) == (best > 0)


def test_overlapping_cells_are_one_face_with_its_kind():
    box = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [40, 0, 50, 10], [90, 0, 99, 9]]])
    points = torch.zeros(1, 4, 5, 2)
    (faces,) = pick(Cells(torch.tensor([[1.0, 3, 0.5, -9]]), torch.tensor([[-1.0, -1, 2, 2]]), box, points))
    assert [(f.box[0], f.kind) for f in faces] == [(1.0, "photo"), (40.0, "drawing")]
    assert faces[0].score == pytest.approx(1 / (1 + np.exp(-3)))


def test_a_file_that_holds_no_detector_is_named(tmp_path):
    with pytest.raises(MissingError, match="holds no face detector"):
        find_detector(f"facekit:{tmp_path / 'none.safetensors'}")
    with pytest.raises(MissingError, match="holds no face detector"):
        load_detector(checkpoint.SHIPPED / "expressions.safetensors")
    with pytest.raises(CardError):
        find_detector("facekit:")


def test_calibrated_weights_give_the_fitted_scores(tmp_path):
    torch.manual_seed(0)
    net = FaceDetector(4).eval()
    x = torch.rand(1, 3, 64, 64)
    before = net(x)[0]
    net.load_state_dict(calibration.applied(net.state_dict(), 1.5, -0.25))
    after = net(x)[0]
    assert torch.allclose(after[:, 0], before[:, 0] * 1.5 - 0.25, atol=1e-5)
    assert torch.allclose(after[:, 1:], before[:, 1:])


def test_calibration_finds_how_far_scores_are_off():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.02, 0.98, 4000)
    right = (rng.uniform(size=4000) < truth).astype(float)
    timid = 1 / (1 + np.exp(-(np.log(truth / (1 - truth)) - 0.5) / 2))
    scale, shift = calibration.fit(timid, right)
    assert scale == pytest.approx(2, abs=0.15) and shift == pytest.approx(0.5, abs=0.15)
    for _, _, _, mean, share in calibration.table(truth, right):
        assert share == pytest.approx(mean, abs=0.06)


@pytest.mark.parametrize("degrees", [0, 40, 175, -100])
def test_a_square_turned_by_a_face_shows_it_upright(degrees):
    """The corners of a small chequered face are where `to_square` says, and `from_square` undoes it."""
    angle = torch.tensor([np.radians(degrees)], dtype=torch.float32)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    points = torch.tensor(MEAN_FACE @ np.array([[cos, -sin], [sin, cos]]).T * 30 + (90, 70), dtype=torch.float32)[None]
    assert torch.allclose((face_points.turns(points) - angle).sin(), torch.zeros(1), atol=1e-5)
    where = torch.tensor([[90.0, 80.0]]), torch.tensor([100.0]), angle
    inside = face_points.to_square(points, *where)
    assert torch.allclose(inside[0, 0, 1], inside[0, 1, 1], atol=1e-5) and inside[0, 0, 0] < inside[0, 1, 0]
    assert torch.allclose(face_points.from_square(inside, *where), points, atol=1e-4)
    image = torch.zeros(1, 3, 160, 200)
    x, y = points[0, 1].round().int().tolist()
    image[:, :, y - 4 : y + 4, x - 4 : x + 4] = 1
    square = face_points.squares(image, torch.tensor([0]), *where)[0, 0]
    row, column = np.unravel_index(int(square.argmax()), square.shape)
    expected = (inside[0, 1] + 0.5) * face_points.SIDE
    assert abs(column - expected[0]) < 4 and abs(row - expected[1]) < 4


class Dots(nn.Module):
    """Finds five dots of red, green, blue, yellow and white in what it is shown, roughly and well; its score is 1."""

    def __init__(self):
        super().__init__()
        self.off = torch.randn(10, generator=torch.Generator().manual_seed(0)) * 0.02

    def forward(self, x):
        on = x > 0
        red, green, blue = on[:, 0], on[:, 1], on[:, 2]
        masks = (
            red & ~green & ~blue,
            green & ~red & ~blue,
            blue & ~red & ~green,
            red & green & ~blue,
            red & green & blue,
        )
        where = (torch.arange(x.shape[3]) + 0.5) / x.shape[3] - 0.5
        found = []
        for mask in masks:
            share = mask.float() / mask.sum((1, 2), keepdim=True).clamp(min=1)
            found.append(torch.stack([(share.sum(1) * where).sum(1), (share.sum(2) * where).sum(1)], 1))
        points = torch.stack(found, 1)
        rough = points.flatten(1).clone()
        swapped = points[:, 0, 0] > points[:, 1, 0]  # the left eye first, as faces have it in a mirror, too
        points[swapped] = points[swapped][:, face_points.MIRRORED]
        return torch.cat([rough + self.off, points.flatten(1), torch.ones(len(x), 1)], 1)


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [0, 50, 180, -100])
@pytest.mark.parametrize("size", [18, 60, 300])
def test_the_second_look_finds_the_points_of_a_face_of_any_size_and_roll(degrees, size):
    """Dots where the landmarks are; what the first look says is off by a tenth of the eye distance."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    truth = MEAN_FACE @ np.array([[cos, -sin], [sin, cos]]).T * size + (500, 420)
    image = np.zeros((900, 1000, 3), np.uint8)
    rows, columns = np.mgrid[0:900, 0:1000] + 0.5
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255))
    for (x, y), colour in zip(truth, colours, strict=True):
        image[(columns - x) ** 2 + (rows - y) ** 2 < (0.14 * size) ** 2] = colour
    box = (*(truth.min(0) - 0.4 * size).tolist(), *(truth.max(0) + 0.4 * size).tolist())
    faces = [Face(box, score, truth + size, True) for score in (0.5, SECOND / 2)]
    looked, rest = look_again(Dots(), faces, Copies(image).squares)
    assert np.abs(looked.landmarks - truth).max() < 0.05 * size + 0.5
    assert looked.score == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-4)
    assert rest is faces[1]


def test_a_face_that_the_second_look_does_not_see_no_longer_counts():
    image = picture(1200, 800, [(300, 400)], 160)
    (seen,) = detectors.Sure(NeuralDetector(nets=(RedSquares(), Middle())), 0.5).detect(image)
    first = NeuralDetector(nets=(RedSquares(), Middle(0.0))).detect(image)[0].score
    assert detectors.Sure(NeuralDetector(nets=(RedSquares(), Middle(-40.0))), 0.5).detect(image) == []
    assert first < seen.score


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_that_seemed_to_stand_another_way_up_is_turned_until_it_is_seen(quarters):
    """A net whose rough points are a quarter off, and which sees a face only with its bright half above."""

    class Brighter(nn.Module):
        def forward(self, x):
            up = x[:, :, :32].mean((1, 2, 3)) - x[:, :, 32:].mean((1, 2, 3))
            turn = np.pi / 2 * quarters
            rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            shape = (MEAN_FACE - MEAN_FACE.mean(0)) * 0.2
            rough, fine = (torch.tensor(p.reshape(1, 10), dtype=x.dtype) for p in (shape @ rotation.T, shape))
            return torch.cat([rough.expand(len(x), 10), fine.expand(len(x), 10), 6 * up[:, None]], 1)

    image = np.full((200, 200, 3), 20, np.uint8)
    image[:100] = 230
    (face,) = look_again(Brighter(), [Face((60, 60, 140, 140), 0.6, MEAN_FACE * 9 + 90, True)], Copies(image).squares)
    assert roll(face.landmarks) == pytest.approx(0, abs=1) and face.score > 0.9


def test_a_square_beyond_the_picture_repeats_its_edge():
    copies = Copies(np.full((40, 50, 3), 200, np.uint8))
    for middle, side in (((0.0, 0.0), 30.0), ((80.0, -20.0), 10.0), ((25.0, 20.0), 900.0)):
        square = copies.squares(torch.tensor([middle]), torch.tensor([side]), torch.tensor([0.7]))
        assert square.shape == (1, 3, face_points.SIDE, face_points.SIDE)
        assert torch.allclose(square, torch.tensor(200 / 127.5 - 1), atol=1e-5)


def labels(*rows):
    return np.stack(rows) if rows else np.empty((0, COLUMNS), np.float32)


def test_a_trial_counts_hits_false_faces_and_passes_over_unsure_ones():
    points = MEAN_FACE * 20 + (50, 45)
    sure, unsure = face_row((30, 25, 70, 75), points, 0), face_row((130, 25, 170, 75), points + (100, 0), 0, 0.0)
    trial = Trial()
    found = [
        Face((32, 24, 68, 78), 0.9, points + (1, 0), True),
        Face((33, 24, 66, 78), 0.8, points, True),  # the same face again
        Face((131, 25, 169, 75), 0.7, points, True),
        Face((32, 24, 68, 78), 0.2, points, True),
    ]
    verdicts = trial.match(found, labels(sure, unsure))
    assert [verdict for _, verdict in verdicts] == [True, False, None]
    trial.add([], labels(sure))
    assert trial.recall == 0.5 and trial.errors == [pytest.approx(1 / 20)]
    assert Trial().match([Face((0, 0, 400, 400), 0.9, points, True)], labels(sure))[0][1] is False  # far too large


@pytest.mark.parametrize("name", ["portrait", "ffhq", "arcface", "anime"])
@pytest.mark.parametrize("degrees", [0, 35, -120, 180])
def test_every_template_levels_a_turned_face_and_its_warp_can_be_undone(name, degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    points = MEAN_FACE * 40 @ np.array([[cos, -sin], [sin, cos]]).T + (300, 200)
    matrix = face_warp(points, 128, None, name)
    placed = moved(matrix, points)
    assert roll(placed) == pytest.approx(0, abs=1)
    assert placed[0, 0] < placed[1, 0] and placed[:2, 1].max() < placed[3:, 1].min()
    assert (placed > 0).all() and (placed < 128).all()
    assert np.allclose(moved(inverse(matrix), placed), points, atol=1e-6)
    cut = cut_face(np.zeros((400, 600, 3), np.uint8), Face((0, 0, 1, 1), 1, points, True), matrix, 128)
    assert cut.image.size == (128, 128) and abs((cut.roll - degrees + 180) % 360 - 180) < 1


def test_templates_differ_in_room_as_they_say():
    points = MEAN_FACE * 40 + (300, 200)
    eyes = {n: np.ptp(moved(face_warp(points, 128, None, n), points)[:2, 0]) for n in ("arcface", "ffhq", "anime")}
    assert eyes["arcface"] > eyes["ffhq"] > eyes["anime"] > 10
    wider = moved(face_warp(points, 128, 0.25, "ffhq"), points)
    assert np.ptp(wider[:2, 0]) == pytest.approx(eyes["ffhq"] / 1.5)
    assert np.allclose(face_warp(points, 112, 0.1), face_warp(points, 112, 0.1, "portrait"))
    with pytest.raises(CardError, match="did you mean 'anime'"):
        face_warp(points, 128, None, "anim")
    with pytest.raises(InputError, match="coincide"):
        face_warp(np.full((5, 2), 3.0), 128, None, "ffhq")


def test_the_template_is_noted_and_cuts_other_crops(tmp_path, facekit, monkeypatch):
    from skimage.data import astronaut

    (tmp_path / "in").mkdir()
    Image.fromarray(astronaut()).save(tmp_path / "in" / "a.png")
    for name in ("portrait", "anime"):
        command = ("align", tmp_path / "in", tmp_path / name, "--detector", "cascade", "--size", 64)
        assert facekit(*command, "--template", name).code == 0
    cards = [(tmp_path / name / "card.yaml").read_text() for name in ("portrait", "anime")]
    assert "template:" not in cards[0] and "template: anime" in cards[1]
    assert (tmp_path / "portrait" / "a.png").read_bytes() != (tmp_path / "anime" / "a.png").read_bytes()
    cascade = find_detector("cascade").detect(astronaut())[0]
    same = np.asarray(align_face(astronaut(), cascade, 64).image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "portrait" / "a.png")), same)
    monkeypatch.setattr(detectors, "EMBEDDED", "facekit")
    monkeypatch.setattr("facekit.faces.neural.load_detector", lambda file: (RedSquares(), Middle()))
    again = facekit("align", tmp_path / "in", tmp_path / "portrait", "--size", 64)  # begun with the default of before
    assert again.code == 0 and "goes on with it" in again.err
    assert (tmp_path / "portrait" / "card.yaml").read_text() == cards[0]


def test_the_shipped_weights_are_small_documented_and_find_a_turned_face():
    from skimage.data import astronaut

    path = checkpoint.SHIPPED / "detector.safetensors"
    assert path.stat().st_size <= 2_000_000
    told = path.with_suffix(".md").read_text(encoding="utf-8").lower()
    assert all(word in told for word in ("lfw", "licen", "facekit train-detector", "steps", "calibrat"))
    detector = find_detector("facekit")
    for quarters in range(4):
        photo = np.ascontiguousarray(np.rot90(astronaut(), quarters))
        (face,) = find_faces(detector, photo)
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        back = {0: (x, y), 1: (512 - y, x), 2: (512 - x, 512 - y), 3: (y, 512 - x)}[quarters]
        assert np.allclose(back, (224, 110), atol=25) and face.kind == "photo"
