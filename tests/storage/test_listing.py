"""Which files of a folder are images, through links and beside what systems leave."""

import os

import pytest

import toy
from facekit.storage import signatures
from facekit.storage.folder import Folder, Source, output_names
from facekit.storage.jsonl import read_lines
from facekit.storage.listing import Listing, list_images, sub_folders


def names(folder) -> list[str]:
    return list_images(folder).names


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    toy.picture().save(tmp_path / "in/own.png")
    return tmp_path / "in"


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.php", "a", "a.JPG", "a.b/c"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_the_content_makes_a_file_an_image(folder, name, kind):
    (folder / name).parent.mkdir(exist_ok=True)
    toy.picture().save(folder / name, kind)
    assert names(folder) == sorted([name, "own.png"])


def test_other_files_are_counted(folder):
    for name in ("notes.txt", "movie.mp4", "raw.dng", "photo.jpg.part", "card.yaml", "manifest.jsonl", "index.html"):
        (folder / name).write_bytes(b"II*\0" if name == "raw.dng" else b"text")
    assert list_images(folder) == Listing(["own.png"], 4)


def test_what_systems_leave_is_not_looked_at(folder):
    for name in ("@eaDir/own.png", "__MACOSX", ".thumbnails", "$RECYCLE.BIN", "x/@EADIR"):
        (folder / name).mkdir(parents=True)
        toy.picture().save(folder / name / "small.jpg")
    for name in ("Thumbs.db", ".DS_Store", "._own.png", "desktop.ini", "x/thumbs.db"):
        (folder / name).write_bytes(b"\xff\xd8\xff")
    assert list_images(folder) == Listing(["own.png"], 0)
    assert sub_folders(folder) == ["x"]


def test_links_to_folders_are_followed_once_and_circles_end(folder, tmp_path):
    toy.fill(tmp_path / "real", 2)
    os.symlink("../real", folder / "more")
    os.symlink("../real", folder / "same")
    os.symlink(".", folder / "loop")
    os.symlink("..", tmp_path / "real/up")
    os.symlink("itself", folder / "itself")
    os.symlink("nowhere", folder / "gone")
    assert names(folder) == ["more/000.png", "more/001.png", "own.png"]


def test_a_folder_comes_before_a_link_to_it(folder):
    (folder / "z").mkdir()
    toy.picture().save(folder / "z/a.png")
    os.symlink("z", folder / "a")
    assert names(folder) == ["own.png", "z/a.png"]


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe")
    assert list_images(folder) == Listing(["own.png"], 1)


def test_names_that_are_not_utf8_are_kept(folder):
    toy.picture().save(os.path.join(os.fsencode(folder), b"caf\xe9.png").decode("utf-8", "surrogateescape"))
    assert names(folder) == ["caf\udce9.png", "own.png"]


ODD_NAMES = ["a\u2028b.png", "a\u0085b.png", "a\rb.png", "a\nb.png", "a\x1cb.png", "caf\udce9.png"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_run_on_odd_names_is_complete(folder, tmp_path, facekit, name):
    (folder / "own.png").rename(folder / name)
    assert facekit("smooth-edges", folder, tmp_path / "out").code == 0
    assert (tmp_path / "out/card.yaml").exists()
    assert [row["file"] for row in read_lines(tmp_path / "out/manifest.jsonl")] == [name]
    assert "nothing to do" in facekit("smooth-edges", folder, tmp_path / "out").err


def test_a_name_too_long_for_its_output_fails_alone(folder, tmp_path, facekit):
    (folder / "own.png").rename(folder / ("L" * 252 + ".gi"))
    toy.fill(folder, 2)
    for _ in range(2):
        done = facekit("smooth-edges", folder, tmp_path / "out")
        assert "Traceback" not in done.err
        assert names(tmp_path / "out") == ["000.png", "001.png"]
    (failure,) = read_lines(tmp_path / "out/failed.jsonl")
    assert failure["path"].startswith("LLL") and "too long" in failure["reason"]


def test_outputs_of_files_without_an_ending_have_names_of_their_own(folder):
    for name in ("a.b/c", "a.b/d", "own"):
        (folder / name).parent.mkdir(exist_ok=True)
        toy.picture().save(folder / name, "PNG")
    made = output_names(Folder(folder).sources())
    assert made["a.b/c"] == "a.b/c.png" and made["a.b/d"] == "a.b/d.png"
    assert len(set(made.values())) == len(made) == 4


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "an MP4 or QuickTime video"),
        (b"RIFF\0\0\0\0AVI LIST", "an AVI video"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>", "a web page"),
        (b"<svg xmlns=''>", "SVG"),
        (b"BMW is a car maker, not a bitmap", None),
        (b"", None),
    ],
)
def test_a_file_is_named_by_its_first_bytes(head, kind):
    assert signatures.kind(head) == kind


def test_sources_are_made_when_asked_for(tmp_path):
    found = Folder(toy.fill(tmp_path, 3)).sources()
    assert list(found) == [Source(tmp_path, name) for name in sorted(path.name for path in tmp_path.iterdir())]
    assert list(found[1:]) == list(found)[1:] and found[-1] == list(found)[-1]
    assert found[0] is not found[0]
