"""The face detector's training: labels, composed scenes, what each cell has to find, and that it learns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from facekit.data.face_boxes import (
    BOX,
    COLUMNS,
    KIND,
    POINTS,
    WEIGHT,
    face_row,
    find_faces,
    find_false,
    open_labels,
    read_faces,
)
from facekit.data.face_closeups import CloseupReader, closeup, warped
from facekit.data.face_scenes import SceneReader, move_face
from facekit.data.loader import Batches
from facekit.errors import CardError, InputError
from facekit.nets import face_points
from facekit.nets.detector import STRIDES, Conv, FaceDetector, decode, grid
from facekit.nets.detector_file import folded, load_detector
from facekit.ops import boxes
from facekit.recipes.detector import assign
from facekit.recipes.second_look import balanced
from facekit.storage import card

POINTS_AT = ((20, 24), (40, 24), (30, 34), (23, 43), (37, 43))


def drawn_face(path, kind="photo", shift=0):
    """A face of discs on 64 px: skin, two eyes, a mouth."""
    image = Image.new("RGB", (64, 64), (30, 60, 90))
    draw = ImageDraw.Draw(image)
    draw.ellipse((10 + shift, 8, 50 + shift, 56), fill=(240, 200, 170) if kind == "photo" else (255, 240, 120))
    for x in (20, 40):
        draw.ellipse((x + shift - 4, 20, x + shift + 4, 28), fill=(20, 20, 20))
    draw.ellipse((23 + shift, 40, 37 + shift, 46), fill=(200, 30, 40))
    image.save(path)
    points = [[x + shift, y] for x, y in POINTS_AT]
    return {"box": [10 + shift, 8, 50 + shift, 56], "landmarks": points, "kind": kind}


@pytest.fixture
def labelled(tmp_path):
    """Two folders of drawn faces, and one picture without a face."""
    root = tmp_path / "labelled"
    for kind in ("photo", "drawing"):
        (root / kind).mkdir(parents=True)
        rows = [{"file": f"{i}.png", "faces": [drawn_face(root / kind / f"{i}.png", kind, i)]} for i in range(6)]
        (root / kind / "faces.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Image.effect_noise((40, 40), 60).convert("RGB").save(root / "photo" / "none.png")
    with (root / "photo" / "faces.jsonl").open("a") as file:
        file.write('\n{"file": "none.png", "faces": []}\n{"file": "gone.png", "faces": []}\n')
    return root


def test_labels_are_read_and_missing_pictures_are_left_out(labelled):
    faces = find_faces(labelled)
    assert len(faces) == 13 and sum(map(len, faces.values())) == 12
    row = faces[labelled / "drawing" / "2.png"][0]
    assert row[BOX].tolist() == [12, 8, 52, 56] and row[KIND] == 1 and row[WEIGHT] == 1
    assert row[POINTS].reshape(5, 2)[0].tolist() == [22, 24]


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        '{"file": "../a.png"}',
        '{"file": "a.png", "faces": [{"box": [1, 2, 3], "landmarks": [[0, 0]]}]}',
        '{"file": "a.png", "faces": [{"box": [9, 2, 3, 4], "landmarks": [[0,0],[0,0],[0,0],[0,0],[0,0]]}]}',
        '{"file": "a.png", "faces": [{"box": [1,2,3,4], "landmarks": [[0,0],[0,0],[0,0],[0,0],[0,0]], "kind": "cat"}]}',
    ],
)
def test_a_wrong_line_is_named(tmp_path, line):
    (tmp_path / "faces.jsonl").write_text('{"file": "b.png"}\n' + line)
    with pytest.raises(InputError, match=r"faces\.jsonl, line 2"):
        read_faces(tmp_path / "faces.jsonl")


def test_an_aligned_folder_is_labels_and_a_deleted_crop_is_not_judged(tmp_path):
    (tmp_path / "in").mkdir()
    drawn_face(tmp_path / "in" / "a.png")
    out = tmp_path / "labelled" / "out"
    out.mkdir(parents=True)
    (out / "card.yaml").write_text(f"facekit: 1\ncommand: align\noptions: {{source: {tmp_path / 'in'}}}\n")
    entry = {"source": "a.png", "box": [10, 8, 50, 56], "landmarks": POINTS_AT, "score": 0.9}
    rows = [{**entry, "file": "a.png"}, {**entry, "file": "a.face2.png"}, {**entry, "file": "c.png", "source": "../c"}]
    (out / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (out / "a.png").touch()
    (found,) = find_faces(tmp_path / "labelled").values()
    assert found[:, WEIGHT].tolist() == [1, 0] and found[0, POINTS].tolist() == list(np.ravel(POINTS_AT))


def test_no_root_and_no_faces_are_errors(tmp_path):
    with pytest.raises(CardError, match="labelled"):
        open_labels(card.Data())
    with pytest.raises(InputError, match="no labelled face"):
        open_labels(card.Data(root=str(tmp_path)))


@pytest.mark.slow
def test_scenes_follow_seed_and_step_and_their_boxes_hold_the_faces(labelled):
    faces = find_faces(labelled)
    reader = SceneReader("a", faces)

    def batches(seed):
        return Batches.of({"a": list(faces)}, 64, {"a": reader}, seed=seed, batch=24, size=96)

    first, again, other = batches(3)(5)[0], batches(3)(5)[0], batches(4)(5)[0]
    assert first["a"].shape == (24, 3, 96, 96) and first["a_faces"].shape[2] == COLUMNS
    assert torch.equal(first["a"], again["a"]) and torch.equal(first["a_faces"], again["a_faces"])
    assert not torch.equal(first["a"], other["a"])
    rows = torch.cat([first["a_faces"], other["a_faces"]]).flatten(0, 1)
    judged = rows[rows[:, WEIGHT] > 0]
    assert len(judged) > 20 and {0.0, 1.0} == set(judged[:, KIND].tolist())
    points = judged[:, POINTS].unflatten(1, (5, 2))
    inside = (points > judged[:, None, :2]) & (points < judged[:, None, 2:4])
    assert inside.all()
    turned = torch.atan2(points[:, 1, 1] - points[:, 0, 1], points[:, 1, 0] - points[:, 0, 0]).abs()
    assert turned.max() > 2 and (turned < 0.6).float().mean() > 0.2  # radians: upside down too, upright most


def test_a_mirrored_face_keeps_its_left_eye_left_and_a_turned_box_holds_the_ellipse():
    row = face_row((10, 8, 50, 56), POINTS_AT, 0)
    mirrored = move_face(row, np.array([[-1.0, 0, 64], [0, 1, 0]]))
    points = mirrored[POINTS].reshape(5, 2)
    assert points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0] and mirrored[:4].tolist() == [14, 8, 54, 56]
    quarter = move_face(row, np.array([[0, -1.0, 100], [1, 0, 0]]))
    assert quarter[:4].tolist() == [44, 10, 92, 50]
    eighth = move_face(row, np.array([[1, -1.0, 0], [1, 1, 0]]) / np.sqrt(2))
    assert eighth[2] - eighth[0] == pytest.approx(2 * np.sqrt((20**2 + 24**2) / 2), rel=1e-4)


def test_each_cell_has_the_nearest_face_at_a_stride_that_fits_its_size():
    maps = [torch.zeros(1, 16, 128 // stride, 128 // stride) for stride in STRIDES]
    centres, strides = grid(maps)
    faces = torch.zeros(1, 4, COLUMNS)
    faces[..., WEIGHT] = -1
    faces[0, 0, BOX] = torch.tensor([10.0, 10, 40, 40])  # 30 px: stride 8
    faces[0, 1, BOX] = torch.tensor([0.0, 0, 120, 120])  # 120 px: stride 32
    faces[0, 2, BOX] = torch.tensor([90.0, 90, 126, 126])
    faces[0, :3, WEIGHT] = torch.tensor([1.0, 1, 0])
    number, positive, ignored = assign(faces, centres, strides)
    at = [(tuple(c), int(s)) for c, s in zip(centres[positive[0]].tolist(), strides[positive[0], 0], strict=True)]
    assert {s for _, s in at} == {8, 32}
    assert all(abs(x - 25) < 12 and abs(y - 25) < 12 for (x, y), s in at if s == 8)
    assert set(number[0, positive[0]].tolist()) == {0, 1}
    assert ignored[0, (centres == 108).all(1).nonzero()[0, 0]] and not ignored[0, 0]


def test_overlaps_and_suppression():
    one, other = torch.tensor([0.0, 0, 10, 10]), torch.tensor([5.0, 0, 15, 10])
    assert boxes.overlap(one, other) == pytest.approx(1 / 3) and boxes.overlap(one, one) == 1
    assert boxes.generalised_overlap(one, torch.tensor([10.0, 0, 20, 10])) == 0
    assert boxes.generalised_overlap(one, torch.tensor([30.0, 0, 40, 10])) == pytest.approx(-0.5)
    found = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10.0]])
    assert boxes.suppress(found, np.array([0.5, 0.9, 0.7])) == [1, 2]
    assert boxes.suppress(np.empty((0, 4)), np.empty(0)) == []


def test_folding_the_norms_changes_nothing():
    torch.manual_seed(0)
    net = FaceDetector(8)
    for _ in range(2):
        net(torch.rand(4, 3, 64, 64))
    x = torch.rand(1, 3, 64, 96)
    lean = folded(net)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in lean.modules()) and any(
        isinstance(m, Conv) for m in lean.modules()
    )
    for one, other in zip(net.eval()(x), lean(x), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    cells = decode(lean(x))
    assert cells.score.shape == (1, (8 * 12) + (4 * 6) + (2 * 3)) and cells.points.shape[2:] == (5, 2)


@pytest.mark.slow
def test_it_learns_where_drawn_faces_are(labelled, tmp_path, facekit):
    given = ["--size", 64, "--batch", 4, "--lr", 0.004, "--set", "params.width=8", "--set", "params.points_width=6"]
    given += ["--steps", 150, "--set", "run.log_every=10", "--out", tmp_path / "run"]
    done = facekit("train-detector", "--data", labelled, *given)
    assert done.code == 0, done.err
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    losses = [row["losses"] for row in map(json.loads, lines) if "losses" in row]
    for name in ("score", "points"):
        first, last = (sum(row[name] for row in rows) for rows in (losses[:4], losses[-4:]))
        assert last < 0.85 * first, name


@pytest.mark.slow
def test_a_run_is_a_detector(labelled, tmp_path, facekit):
    given = ["--data", labelled, "--size", 64, "--batch", 2, "--set", "data.split=[6,1,3]"]
    given += ["--set", "params.width=4", "--set", "params.points_width=6"]
    done = facekit("train-detector", *given, "--steps", 2, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "1 of its pictures are not there" in done.err
    assert set(card.read_made(tmp_path / "run" / "card.yaml")["scores"]) >= {"recall", "false_per_image"}
    net, points = load_detector(tmp_path / "run" / "model.safetensors")
    assert [level.shape[1] for level in net(torch.zeros(1, 3, 32, 32))] == [16, 16, 16]
    assert points(torch.zeros(2, 3, 64, 64)).shape == (2, 21)
    done = facekit("align", labelled / "photo", tmp_path / "out", "--detector", f"facekit:{tmp_path / 'run'}")
    assert done.code == 4 and "no face found by facekit:" in done.err + done.out  # two steps teach it nothing


def test_closeups_hold_their_face_where_the_label_says(labelled):
    """An eye is dark, the mouth is red, at any roll, mirrored or not, and a square at that roll lies in the picture."""
    faces = {path: rows for path, rows in find_faces(labelled).items() if len(rows)}
    rng, rolls = np.random.default_rng(0), []
    for path, rows in faces.items():
        picture = CloseupReader("a", faces).read(path, 192)["a"]
        for _ in range(4):
            matrix = closeup(rows[0], rng, 192, True)
            shown, row = warped(picture, matrix, 192), move_face(rows[0], matrix)
            points = torch.from_numpy(row[POINTS].reshape(1, 5, 2))
            rolls.append(float(face_points.turns(points)))
            (right, left, _, *corners), red = points[0].numpy(), shown[..., 0].astype(int) - shown[..., 1]
            assert all(shown[int(y), int(x)].max() < 90 for x, y in (right, left))
            x, y = np.mean(corners, 0).astype(int)
            assert red[y, x] > 80
            middle, side, _ = face_points.framed(points)
            assert 60 < side < 140 and (middle - 96).abs().max() + side * 2**0.5 / 2 < 100
    assert max(map(abs, rolls)) > 2 and sum(abs(roll) < 0.5 for roll in rolls) > 12


@pytest.mark.slow
def test_a_fifth_of_the_closeups_show_no_face(labelled):
    faces = find_faces(labelled)
    reader, rng = CloseupReader("a", faces), np.random.default_rng(0)
    samples = [reader.read(path, 96) for path in faces]
    shown = [reader.present(sample, rng, 96, True, lambda: samples[0]) for sample in samples for _ in range(20)]
    rows = np.stack([closeup["a_faces"] for closeup in shown])
    assert rows.shape == (260, 1, COLUMNS) and shown[0]["a"].shape == (96, 96, 3)
    assert 0.15 < (rows[..., WEIGHT] == 0).mean() < 0.4
    without = rows[[not len(sample["a_faces"]) for sample in samples for _ in range(20)]]
    assert len(without) == 20 and (without[..., WEIGHT] == 0).all()


def test_pictures_of_small_folders_are_shown_more_often():
    shown = balanced([Path(f"large/{i}") for i in range(90)] + [Path(f"small/{i}") for i in range(10)])
    assert [sum(path.parent.name == name for path in shown) for name in ("large", "small")] == [90, 30]


@pytest.mark.slow
def test_the_second_look_learns_beside_a_first_that_stays(labelled, tmp_path, facekit):
    given = ["--data", labelled, "--set", "data.split=[10,1,2]", "--set", "params.points_width=6", "--batch", 8]
    done = facekit("train-detector", "second-look", *given, "--steps", 1, "--out", tmp_path / "alone")
    assert done.code == 2 and "--init" in done.err
    first = ["--size", 96, "--set", "params.width=4", "--steps", 1, "--out", tmp_path / "first"]
    assert facekit("train-detector", *given, *first).code == 0
    more = ["--init", tmp_path / "first", "--steps", 120, "--lr", 0.004, "--set", "run.log_every=10"]
    done = facekit("train-detector", "second-look", *given, *more, "--out", tmp_path / "second")
    assert done.code == 0, done.err
    lines = map(json.loads, (tmp_path / "second" / "log.jsonl").read_text().splitlines())
    losses = [row["losses"] for row in lines if "losses" in row]
    assert set(losses[0]) == {"points", "fine_points", "seen"}
    for name in ("points", "fine_points", "seen"):
        early, late = (sum(row[name] for row in rows) for rows in (losses[:3], losses[-3:]))
        assert late < 0.8 * early, name
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("net.")} == {name for name in same if name.startswith("net.")}
    assert not torch.equal(before["points.upright.weight"], after["points.upright.weight"])
    load_detector(tmp_path / "second" / "model.safetensors")


def test_places_that_were_taken_for_faces_are_shown_as_none(labelled):
    """The red mark of the picture without a face, which a detector took for one, is in the middle of most closeups."""
    path = labelled / "photo" / "none.png"
    picture = Image.new("RGB", (600, 400), (90, 120, 90))
    ImageDraw.Draw(picture).rectangle((480, 80, 520, 120), fill=(255, 0, 0))
    picture.save(path)
    lines = (labelled / "photo" / "faces.jsonl").read_text().splitlines()
    place = {"box": [470, 70, 530, 130], "landmarks": [[488, 90], [512, 90], [500, 100], [490, 112], [510, 112]]}
    lines[-2] = json.dumps({"file": "none.png", "faces": [], "false": [place]})
    (labelled / "photo" / "faces.jsonl").write_text("\n".join(lines))
    faces, false = find_faces(labelled), find_false(labelled)
    assert list(false) == [path] and len(faces[path]) == 0
    reader, rng = CloseupReader("a", faces, false=false), np.random.default_rng(0)
    samples = {name: reader.read(name, 96) for name in faces}
    shown = [reader.present(samples[path], rng, 96, True, lambda: samples[path]) for _ in range(60)]
    middles = np.stack([closeup["a"][44:52, 44:52].mean((0, 1)) for closeup in shown])
    assert 0.5 < (middles[:, 0] - middles[:, 1] > 60).mean() < 0.9
    assert all(closeup["a_faces"][0, WEIGHT] == 0 for closeup in shown)
    other = next(name for name in faces if name != path)
    assert any(
        reader.present(samples[other], rng, 96, True, lambda: samples[path])["a_faces"][0, WEIGHT] for _ in range(9)
    )
