"""The page's resampling and alignment in JavaScript, against Pillow, OpenCV and our own: run by Node.js."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from facekit.faces import alignment
from facekit.inference import web_export

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not here to run the page's code")
NOISE = np.random.default_rng(0).integers(0, 256, (37, 52, 3), np.uint8)
SMOOTH = np.asarray(Image.fromarray(NOISE).resize((260, 190), Image.Resampling.BICUBIC))


@pytest.fixture
def node(tmp_path):
    """Runs an expression of JavaScript that knows our modules' functions and `image`, and returns its value."""

    def run(expression, image=None, **values):
        names = {"image": pixels(image)} if image is not None else {}
        names |= {name: pixels(x) if isinstance(x, np.ndarray) else x for name, x in values.items()}
        modules = [path.as_uri() for path in (web_export.PAGE / name for name in ("pixels.js", "alignment.js"))]
        lines = [f"import * as M{i} from {json.dumps(uri)};" for i, uri in enumerate(modules)]
        lines += [f"const {name} = {json.dumps(value)};" for name, value in names.items()]
        lines += ["const M = {...M0, ...M1};", f"const made = {expression};"]
        lines += ["if (made?.data) made.data = Array.from(made.data);", "console.log(JSON.stringify(made));"]
        file = tmp_path / "run.mjs"
        file.write_text("\n".join(lines))
        found = json.loads(subprocess.run([NODE, file], check=True, capture_output=True, text=True).stdout)
        return array(found) if isinstance(found, dict) and "data" in found else found

    return run


def pixels(image):
    """An image as the page holds it."""
    height, width, channels = image.shape
    return {"width": width, "height": height, "channels": channels, "data": image.flatten().tolist()}


def array(image):
    found = np.array(image["data"], np.uint8).reshape(image["height"], image["width"], image["channels"])
    return found


def apart(one, other):
    """The largest difference of two images."""
    one, other = (np.asarray(x, int).reshape(x.shape[0], x.shape[1], -1) for x in (one, other))
    return int(np.abs(one - other).max())


@pytest.mark.slow
@pytest.mark.parametrize("size", [(20, 30), (52, 11), (91, 80)])
@pytest.mark.parametrize("name", ["bicubic", "lanczos"])
def test_resize_is_pillows(node, size, name):
    made = node(f"M.resize(image, {size[0]}, {size[1]}, '{name}')", NOISE)
    assert apart(made, np.asarray(Image.fromarray(NOISE).resize(size, Image.Resampling[name.upper()]))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("factor", [2, 3, 5])
def test_reduce_is_pillows(node, factor):
    made = node(f"M.reduce(image, {factor})", NOISE)
    assert apart(made, np.asarray(Image.fromarray(NOISE).reduce(factor))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_affine_is_pillows(node, name):
    places = [0.7, 0.2, -3.3, -0.25, 0.8, 4.6]
    made = node(f"M.affine(image, {places}, 60, 50, '{name}')", NOISE)
    how = (60, 50), Image.Transform.AFFINE, places, Image.Resampling[name.upper()]
    assert apart(made, np.asarray(Image.fromarray(NOISE).transform(*how))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("radius", [0.6, 2.56, 9.3])
def test_blur_is_pillows(node, radius):
    made = node(f"M.gaussianBlur(image, {radius})", NOISE)
    assert apart(made, np.asarray(Image.fromarray(NOISE).filter(ImageFilter.GaussianBlur(radius)))) == 0


def test_the_largest_of_nine_is_pillows(node):
    made = node("M.largestOfNine(image)", NOISE[..., :1])
    assert apart(made, np.asarray(Image.fromarray(NOISE[..., 0]).filter(ImageFilter.MaxFilter(3)))) == 0


def test_composite_is_pillows(node):
    mask = NOISE[..., :1]
    made = node("M.composite(image, under, mask)", NOISE, under=NOISE[::-1].copy(), mask=mask)
    images = Image.fromarray(NOISE), Image.fromarray(NOISE[::-1]), Image.fromarray(mask[..., 0])
    assert apart(made, np.asarray(Image.composite(*images))) == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [(26, 18), (25, 19), (13, 9), (40, 37)])
def test_area_is_opencvs(node, size):
    made = node(f"M.area(image, {size[0]}, {size[1]})", NOISE)
    assert apart(made, cv2.resize(NOISE, size, interpolation=cv2.INTER_AREA)) <= 1  # it adds up in 32 bits


@pytest.mark.parametrize("size", [(80, 71), (37, 29)])
def test_linear_is_opencvs(node, size):
    made = node(f"M.linear(image, {size[0]}, {size[1]})", NOISE)
    assert apart(made, cv2.resize(NOISE, size, interpolation=cv2.INTER_LINEAR)) == 0


def warp_of(scale, degrees, x, y):
    """The warp of a face around (x, y) px that is turned by so many degrees."""
    cos, sin = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, np.array([64, 64]) - linear @ (x, y)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "warp",
    [warp_of(1.3, 20, 120, 90), warp_of(0.45, -170, 130, 100), warp_of(0.15, 8, 20, 30), warp_of(0.9, 35, 250, 10)],
)
def test_a_face_is_cut_as_align_cuts_it(node, warp):
    made = node(f"M.cutFace(image, {warp.flatten().tolist()}, 128)", SMOOTH)
    assert apart(made, np.asarray(alignment.warp(SMOOTH, warp, 128))) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("warp", [warp_of(1.3, 20, 120, 90), warp_of(0.45, -100, 130, 100), warp_of(0.9, 5, 250, 10)])
@pytest.mark.parametrize("headed", [False, True])
def test_a_face_is_pasted_as_translate_pastes_it(node, warp, headed):
    face = SMOOTH[:128, :128].copy()
    head = np.full((128, 128, 1), 255, np.uint8) * (np.arange(128) < 90)[None, :, None].astype(np.uint8)
    given = {"face": face, **({"head": head} if headed else {})}
    made = node(
        f"M.paste(image, face, {warp.flatten().tolist()}, 128, {'head' if headed else 'null'})", SMOOTH, **given
    )
    shown = Image.fromarray(head[..., 0]) if headed else None
    expected = alignment.paste(Image.fromarray(SMOOTH), Image.fromarray(face), warp, 128, shown)
    assert apart(made, np.asarray(expected)) <= 1


def test_landmarks_give_the_same_warp(node):
    points = [[100.0, 80], [150, 90], [123, 118], [98, 140], [140, 148]]
    target = alignment.template(128).tolist()
    made = node(f"M.similarity({points}, {target})")
    assert np.allclose(made, alignment.similarity(np.array(points), np.array(target)).flatten())
    assert node(f"M.similarity({[[1, 1]] * 5}, {target})") is None


def test_halves_are_rounded_to_even_numbers(node):
    values = [0.5, 1.5, 2.5, -0.5, -1.5, 2.4, 2.6]
    assert node(f"{values}.map(M.round)") == [round(value) for value in values]


def test_the_pages_files_are_where_the_export_looks():
    assert {"index.html", "page.js", "worker.js"} <= {Path(path).name for path in web_export.PAGE.iterdir()}
