"""Detectors, landmarks and the warp, on a photo that ships with scikit-image."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut, lbp_frontal_face_cascade_filename

from facekit.errors import CardError, InputError, MissingError
from facekit.faces import Face, align_face, find_detector, find_faces, paste, roll, similarity, template
from facekit.faces.alignment import inverse, landmarks_of_eyes, moved
from facekit.faces.image_pyramid import Canvas, clockwise
from facekit.faces.scrfd import local_packs

EYES = np.array([[204.5, 101.5], [247.0, 103.0]])  # of the astronaut, read off the picture by eye


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return astronaut()


@pytest.fixture(scope="module")
def cascade():
    return find_detector("cascade")


@pytest.fixture(scope="module")
def face(photo, cascade) -> Face:
    faces = cascade.detect(photo)
    assert len(faces) == 1
    return faces[0]


def tilted(photo: np.ndarray, degrees: float) -> np.ndarray:
    """`photo` turned clockwise about its middle."""
    return np.asarray(Image.fromarray(photo).rotate(-degrees, Image.Resampling.BICUBIC))


def test_cascade_finds_the_astronaut_and_her_eyes(face):
    x0, y0, x1, y1 = face.box
    assert x0 < 205 and x1 > 240 and y0 < 100 and y1 > 145
    assert x1 - x0 < 120 and y1 - y0 < 150
    assert np.linalg.norm(face.landmarks[:2] - EYES, axis=1).max() < 0.2 * 42
    assert not face.measured
    assert 0 < face.score < 1


@pytest.mark.parametrize("degrees", [-15, 15])
def test_roll_follows_a_turned_head(photo, cascade, face, degrees):
    (turned,) = cascade.detect(tilted(photo, degrees))
    assert roll(turned.landmarks) - roll(face.landmarks) == pytest.approx(degrees, abs=5)


def test_rotating_the_photo_by_the_roll_levels_the_eyes(photo, cascade):
    turned = tilted(photo, 15)
    (face,) = cascade.detect(turned)
    levelled = np.asarray(Image.fromarray(turned).rotate(align_face(turned, face, 64).roll))
    assert abs(roll(cascade.detect(levelled)[0].landmarks)) < 5


def test_two_astronauts_are_two_faces_largest_first(photo, cascade):
    crop = photo[40:200, 140:310]
    canvas = np.full((260, 480, 3), 128, np.uint8)
    canvas[40:200, 20:190] = crop
    canvas[40:240, 220:432] = np.asarray(Image.fromarray(crop).resize((212, 200)))
    faces = cascade.detect(canvas)
    assert len(faces) == 2
    centres = [(f.box[0] + f.box[2]) / 2 for f in faces]
    assert centres[0] > 240 > centres[1]
    assert faces[0].box[2] - faces[0].box[0] > faces[1].box[2] - faces[1].box[0]


def test_a_huge_photo_gives_full_size_coordinates(photo, cascade):
    part = photo[20:220, 110:340]
    small = cascade.detect(part)[0]
    big = cascade.detect(np.asarray(Image.fromarray(part).resize((230 * 16, 200 * 16))))[0]
    np.testing.assert_allclose(big.landmarks / 16, small.landmarks, atol=4)
    np.testing.assert_allclose(np.array(big.box) / 16, small.box, atol=12)


def test_a_face_that_fills_the_frame_is_found(photo, cascade):
    x0, y0, x1, y1 = 172, 62, 270, 172
    (face,) = cascade.detect(photo[y0:y1, x0:x1])
    assert np.linalg.norm(face.landmarks[:2] + (x0, y0) - EYES, axis=1).max() < 0.25 * 42


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (7, 5), (23, 23), (64, 64), (300, 200)])
@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_plain_picture_has_no_face(cascade, shape, colour):
    assert cascade.detect(np.full((*shape, 3), colour, np.uint8)) == []


def test_noise_has_no_face(cascade):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert cascade.detect(noise) == []


def test_a_grey_photo_is_as_good(photo, cascade, face):
    grey = np.asarray(Image.fromarray(photo).convert("L").convert("RGB"))
    np.testing.assert_allclose(cascade.detect(grey)[0].landmarks, face.landmarks, atol=1)


def test_canvas_patch_levels_a_turned_mark():
    image = np.zeros((101, 101, 3), np.uint8)
    direction = clockwise(30) @ (30, 0)
    x, y = (50.5 + direction).astype(int)
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    patch = Canvas(image).patch(np.array([50.5, 50.5]), 101, 30, 101)
    row, column = np.unravel_index(patch.argmax(), patch.shape)
    assert abs(row - 50) <= 1
    assert abs(column - 80) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_portrait_on_its_side_or_head_is_found_and_stands_upright(photo, cascade, face, quarters):
    turned = np.ascontiguousarray(np.rot90(photo, quarters))
    (found,) = find_faces(cascade, turned)
    upright = align_face(photo, face, 64).image
    difference = np.asarray(align_face(turned, found, 64).image, float) - np.asarray(upright, float)
    assert np.abs(difference).mean() < 12
    x0, y0, x1, y1 = found.box
    assert x0 < found.landmarks[:, 0].mean() < x1 and y0 < found.landmarks[:, 1].mean() < y1


def test_noise_has_no_face_and_a_tiny_one_does_not_count(cascade):
    noise = np.random.default_rng(12).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="no face found"):
        find_faces(cascade, noise)

    class Finder:
        name = "finder"

        def detect(self, image, effort="first"):
            return [Face((1.0, 1.0, 8.0, 9.0), 0.9, np.zeros((5, 2)), False)]

    with pytest.raises(InputError, match="smaller than 16 px"):
        find_faces(Finder(), noise)


def test_names_of_detectors(tmp_path):
    assert find_detector("cascade").name == "cascade"
    assert find_detector("auto", tmp_path).name == "facekit"
    with pytest.raises(CardError) as raised:
        find_detector("cascad")
    assert "did you mean 'cascade'?" in raised.value.message
    for name in ("", "cascade:", "insightface:", "mtcnn"):
        with pytest.raises(CardError):
            find_detector(name)
    with pytest.raises(CardError, match="insightface:PACK"):
        find_detector("mtcnn")


def test_a_cascade_file_is_used(photo, face):
    detector = find_detector(f"cascade:{lbp_frontal_face_cascade_filename()}")
    np.testing.assert_array_equal(detector.detect(photo)[0].landmarks, face.landmarks)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\x01garbage", b"<a>", b"<opencv_storage/>", b"<a><featureType>HAAR</featureType></a>"],
)
def test_garbage_is_not_a_cascade(tmp_path, content):
    file = tmp_path / "cascade.xml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"cascade\.xml"):
        find_detector(f"cascade:{file}")


def test_a_cut_off_cascade_is_refused(tmp_path):
    whole = Path(lbp_frontal_face_cascade_filename()).read_text()
    file = tmp_path / "cut.xml"
    file.write_text(whole.replace("<features>", "<nothing>").replace("</features>", "</nothing>"))
    with pytest.raises(InputError, match=r"cut\.xml"):
        find_detector(f"cascade:{file}")


def test_a_missing_cascade_file_or_folder_says_so(tmp_path):
    for path in (tmp_path / "none.xml", tmp_path):
        with pytest.raises(InputError, match="no cascade file"):
            find_detector(f"cascade:{path}")


def test_a_pack_that_cannot_be_downloaded_says_where_to_put_it(tmp_path, monkeypatch):
    storage = pytest.importorskip("insightface.utils.storage")

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(storage, "download_file", offline)
    with pytest.raises(MissingError, match="no network") as raised:
        find_detector("insightface", tmp_path)
    assert f"buffalo_l.zip so that its .onnx files lie in {tmp_path}/models/buffalo_l/" in raised.value.hint
    assert "--model-root" in raised.value.hint


def test_a_pack_without_a_detector_or_with_a_broken_one_says_so(tmp_path):
    pytest.importorskip("insightface")
    pack = tmp_path / "models" / "mine"
    pack.mkdir(parents=True)
    with pytest.raises(MissingError, match="holds no detection model"):
        find_detector("insightface:mine", tmp_path)
    (pack / "det_10g.onnx").write_bytes(b"not a model")
    assert local_packs(tmp_path) == ["mine"]
    with pytest.raises(MissingError, match=r"det_10g\.onnx is not a model"):
        find_detector("insightface", tmp_path)  # the only pack there is


def test_without_insightface_auto_is_our_own(tmp_path, monkeypatch):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "det.onnx").write_bytes(b"")
    for module in ("insightface", "insightface.model_zoo"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find_detector("auto", tmp_path).name == "facekit"
    with pytest.raises(MissingError, match="insightface cannot be used") as raised:
        find_detector("insightface:mine", tmp_path)
    assert raised.value.hint.startswith("pip install")


def test_similarity_is_the_closed_form():
    rng = np.random.default_rng(0)
    src = rng.normal(size=(5, 2)) * 30
    matrix = np.column_stack([2.5 * clockwise(37), [4, -9]])
    np.testing.assert_allclose(similarity(src, moved(matrix, src)), matrix, atol=1e-9)


def test_similarity_is_least_squares_and_never_mirrors():
    rng = np.random.default_rng(1)
    src, dst = rng.normal(size=(2, 5, 2))

    def error(matrix):
        return float(((moved(matrix, src) - dst) ** 2).sum())

    best = similarity(src, dst)
    for a, b, x, y in rng.normal(size=(200, 4)) * 0.1:
        assert error(best + [[a, -b, x], [b, a, y]]) > error(best)
    assert np.linalg.det(similarity(src, src * (-1, 1))[:, :2]) > 0


def test_inverse_undoes():
    matrix = np.column_stack([0.3 * clockwise(-70), [12, 5]])
    points = np.random.default_rng(2).normal(size=(6, 2))
    np.testing.assert_allclose(moved(inverse(matrix), moved(matrix, points)), points, atol=1e-9)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.ones((1, 2)), np.full((5, 2), np.nan)])
def test_points_that_fix_nothing_are_refused(points):
    with pytest.raises(InputError):
        similarity(points, template(64)[: len(points)])
    if len(points) > 1:
        with pytest.raises(InputError):
            similarity(template(64), points)


def test_template_scales_and_margin_widens():
    np.testing.assert_allclose(template(256), 2 * template(128))
    tight, loose = template(100, 0), template(100, 0.5)
    np.testing.assert_allclose(loose - 50, (tight - 50) / 2)
    eyes = template(1)[:2]
    assert eyes[1, 0] - eyes[0, 0] == pytest.approx(0.28, abs=0.005)
    assert eyes[:, 1] == pytest.approx(0.36, abs=0.005)
    for size, margin in ((0, 0.2), (64, -0.1), (64, float("nan"))):
        with pytest.raises(CardError):
            template(size, margin)


@pytest.mark.parametrize("size", [64, 100, 256])
@pytest.mark.parametrize("margin", [0, 0.25, 2.0])
def test_aligned_landmarks_and_pixels_agree_with_the_matrix(photo, face, size, margin):
    aligned = align_face(photo, face, size, margin)
    assert aligned.image.size == (size, size)
    assert aligned.image.mode == "RGB"
    np.testing.assert_allclose(aligned.landmarks, template(size, margin), atol=1e-6)
    np.testing.assert_allclose(moved(aligned.matrix, face.landmarks), aligned.landmarks)
    assert aligned.roll == pytest.approx(roll(face.landmarks), abs=1e-6)


def test_a_warp_that_changes_nothing_is_exact(photo):
    where = inverse(np.array([[1.0, 0, 100], [0, 1, 60]]))
    face = Face((0, 0, 1, 1), 1.0, moved(inverse(where), template(128)), measured=True)
    aligned = align_face(photo, face, 128)
    np.testing.assert_allclose(np.asarray(aligned.image, float), photo[60:188, 100:228], atol=1)


def test_shrinking_does_not_alias():
    stripes = np.zeros((900, 900, 3), np.uint8)
    stripes[:, ::2] = 255
    face = Face((0, 0, 900, 900), 1.0, landmarks_of_eyes(np.array([[350.0, 400], [550, 420]])), measured=True)
    for size in (128, 300):
        assert np.asarray(align_face(stripes, face, size, 0).image).std() < 12


def test_beyond_the_photo_there_is_no_black(photo):
    face = Face((0, 0, 90, 90), 1.0, landmarks_of_eyes(np.array([[20.0, 30], [60, 30]])), measured=True)
    bright = np.maximum(photo, 60)
    assert np.asarray(align_face(bright, face, 96, 1.0).image).min() >= 40
    assert align_face(bright[:1, :1], face, 96, 1.0).image.size == (96, 96)


@pytest.mark.parametrize("crop_size", [64, 200, 512])
def test_pasting_a_crop_back_restores_the_photo(photo, face, crop_size):
    aligned = align_face(photo, face, crop_size)
    after = np.asarray(paste(Image.fromarray(photo), aligned.image, aligned.matrix)).astype(float)
    difference = np.abs(after - photo).mean(2)
    inside = tuple(slice(round(low), round(high)) for low, high in zip(face.box[1::-1], face.box[3:1:-1], strict=True))
    assert difference[inside].mean() < (6 if crop_size == 64 else 3)
    assert difference[300:].max() == 0
    for shift in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)):  # half a pixel off is worse
        beside = aligned.matrix + [[0, 0, shift[0] * crop_size / 150], [0, 0, shift[1] * crop_size / 150]]
        off = np.abs(np.asarray(paste(Image.fromarray(photo), aligned.image, beside)).astype(float) - photo).mean(2)
        assert off[inside].mean() > difference[inside].mean()


def test_pasting_knows_a_crop_that_was_scaled(photo, face):
    aligned = align_face(photo, face, 128)
    larger = aligned.image.resize((512, 512), Image.Resampling.BICUBIC)
    one = np.asarray(paste(Image.fromarray(photo), aligned.image, aligned.matrix)).astype(float)
    two = np.asarray(paste(Image.fromarray(photo), larger, aligned.matrix, size=128)).astype(float)
    assert np.abs(one - two).mean() < 0.5


def test_paste_fades_at_its_rim(photo, face):
    aligned = align_face(photo, face, 128)
    red = Image.new("RGB", (128, 128), (255, 0, 0))
    after = np.asarray(paste(Image.fromarray(np.zeros_like(photo)), red, aligned.matrix))[..., 0]
    x, y = moved(inverse(aligned.matrix), np.array([[64, 64]]))[0].astype(int)
    assert after[y, x] == 255
    steps = np.abs(np.diff(after.astype(int), axis=1))
    assert 0 < steps.max() < 100


def test_paste_outside_the_photo_changes_nothing():
    photo = Image.new("RGB", (40, 30), (9, 9, 9))
    matrix = np.array([[1.0, 0, 500], [0, 1, 500]])
    assert np.array_equal(np.asarray(paste(photo, Image.new("RGB", (16, 16), "red"), matrix)), np.asarray(photo))
