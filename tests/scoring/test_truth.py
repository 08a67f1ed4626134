"""Right answers: PSNR, SSIM and a VGG's distance of pairs, and the flags that ask for them."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import facekit as package
import toy
import toy_scores
from facekit.errors import InputError, MissingError
from facekit.nets.vgg import VGG
from facekit.scoring import truth


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Outputs, right answers 2 levels brighter, and real images, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    toy.fill(tmp_path / "ref", 4, seed=2)
    rng = np.random.default_rng(0)
    for name in ("out", "right"):
        (tmp_path / name).mkdir()
    for i in range(4):
        pixels = rng.integers(20, 200, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(f"out/{i}.png")
        Image.fromarray(pixels + 2).save(f"right/{i}.png")
    toy_scores.write_onnx(tmp_path / "net.onnx")
    return tmp_path


@pytest.fixture
def vgg_file(tmp_path):
    """A file with the first layers of an untrained VGG."""
    torch.manual_seed(0)
    save_file(VGG("vgg19", truth.LAYERS).state_dict(), tmp_path / "vgg.safetensors")
    return tmp_path / "vgg.safetensors"


SCORE = ("score-fid", "out", "ref", "--features", "net.onnx", "--truth", "right")


def test_two_levels_of_difference_have_the_psnr_that_its_definition_gives(folders):
    found = truth.measure("right", "out")
    assert found["PSNR"] == pytest.approx(10 * np.log10(255**2 / 4))
    assert found["PSNR std"] == pytest.approx(0, abs=1e-9) and found["truths"] == 4
    assert 0.99 < found["SSIM"] < 1 and "VGG-distance" not in found


def test_equal_images_score_as_equal(folders, vgg_file):
    found = truth.measure("out", "out", truth.load_vgg(vgg_file, "cpu"))
    assert found["PSNR"] == truth.MOST
    assert found["SSIM"] == pytest.approx(1) and found["VGG-distance"] == pytest.approx(0, abs=1e-10)


def test_blur_and_noise_are_further_by_all_three_the_stronger_they_are(vgg_file):
    vgg, picture = truth.load_vgg(vgg_file, "cpu"), toy.picture(32, 1)
    rng = np.random.default_rng(0)

    def noisy(level):
        made = np.asarray(picture, float) + rng.normal(0, level, (32, 32, 3))
        return Image.fromarray(made.clip(0, 255).astype(np.uint8))

    few, much = noisy(4), noisy(40)
    assert truth.psnr(picture, few) > truth.psnr(picture, much)
    assert truth.ssim(picture, few) > truth.ssim(picture, much)
    assert truth.vgg_distance(vgg, picture, few) < truth.vgg_distance(vgg, picture, much)


def test_ssim_of_flat_images_is_the_term_of_light_alone():
    x, y = 100.0, 150.0
    c = (0.01 * 255) ** 2
    flat = [Image.new("RGB", (16, 16), (int(v),) * 3) for v in (x, y)]
    assert truth.ssim(*flat) == pytest.approx((2 * x * y + c) / (x * x + y * y + c))


def test_the_preprocessing_of_known_weights_is_found(tmp_path):
    net = VGG("vgg19", truth.LAYERS)
    state = net.state_dict()
    red_first = torch.tensor((0.4800154, 0.55037946, 0.42947057))
    state["features.0.weight"][0, :, 0, 0] = red_first
    save_file(state, tmp_path / "caffe.safetensors")
    loaded = truth.load_vgg(tmp_path / "caffe.safetensors", "cpu")
    known = VGG("vgg19", truth.LAYERS, "caffe")
    known.load_state_dict(state)
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(loaded(x)["relu3_1"], known(x)["relu3_1"])


def test_the_command_prints_the_figures_and_keeps_them_in_a_card(facekit, folders, vgg_file):
    done = facekit(*SCORE, "--vgg", vgg_file, "--save", "score.yaml")
    assert done.code == 0, done.err
    assert re.search(r"^PSNR +42\.110 ± 0\.000$", done.out, re.M)
    assert re.search(r"^VGG-distance +0\.\d{3} ± ", done.out, re.M)
    assert re.search(r"^truths +4 +of right answer and output$", done.out, re.M)
    toy.picture(16, 5).save("right/0.png")
    changed = facekit(*SCORE, "--vgg", vgg_file, "--save", "score.yaml")
    assert changed.code == 2 and "inputs.truth" in changed.err


def test_labels_have_right_answers_of_their_own(facekit, folders):
    for name in ("out", "ref", "right"):
        for label in ("x", "y"):
            (folders / "by" / name).mkdir(parents=True, exist_ok=True)
            (folders / "by" / name / label).symlink_to(folders / name)
    result = package.score_fid("by/out", "by/ref", features="net.onnx", truth="by/right", labels=True)
    assert result["PSNR"] == pytest.approx(10 * np.log10(255**2 / 4))
    assert result["labels"]["x"]["truths"] == 4
    by = ("by/out", "by/ref", "--features", "net.onnx", "--truth", "by/right", "--labels")
    done = facekit("score-fid", *by, "--json")
    assert json.loads(done.out.splitlines()[-1])["SSIM"] == result["SSIM"]


def test_answers_of_another_size_are_refused_with_the_way_out(facekit, folders):
    for path in (folders / "right").iterdir():
        toy.picture(32, 1).save(path)
    done = facekit(*SCORE)
    assert done.code == 3 and "32 x 32 px and 16 x 16 px" in done.err and "--resize" in done.err
    assert facekit(*SCORE, "--resize", 16).code == 0


def test_images_under_the_window_of_ssim_are_refused(tmp_path):
    toy.fill(tmp_path, 2, 8)
    with pytest.raises(InputError, match="too small"):
        truth.measure(tmp_path, tmp_path)


def test_folders_that_share_no_name_are_refused(facekit, folders):
    for path in (folders / "right").iterdir():
        path.rename(path.with_name(f"other{path.name}"))
    done = facekit(*SCORE)
    assert done.code == 3 and "--truth" in done.err


def test_a_vgg_without_right_answers_is_refused(facekit, folders, vgg_file):
    done = facekit(*SCORE[:-2], "--vgg", vgg_file)
    assert done.code == 2 and "--truth" in done.err


def test_a_file_that_is_no_vgg_is_refused(facekit, folders):
    save_file({"x": torch.zeros(1)}, "wrong.safetensors")
    done = facekit(*SCORE, "--vgg", "wrong.safetensors")
    assert done.code == MissingError.code and "features.0.weight" in done.err
    assert facekit(*SCORE, "--vgg", "lost.safetensors").code == MissingError.code
