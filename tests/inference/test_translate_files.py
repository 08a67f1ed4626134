"""What `facekit translate` writes images as: types, quality, transparency, EXIF; pipes, several weights, watching."""

import io
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from skimage.data import astronaut
from torch import nn

import facekit
import toy
from facekit import errors
from facekit.inference import translate_watch
from facekit.inference.translate import names_of, split_weights
from facekit.inference.translation_sheet import MOST, rows_of_folder
from facekit.recipe_api import checkpoint
from facekit.reports import contact_sheet
from facekit.storage import image_files, images

PORTRAIT = Image.fromarray(astronaut()[20:220, 110:340])
TOY = {"recipe": str(toy.FILE), "align": False}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder: three pictures in in/, and two models."""
    monkeypatch.chdir(tmp_path)
    toy.fill(Path("in"), 3)
    for number, name in enumerate(("one", "two")):
        torch.manual_seed(number)
        values = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
        checkpoint.save_model(Path(f"{name}.safetensors"), nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)
    return tmp_path


def run(source, out, **more):
    return facekit.translate(Path(source), Path(out), **{"weights": "one.safetensors", **TOY, **more})


KINDS = [("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")] + [("avif", "AVIF")] * features.check("avif")


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_the_format_is_the_type(here, name, kind):
    run("in", "out", format=name, limit=1)
    run("in/000.png", f"me.{name}")
    for path in (f"out/000.{name}", f"me.{name}"):
        with Image.open(path) as image:
            assert image.format == kind and image.size == (16, 16)


def test_quality_makes_files_smaller_and_worse(here):
    toy.picture(64).save("big.png")
    for quality in (20, 90):
        run("big.png", f"{quality}.jpg", quality=quality, size=64)
    assert Path("20.jpg").stat().st_size < 0.8 * Path("90.jpg").stat().st_size


def test_suffix_is_an_old_name_of_format(here, facekit):
    done = facekit("translate", "in", "out", "--weights", "one.safetensors", "--recipe", toy.FILE, "--no-align",
                   "--suffix", "jpg", "--limit", 1)  # fmt: skip
    assert done.code == 0 and "--format" in done.err and Path("out/000.jpg").exists()
    card = Path("out/card.yaml").read_text()
    assert "suffix: jpg" in card  # as cards have always called it
    Path("old.yaml").write_text(card.replace("out: out", "out: again").replace(f"recipe: {toy.FILE}\n", ""))
    done = facekit("translate", "in", "again", "--card", "old.yaml", "--recipe", toy.FILE)
    assert done.code == 0 and "--format" not in done.err and Path("again/000.jpg").exists()


@pytest.mark.parametrize(
    ("out", "more", "hint"),
    [
        ("out", {"quality": 50}, "--format jpg"),
        ("me.jpg", {"keep_alpha": True}, "png"),
        ("me.png", {"keep_gps": True}, "both"),
        ("me.bmp", {"keep_exif": True}, ".png"),
        ("me.xyz", {}, ".png"),
    ],
)
def test_what_a_type_cannot_hold_is_refused_first(here, out, more, hint):
    with pytest.raises(errors.CardError) as error:
        run("in/000.png" if out != "out" else "in", out, **more)
    assert hint in error.value.hint and not Path(out).exists()


def test_a_type_that_needs_a_package_says_which(here, monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.SAVE, "JXL", raising=False)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(errors.MissingError) as error:
        run("in/000.png", "me.jxl")
    assert error.value.hint == "pip install 'facekit-anime[jxl]'"


def test_transparency_is_kept_on_request(here):
    layer = toy.picture(32)
    layer.putalpha(Image.linear_gradient("L").resize((32, 32)))
    layer.save("layer.png")
    run("layer.png", "white.png")
    run("layer.png", "kept.png", keep_alpha=True)
    kept, white = Image.open("kept.png"), Image.open("white.png")
    assert kept.mode == "RGBA" and white.mode == "RGB"
    assert np.abs(np.asarray(kept.convert("RGB"), int) - np.asarray(white))[-1].max() <= 8  # where it is opaque
    alpha = np.asarray(kept.getchannel("A"), int)
    assert alpha[0].max() < 20 and alpha[-1].min() > 235
    run("in/000.png", "opaque.png", keep_alpha=True)
    assert Image.open("opaque.png").mode == "RGB"


@pytest.mark.slow
def test_transparency_of_a_pasted_photo_and_of_a_cut_face(here):
    layer = PORTRAIT.copy()
    alpha = Image.new("L", layer.size, 255)
    alpha.paste(0, (0, 0, 20, layer.height))
    layer.putalpha(alpha)
    layer.save("layer.png")
    more = {"align": True, "detector": "cascade", "keep_alpha": True}
    run("layer.png", "pasted.png", paste=True, **more)
    assert Image.open("pasted.png").getchannel("A").tobytes() == alpha.tobytes()
    run("layer.png", "face.png", **more)
    assert (np.asarray(Image.open("face.png").getchannel("A")) == 255).mean() > 0.9


def exif_photo(path: str) -> None:
    exif = Image.Exif()
    exif[0x0110], exif[0x0112] = "a camera", 6
    exif.get_ifd(0x8769)[0x9003] = "2026:11:28 12:00:00"
    exif.get_ifd(0x8769)[0xA002] = 999
    exif.get_ifd(0x8825)[1] = "N"
    toy.picture(16).save(path, exif=exif)


@pytest.mark.parametrize("name", ["out.jpg", "out.png", "out.webp"])
def test_exif_is_kept_on_request_without_the_place(here, name):
    exif_photo("photo.jpg")
    run("photo.jpg", name)
    assert not Image.open(name).getexif()
    run("photo.jpg", f"kept-{name}", keep_exif=True)
    kept = Image.open(f"kept-{name}").getexif()
    assert kept[0x0110] == "a camera" and kept.get_ifd(0x8769)[0x9003].startswith("2026")
    assert 0x0112 not in kept and not kept.get_ifd(0x8825) and 0xA002 not in kept.get_ifd(0x8769)
    run("photo.jpg", f"place-{name}", keep_exif=True, keep_gps=True)
    assert Image.open(f"place-{name}").getexif().get_ifd(0x8825)[1] == "N"


def test_an_ultra_hdr_jpeg_is_read_as_its_base_picture(here):
    base, gain = toy.picture(32), Image.new("RGB", (8, 8), "white")
    base.save("hdr.jpg", "MPO", save_all=True, append_images=[gain], quality=95)
    base.save("plain.jpg", quality=95)
    assert images.read("hdr.jpg").tobytes() == images.read("plain.jpg").tobytes()


def test_16_bits_are_read_and_8_are_written(here):
    deep = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(deep).save("deep.png")
    run("deep.png", "out.png")
    assert Image.open("out.png").mode == "RGB"


def test_a_transparent_picture_that_was_laid_over_white_is_found_again():
    layer = toy.picture(16)
    layer.putalpha(Image.linear_gradient("L").resize((16, 16)))
    flat = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    found = image_files.with_alpha(flat, layer.getchannel("A"))
    assert np.abs(np.asarray(found, int) - np.asarray(layer))[8:].max() <= 2
    again = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), found).convert("RGB")
    assert np.abs(np.asarray(again, int) - np.asarray(flat)).max() <= 1


class Pipe:
    """Standard input or output of a process in a pipe."""

    def __init__(self, data: bytes = b""):
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def test_one_image_through_a_pipe(here, monkeypatch):
    run("in/000.png", "file.png")
    monkeypatch.setattr(sys, "stdin", Pipe(Path("in/000.png").read_bytes()))
    monkeypatch.setattr(sys, "stdout", Pipe())
    run("-", "-")
    through = sys.stdout.buffer.getvalue()
    assert through == Path("file.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", Pipe(Path("in/000.png").read_bytes()))
    run("-", "new.webp")
    assert Image.open("new.webp").format == "WEBP"
    monkeypatch.setattr(sys, "stdout", Pipe())
    run("in/000.png", "-", format="jpg")
    assert Image.open(io.BytesIO(sys.stdout.buffer.getvalue())).format == "JPEG"
    assert sorted(p.name for p in Path().glob("*.yaml")) == ["file.png.card.yaml"]


@pytest.mark.parametrize(
    ("data", "out", "error"),
    [(b"", "new.png", errors.InputError), (b"no image", "new.png", errors.InputError), (b"x", "new", errors.CardError)],
)
def test_what_a_pipe_cannot_do_is_said(here, monkeypatch, data, out, error):
    monkeypatch.setattr(sys, "stdin", Pipe(data))
    with pytest.raises(error) as found:
        run("-", out)
    assert "input" in found.value.message and "/" not in found.value.message
    assert not Path(out).exists()


def test_several_weights_have_a_folder_each_and_one_sheet(here, monkeypatch):
    shown = []
    save = contact_sheet.save_sheet

    def watched(*given, **more):
        shown.append((given, more))
        save(*given, **more)

    monkeypatch.setattr(contact_sheet, "save_sheet", watched)
    run("in", "out", weights="one.safetensors,two.safetensors", sheet=True)
    for name in ("one", "two"):
        run("in", f"alone-{name}", weights=f"{name}.safetensors")
        for image in ("000.png", "002.png"):
            assert Path("out", name, image).read_bytes() == Path(f"alone-{name}", image).read_bytes()
    (((path, rows), more),) = shown
    assert path.name == "out-sheet.png" and path.exists() and more["titles"] == ["input", "one", "two"]
    for number, row in enumerate(rows):
        files = [f"in/00{number}.png", f"out/one/00{number}.png", f"out/two/00{number}.png"]
        assert [image.tobytes() for image in row] == [images.read(file).tobytes() for file in files]
    with pytest.raises(errors.CardError, match="several weights"):
        run("in/000.png", "me.png", weights="one.safetensors,two.safetensors")


def test_the_names_of_weights():
    assert split_weights("anime, runs/mine,anime") == ["anime", "runs/mine"]
    assert names_of(["anime", "runs/mine", "a/x.safetensors"]) == {
        "anime": "anime", "mine": "runs/mine", "x": "a/x.safetensors",
    }  # fmt: skip
    assert list(names_of(["a/run", "b/run"])) == ["run-1", "run-2"]


def test_a_watched_folder_is_translated_as_it_fills(here):
    runs = []

    def work():
        runs.append(sorted(p.name for p in Path("in").iterdir()))
        try:
            run("in", "out", retry_failed=True)  # raises SomeFailed in the second round
        finally:
            if len(runs) == 1:
                Path("in/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
            elif len(runs) == 2:
                Path("in/bad.png").unlink()
                toy.picture(16, 99).save("in/late.png")
            else:
                raise KeyboardInterrupt

    translate_watch.watch(Path("in"), Path("out"), work, pause=0.02)
    assert [len(names) for names in runs] == [3, 4, 4] and Path("out/late.png").exists()
    with pytest.raises(errors.CardError, match="folder"):
        translate_watch.watch(Path("in/000.png"), Path("out"), work)


def test_a_file_that_grows_is_waited_for(here):
    seen = []
    growing = threading.Event()

    def write():
        with open("in/slow.png", "wb") as file:
            for _ in range(8):
                file.write(b"x" * 100)
                file.flush()
                time.sleep(0.03)
        growing.set()

    thread = threading.Thread(target=write)

    def work():
        seen.append(growing.is_set())
        if len(seen) == 1:
            thread.start()
        else:
            raise KeyboardInterrupt

    translate_watch.watch(Path("in"), Path("out"), work, pause=0.1)
    thread.join()
    assert seen == [False, True]


def test_a_sheet_of_many_images_holds_the_first_of_them_alone(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    names = [f"{number:05d}" for number in range(5000)]
    for name in names[:300]:
        (tmp_path / "in" / f"{name}.jpg").touch()
        (tmp_path / "out" / f"{name}.png").touch()
    (tmp_path / "out" / "00002.png").unlink()
    lines = [json.dumps({"file": f"{name}.png", "source": f"{name}.jpg"}) + "\n" for name in reversed(names)]
    (tmp_path / "out" / "manifest.jsonl").write_text("".join(lines))
    rows = rows_of_folder(tmp_path / "in", tmp_path / "out", ["anime"])
    assert [row[1].name for row in rows[:3]] == ["00000.png", "00001.png", "00003.png"]
    assert all(row[0].stem == row[1].stem for row in rows) and MOST <= len(rows) < 300
