"""`facekit translate`: what it writes and where, what it leaves alone, what it refuses."""

import errno
import json
import os
import shutil
import subprocess
import sys
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from skimage.data import astronaut
from torch import nn

import toy
from facekit.inference import translate_folder as command
from facekit.ops.cpu_conv import suits_nnpack
from facekit.ops.cpu_kernels import CpuKernels
from facekit.ops.private_torch import has_nnpack
from facekit.ops.winograd import Conv2dCall
from facekit.recipe_api import checkpoint
from facekit.recipes.cyclegan import CycleGAN
from facekit.storage import files, folder_work

PORTRAIT = Image.fromarray(astronaut()[20:220, 110:340])  # one face, about 95 px, in the middle
NAMES = {"a": "photo", "b": "anime"}


def toy_model(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    values = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": NAMES}
    checkpoint.save_model(path, nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder: three pictures in in/, a model that translates to anime."""
    monkeypatch.chdir(tmp_path)
    toy.fill(Path("in"), 3)
    toy_model(Path("model.safetensors"))
    return tmp_path


@pytest.fixture
def translate(facekit, here):
    """Runs `facekit translate IN OUT`, by default on faces that are cut already."""

    def run(source="in", out="out", *more, align=False, weights="model.safetensors", recipe=toy.FILE):
        how = ["--detector", "cascade"] if align else ["--no-align"]
        own = ["--recipe", recipe] if recipe else []
        return facekit("translate", source, out, "--weights", weights, *own, *how, *more)

    return run


@pytest.fixture
def white(here):
    """A model that makes everything white."""
    net = toy.Toy({}, 16).nets()["ab"]
    for p in net.parameters():
        nn.init.constant_(p, 0)
    nn.init.constant_(net[2].bias, 20)
    checkpoint.save_model(
        here / "white.safetensors", nn.ModuleDict({"ab": net}), {"recipe": str(toy.FILE), "domains": NAMES}
    )
    return "white.safetensors"


def photos(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PORTRAIT.save(folder / name)
    return folder


def pixels(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), int)


def state(folder: Path | str = ".") -> dict[str, int]:
    """Every file below, with the moment of its last change."""
    return {str(p): p.stat().st_mtime_ns for p in Path(folder).rglob("*") if p.is_file()}


def card(path: Path | str = "out/card.yaml") -> dict:
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def images(folder: Path | str = "out") -> list[str]:
    suffixes = (".png", ".jpg", ".webp")
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.suffix in suffixes)


# What is written


def test_names_and_sub_folders_stay(translate):
    shutil.rmtree("in")
    for name in ("ü ß/née (1).jpg", "deep/er/x.webp", "x.PNG", "a.jpg", "a.png"):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        toy.picture().save(Path("in", name))
    assert translate().code == 0
    assert images() == ["a_jpg.png", "a_png.png", "deep/er/x.png", "x.png", "ü ß/née (1).png"]


def test_a_translation_is_what_the_nets_make_of_the_picture(translate):
    assert translate().code == 0
    model = checkpoint.load_model("model.safetensors", recipe=str(toy.FILE))
    x = torch.from_numpy(pixels("in/001.png")).permute(2, 0, 1)[None] / 127.5 - 1
    expected = (model.nets["ab"](x)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(pixels("out/001.png") - expected).max() < 1
    assert pixels("out/001.png").std() > 0.5


def test_the_card_says_all_that_matters(translate):
    translate()
    told = card()
    assert told["command"] == "translate" and told["made"]["images"] == 3
    assert told["options"]["to"] == "anime" and told["options"]["weights"] == "model.safetensors"
    assert len(told["inputs"]["weights"]) == 16


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_the_suffix_is_the_type(translate, suffix, kind):
    assert translate("in", "out", "--suffix", suffix).code == 0
    assert Image.open(f"out/000.{suffix}").format == kind


@pytest.mark.parametrize(("name", "kind"), [("me.png", "PNG"), ("me.jpg", "JPEG"), ("ma ä.webp", "WEBP")])
def test_one_image_becomes_one_file_with_its_card(translate, name, kind):
    assert translate("in/000.png", f"new/{name}").code == 0
    assert Image.open(f"new/{name}").format == kind
    assert sorted(p.name for p in Path("new").iterdir()) == sorted([name, f"{name}.card.yaml"])
    assert "nothing to do" in translate("in/000.png", f"new/{name}").err


def test_one_image_can_go_into_a_folder(translate):
    Path("v1.0").mkdir()
    for out in ("new", "v1.0"):
        assert translate("in/000.png", out).code == 0
        assert images(out) == ["000.png"]


def test_files_of_one_stem_do_not_meet(translate):
    for out in ("me.png", "me.webp"):
        assert translate("in/000.png", out).code == 0


def test_a_size_is_kept_exactly_and_large_ones_are_enlarged(translate, here):
    for size in (18, 40):
        done = translate("in/000.png", f"{size}.png", "--size", size, "--upscaler", "none")
        assert Image.open(f"{size}.png").size == (size, size) and ("enlarged" in done.err) == (size > 16)
    translate("in/000.png", "own.png")
    enlarged = Image.open("own.png").resize((40, 40), Image.Resampling.LANCZOS)
    assert (pixels("40.png") == np.asarray(enlarged)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [((40, 20), None, (32, 16)), ((20, 40), 32, (32, 64)), ((500, 500), 24, (24, 24)), ((1, 1), None, (16, 16))],
)
def test_without_align_proportions_stay(translate, shape, size, expected):
    toy.picture().resize(shape).save("in/000.png")
    assert translate("in", "out", *(["--size", size] if size else [])).code == 0
    assert Image.open("out/000.png").size == expected


def test_batches_do_not_change_the_result(translate):
    toy.picture().resize((24, 16)).save("in/001.png")
    translate("in", "one", "--batch", 1)
    translate("in", "four", "--batch", 4)
    for name in images("one"):
        assert np.abs(pixels(f"one/{name}") - pixels(f"four/{name}")).max() <= 1


def test_two_shards_make_the_whole(translate):
    assert translate("in", "out", "--shard", "1/2").code == 0
    assert images() == ["000.png", "002.png"] and not Path("out/card.yaml").exists()
    assert translate("in", "out", "--shard", "2/2").code == 0
    assert images() == ["000.png", "001.png", "002.png"] and card()["made"]["images"] == 3


def test_limit_takes_the_first_images(translate):
    assert translate("in", "out", "--limit", 2).code == 0
    assert images() == ["000.png", "001.png"]


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(translate):
    before = state()
    done = translate("in", "out", "--dry-run")
    assert done.code == 0 and "3 images to anime" in done.out
    assert "2 images" in translate("in", "out", "--dry-run", "--limit", 2).out
    assert state() == before


def test_memory_does_not_grow_with_the_folder(translate, monkeypatch):
    toy.fill(Path("in"), 40, size=64)
    begun, finished, waiting = [], [], []
    submit, finish = futures.ThreadPoolExecutor.submit, command.finish_batch

    def counted(self, fn, *arguments):
        if arguments[0] is not folder_work._encoded:
            begun.append(fn)
        return submit(self, fn, *arguments)

    def together(group, **rest):
        waiting.append(len(begun) - len(finished))
        finished.extend(group)
        assert all(item.crops[0].face.size == (16, 16) and item.photo is None for _, item in group)
        return finish(group, **rest)

    monkeypatch.setattr(futures.ThreadPoolExecutor, "submit", counted)
    monkeypatch.setattr(command, "finish_batch", together)
    assert translate("in", "out", "--batch", 2, "--workers", 2).code == 0
    assert len(begun) == 40 and max(waiting) <= 8


# Which way


@pytest.fixture
def both_ways(here):
    """A small CycleGAN between photo and anime."""
    torch.manual_seed(0)
    params = {"width": 4, "blocks": 1, "d_width": 4, "pool": 0}
    made = CycleGAN(params, 32).nets()
    nets = nn.ModuleDict({name: made[name] for name in CycleGAN.exports})
    values = {"recipe": "cyclegan", "data": {"size": 32}, "params": params, "domains": NAMES}
    checkpoint.save_model(here / "both.safetensors", nets, values, half=True)
    return "both.safetensors"


def test_to_picks_the_direction_by_the_domain_name(translate, both_ways):
    for to in ("photo", "anime"):
        assert translate("in", to, "--to", to, weights=both_ways, recipe=None).code == 0
    assert card("photo/card.yaml")["options"]["to"] == "photo"
    model = checkpoint.load_model(both_ways)
    x = torch.from_numpy(np.asarray(Image.open("in/000.png").resize((32, 32), 3), np.float32))
    for to, net in (("photo", "ba"), ("anime", "ab")):
        with torch.no_grad():
            y = model.nets[net](x.permute(2, 0, 1)[None] / 127.5 - 1)[0].permute(1, 2, 0).numpy()
        assert np.abs(pixels(f"{to}/000.png") - (y + 1) * 127.5).max() < 1


def test_an_unknown_domain_is_an_error_that_lists_both_names(translate, both_ways):
    done = translate("in", "out", "--to", "pirate", weights=both_ways, recipe=None)
    assert done.code == 2 and "photo" in done.err and "anime" in done.err and not Path("out").exists()


def test_a_domain_that_only_serves_as_input_is_refused(translate):
    done = translate("in", "out", "--to", "photo")
    assert done.code == 2 and "--to anime" in done.err


# Faces and photos


@pytest.fixture
def aligned(facekit, here):
    """faces/, cut by `facekit align` out of the photos/ of one face."""
    photos(here / "photos", "ada.jpg", "more/ada.png")
    assert facekit("align", "photos", "faces", "--size", 64, "--detector", "cascade").code == 0
    return "faces"


@pytest.mark.slow
def test_photos_are_aligned_first(translate, here):
    photos(here / "photos", "ada.jpg")
    assert translate("photos", "out", align=True).code == 0
    assert translate("photos", "uncut").code == 0
    assert Image.open("out/ada.png").size == (16, 16)
    assert Image.open("uncut/ada.png").size[0] > 16
    assert card()["options"]["detector"] == "cascade"


@pytest.mark.slow
def test_a_folder_of_align_is_taken_as_it_is(translate, aligned, monkeypatch):
    def detect(*_):
        raise AssertionError("looked for a face")

    monkeypatch.setattr("facekit.inference.face_input.find_detector", detect)
    assert translate(aligned, "out", align=True).code == 0
    assert images() == ["ada.png", "more/ada.png"]
    assert translate(f"{aligned}/ada.png", "ada.png", align=True).code == 0
    assert (pixels("ada.png") == pixels("out/ada.png")).all()


@pytest.mark.slow
def test_every_face_of_a_group_is_pasted_into_one_picture(translate, here, white):
    group = Image.new("RGB", (2 * PORTRAIT.width, PORTRAIT.height))
    group.paste(PORTRAIT, (0, 0))
    group.paste(PORTRAIT, (PORTRAIT.width, 0))
    group.save("in/000.png")
    for faces, count in (("largest", 1), ("all", 2)):
        made = f"{faces}.png"
        assert translate("in/000.png", made, "--paste", "--faces", faces, align=True, weights=white).code == 0
        middles = pixels(made)[95:105, [115, 115 + PORTRAIT.width]].mean((0, 2))
        assert (middles > 250).sum() == count
    done = translate("in/000.png", "out.png", "--faces", "all", align=True)
    assert done.code == 2 and "--paste" in done.err


@pytest.mark.slow
def test_paste_stays_inside_the_folder_of_photos(translate, aligned):
    PORTRAIT.save("secret.png")
    manifest = Path("faces/manifest.jsonl")
    manifest.write_text(manifest.read_text().replace('"ada.jpg"', '"../secret.png"'))
    assert translate(aligned, "out", "--paste", align=True).code == 4
    assert images() == ["more/ada.png"] and "outside" in Path("out/failed.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("cut", [True, False])
def test_paste_changes_the_face_and_nothing_else(translate, aligned, white, cut):
    done = translate(aligned if cut else "photos", "out", "--paste", align=True, weights=white)
    assert done.code == 0, done.err
    photo, made = pixels("photos/more/ada.png"), pixels("out/more/ada.png")
    assert made.shape == photo.shape
    changed = np.abs(made - photo).max(2) > 0
    assert not changed[:4].any() and not changed[:, :20].any() and not changed[:, -20:].any()
    assert (made[100:110, 110:120] == 255).all()
    share = changed.mean()
    assert 0.1 < share < 0.7


@pytest.mark.slow
def test_the_edge_of_a_pasted_face_is_soft(translate, here, white):
    Image.fromarray((np.asarray(PORTRAIT) * 0.6).astype(np.uint8)).save("in/000.png")
    assert translate("in/000.png", "out.png", "--paste", align=True, weights=white).code == 0
    photo, made = pixels("in/000.png")[105], pixels("out.png")[105]
    share = ((made - photo) / (255 - photo)).mean(1)  # of white, along the row through the face
    assert share[0] == share[-1] == 0 and share.max() > 0.99
    assert np.abs(np.diff(share)).max() < 0.35
    assert ((share > 0.05) & (share < 0.95)).sum() >= 6


@pytest.mark.slow
def test_paste_without_the_photos_is_refused_at_once(translate, aligned):
    Path("photos").rename("elsewhere")
    done = translate(aligned, "out", "--paste")
    assert done.code == 3 and "photos" in done.err and "next:" in done.err and not Path("out").exists()


def test_paste_of_cut_faces_is_refused(translate):
    done = translate("in", "out", "--paste")
    assert done.code == 2 and "--no-align" in done.err and not Path("out").exists()


@pytest.mark.slow
def test_photos_without_a_face_are_reported_and_the_rest_is_done(translate, here):
    photos(here / "in", "ada.png")
    Path("in/cut.jpg").write_bytes(b"\xff\xd8\xff")
    done = translate("in", "out", "--sheet", align=True)
    assert done.code == 4 and "failed.jsonl" in done.err
    assert images() == ["ada.png"] and Path("out-sheet.png").exists()
    rows = {row["path"]: row for row in map(json.loads, Path("out/failed.jsonl").read_text().splitlines())}
    assert set(rows) == {"000.png", "001.png", "002.png", "cut.jpg"}
    assert rows["000.png"]["stage"] == "detect" and "no face found" in rows["000.png"]["reason"]
    assert card()["made"]["images"] == 1


@pytest.mark.slow
def test_one_photo_without_a_face_leaves_nothing_and_the_advice_works(translate, here):
    before = state()
    done = translate("in/000.png", "me.png", align=True)
    assert done.code == 3 and "no face found" in done.err and "--no-align" in done.err
    assert state() == before
    assert translate("in/000.png", "me.png").code == 0


def test_a_long_strip_fails_and_the_rest_is_done(translate):
    Image.new("RGB", (3000, 10)).save("in/000.png")
    assert translate().code == 4
    assert images() == ["001.png", "002.png"] and "too long" in Path("out/failed.jsonl").read_text()


@pytest.mark.parametrize("margin", [-0.5, "nan"])
def test_a_margin_that_cannot_be_is_refused_at_once(translate, margin):
    assert translate("in", "out", "--margin", margin, align=True).code == 2
    assert not Path("out").exists()


# The contact sheet


def test_a_sheet_shows_before_and_after(translate, white):
    assert translate("in", "out", "--sheet", weights=white).code == 0
    sheet = pixels("out-sheet.png")
    assert sheet.shape[0] >= 3 * 256 and sheet.shape[1] >= 2 * 256
    before, after = sheet[40:250, 20:250], sheet[40:250, 280:500]
    assert before.std() > 10 and (after == 255).all()


def test_a_sheet_of_one_image_stands_beside_it(translate):
    assert translate("in/000.png", "me.png", "--sheet").code == 0
    assert Image.open("me-sheet.png").size[0] >= 2 * 256


def test_no_images_make_no_sheet(translate):
    for path in Path("in").iterdir():
        path.write_bytes(b"")
    assert translate("in", "out", "--sheet").code == 4
    assert not Path("out-sheet.png").exists()


# Again


def test_a_second_run_writes_nothing(translate):
    translate("in", "out", "--sheet")
    before = state()
    done = translate("in", "out", "--sheet")
    assert done.code == 0 and "nothing to do" in done.err
    assert state() == before


def test_new_images_are_added_by_the_same_command(translate):
    translate("in", "out", "--sheet")
    old, sheet = state("out"), pixels("out-sheet.png").shape
    toy.picture(16, 9).save("in/009.png")
    assert translate("in", "out", "--sheet").code == 0
    new = state("out")
    assert new["out/000.png"] == old["out/000.png"] and "out/009.png" in new
    assert card()["made"]["images"] == 4 and pixels("out-sheet.png").shape != sheet


def test_an_output_inside_the_input_is_not_translated_again(translate):
    translate("in", "in/out", "--sheet")
    assert Path("in/out-sheet.png").exists()
    before = state()
    done = translate("in", "in/out", "--sheet")
    assert done.code == 0 and "nothing to do" in done.err and state() == before


@pytest.mark.parametrize(("source", "out"), [("in", "out"), ("in/000.png", "me.png")])
def test_other_weights_under_the_same_name_are_noticed(translate, source, out):
    translate(source, out)
    before = state()
    toy_model(Path("model.safetensors"), seed=1)
    done = translate(source, out)
    assert done.code == 2 and "inputs.weights: " in done.err and " -> " in done.err
    assert {k: v for k, v in state().items() if "model" not in k} == {k: before[k] for k in before if "model" not in k}
    assert translate(source, out, "--force").code == 0


@pytest.mark.parametrize(("source", "out"), [("in", "out"), ("in/000.png", "me.png")])
def test_another_setting_into_the_same_place_is_refused_with_the_difference(translate, source, out):
    translate(source, out)
    done = translate(source, out, "--size", 32)
    assert done.code == 2 and "options.size: absent -> 32" in done.err


def test_another_picture_under_the_same_name_is_noticed(translate):
    translate("in/000.png", "me.png")
    toy.picture(16, 5).save("in/000.png")
    done = translate("in/000.png", "me.png")
    assert done.code == 2 and "inputs.source" in done.err


# What stays as it is


@pytest.mark.parametrize(
    ("source", "out"),
    [("in", "in"), ("in", "./in/"), ("in/000.png", "in"), ("in/000.png", "in/000.png"), ("in", "mine")]
    + [("in/000.png", "mine"), ("in/000.png", "mine/001.png")],
)
def test_foreign_pictures_are_never_overwritten(translate, source, out):
    toy.fill(Path("mine"), 3, seed=4)
    before = state()
    done = translate(source, out)
    assert done.code == 2 and "next:" in done.err
    assert state() == before


def test_force_does_not_overwrite_the_input_either(translate):
    before = state()
    assert translate("in/000.png", "in", "--force").code == 2
    assert state() == before


# What cannot be


@pytest.mark.parametrize(
    ("source", "words"), [("gone", "no such file"), ("empty", "no images"), ("text", "1 other files")]
)
def test_an_input_without_images_is_refused(translate, source, words):
    Path("empty").mkdir()
    Path("text").mkdir()
    Path("text/x.txt").write_text("x")
    done = translate(source)
    assert done.code == 3 and words in done.err and "next:" in done.err and not Path("out").exists()


@pytest.mark.parametrize(
    ("source", "out", "code", "words"),
    [
        ("in", "note.txt", 2, "is a file"),
        ("in/000.png", "me.doc", 2, "image type"),
        ("note.txt", "me.png", 3, "not an image"),
        ("note.txt", "out", 4, "failed.jsonl"),
        ("in", "note.txt/out", 3, "note.txt"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(translate, source, out, code, words):
    Path("note.txt").write_text("x")
    done = translate(source, out)
    assert done.code == code and words in done.err and "bug" not in done.err


def test_a_device_that_is_not_here_is_refused(translate):
    done = translate("in", "out", "--device", "abacus")
    assert done.code == 2 and "--device auto" in done.err


@pytest.mark.parametrize("out", ["out", "me.png"])
@pytest.mark.parametrize(("number", "words"), [(errno.EROFS, "read-only"), (errno.ENOSPC, "disk is full")])
def test_a_place_that_cannot_be_written_is_reported(translate, monkeypatch, out, number, words):
    def refuse(path, *more, **options):
        if str(path).endswith(files.PART[1]):
            raise OSError(number, "no")
        return opened(path, *more, **options)

    opened = os.open
    monkeypatch.setattr(os, "open", refuse)
    done = translate("in/000.png", out)
    assert done.code == 3 and words in done.err and "next:" in done.err


# Quickly


@pytest.mark.parametrize(("channels", "wide", "kernel", "padding"), [(16, 32, 3, 0), (32, 16, 3, 1), (3, 16, 7, 3)])
def test_quick_convolutions_are_convolutions(channels, wide, kernel, padding):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, wide, kernel, padding=padding).requires_grad_(False)
    x = torch.randn(1, channels, 33, 50)
    expected = conv.double()(x.double())
    conv.float()
    with CpuKernels():
        made = conv(x)
    assert (made - expected).abs().max() < 1e-4
    if has_nnpack():
        assert suits_nnpack(Conv2dCall(x, conv.weight)) and not torch.equal(made, conv(x))


@pytest.mark.parametrize(
    "given",
    [{"stride": (2, 2)}, {"dilation": (2, 2)}, {"groups": 16}, {"padding": "same"}, {"kernel": 5}, {"count": 2}],
)
def test_other_convolutions_stay_as_they_are(given):
    given = dict(given)
    kernel, count = given.pop("kernel", 3), given.pop("count", 1)
    conv = nn.Conv2d(16, 16, kernel, **given).requires_grad_(False)
    x = torch.randn(count, 16, 20, 20)
    with CpuKernels():
        made = conv(x)
    assert torch.equal(made, conv(x))


def test_a_convolution_that_learns_stays_as_it_is():
    conv = nn.Conv2d(16, 16, 3)
    x = torch.randn(1, 16, 20, 20)
    with CpuKernels():
        made = conv(x)
    assert made.requires_grad and torch.equal(made, conv(x))


def test_images_side_by_side_are_what_they_are_one_by_one(translate):
    before = torch.get_num_threads()
    translate("in", "side", "--workers", 3)
    translate("in", "one", "--batch", 2)
    assert torch.get_num_threads() == before
    for name in images("one"):
        assert (pixels(f"one/{name}") == pixels(f"side/{name}")).all()


def test_running_out_of_memory_stops_the_folder(translate, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(toy.Toy, "translate", full)
    monkeypatch.setattr("facekit.recipe_api.registry.find", lambda name: (toy.Toy, {}))
    done = translate()
    assert done.code not in (0, 4) and "out of memory" in done.err and "smaller batch or size" in done.err
    assert not Path("out/failed.jsonl").exists()


@pytest.mark.slow
def test_loading_weights_leaves_the_compiler_out(both_ways):
    work = "import sys, torch; torch.nn.Conv2d(1, 1, 1, device='meta'); "  # for this alone PyTorch 2.6 imports sympy
    work += "before = set(sys.modules); "
    work += "from facekit.recipe_api import checkpoint; checkpoint.load_model('both.safetensors'); "
    work += "print('torch._dynamo' in sys.modules, 'sympy' in set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
