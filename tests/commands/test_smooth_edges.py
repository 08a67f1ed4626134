"""`facekit smooth-edges`: what it writes, beside what, and what becomes of files that it cannot read."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from facekit.data import edge_smoothing
from facekit.storage import images
from toy import drawing


def fill(folder: Path, *names: str, **options: int) -> Path:
    """Save a drawing of its own under each name."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawing(seed=seed, **options)).save(folder / name)
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def left(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))


@pytest.mark.parametrize("backend", ["opencv", "skimage"])
def test_every_drawing_has_its_smoothed_twin(facekit, tmp_path, backend):
    source = fill(tmp_path / "in", "a.png", "b c.jpg", "süß/a.webp")
    done = facekit("smooth-edges", source, tmp_path / "out", "--backend", backend)
    assert done.code == 0, done.err
    assert left(tmp_path / "out") == ["a.png", "b c.png", "süß/a.png"]
    rows = {row["source"]: row for row in lines(tmp_path / "out/manifest.jsonl")}
    for name, row in rows.items():
        before, after = images.read(source / name), Image.open(tmp_path / "out" / row["file"])
        smoothed, share = edge_smoothing.smooth(np.asarray(before), backend)
        np.testing.assert_array_equal(np.asarray(after), smoothed)
        assert row["size"] == list(before.size) and row["edges"] == pytest.approx(share, abs=1e-4) and share > 0.05
    note = yaml.safe_load((tmp_path / "out/card.yaml").read_text())
    assert note["command"] == "smooth-edges" and note["options"]["backend"] == backend and note["made"]["images"] == 3


def test_processes_make_what_one_makes(facekit, tmp_path):
    source = fill(tmp_path / "in", *(f"{i}.png" for i in range(6)))
    for workers in (1, 2):
        assert facekit("smooth-edges", source, tmp_path / str(workers), "--workers", workers).code == 0
    for name in left(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_size_takes_the_middle_square(facekit, tmp_path):
    source = fill(tmp_path / "in", "a.png", width=120, height=80)
    assert facekit("smooth-edges", source, tmp_path / "out", "--size", 64).code == 0
    square = images.resize(Image.open(source / "a.png").crop((20, 0, 100, 80)), 64)
    expected, _ = edge_smoothing.smooth(np.asarray(square))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/a.png")), expected)


def test_turned_grey_palette_and_clear_files_are_read_as_elsewhere(facekit, tmp_path):
    fill(tmp_path / "in", "turned.jpg", width=60, height=40)
    turned = Image.open(tmp_path / "in/turned.jpg")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "in/turned.jpg", exif=exif)
    picture = Image.fromarray(drawing())
    picture.convert("L").save(tmp_path / "in/grey.png")
    picture.quantize(16).save(tmp_path / "in/palette.png")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(tmp_path / "in/clear.png")
    assert facekit("smooth-edges", tmp_path / "in", tmp_path / "out").code == 0
    assert Image.open(tmp_path / "out/turned.png").size == (40, 60)
    for name in ("grey", "palette", "clear"):
        expected, _ = edge_smoothing.smooth(np.asarray(images.read(tmp_path / f"in/{name}.png")))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"out/{name}.png")), expected)


def test_files_that_fail_do_not_stop_the_others(facekit, tmp_path):
    source = fill(tmp_path / "in", "a.png", "cut.png", "z.png")
    (source / "cut.png").write_bytes((source / "a.png").read_bytes()[:200])
    (source / "empty.jpg").write_bytes(b"")
    done = facekit("smooth-edges", source, tmp_path / "out")
    assert done.code == 4 and "failed.jsonl" in done.err
    assert left(tmp_path / "out") == ["a.png", "z.png"]
    assert [row["path"] for row in lines(tmp_path / "out/failed.jsonl")] == ["cut.png", "empty.jpg"]


def test_the_same_command_again_writes_nothing(facekit, tmp_path):
    source = fill(tmp_path / "in", "a.png")
    facekit("smooth-edges", source, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = facekit("smooth-edges", source, tmp_path / "out")
    assert again.code == 0 and "nothing to do" in again.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_another_backend_into_the_same_output_is_refused(facekit, tmp_path):
    source = fill(tmp_path / "in", "a.png")
    facekit("smooth-edges", source, tmp_path / "out")
    done = facekit("smooth-edges", source, tmp_path / "out", "--backend", "skimage")
    assert done.code == 2 and "options.backend: opencv -> skimage" in done.err


def test_the_input_is_never_the_output(facekit, tmp_path):
    source = fill(tmp_path / "in", "a.png")
    assert facekit("smooth-edges", source, source).code == 2
    assert facekit("smooth-edges", tmp_path / "nothing", tmp_path / "out").code == 3


def test_a_dry_run_writes_nothing(facekit, tmp_path):
    done = facekit("smooth-edges", fill(tmp_path / "in", "a.png"), tmp_path / "out", "--dry-run")
    assert done.code == 0 and "1 images" in done.out and not (tmp_path / "out").exists()
