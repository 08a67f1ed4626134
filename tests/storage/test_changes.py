"""What a folder_map does when inputs change, fail or vanish, and with files that facekit has not made."""

import builtins
import json
import os
import tracemalloc

import pytest

import toy
from facekit.errors import CardError, SomeFailed
from facekit.storage import images, jsonl
from facekit.storage.folder import Folder, Source, open_source, output_names
from facekit.storage.folder_map import Outcome, folder_map
from facekit.storage.jsonl import read_lines
from facekit.storage.made import Made
from facekit.storage.manifest import Manifest, Output
from facekit.storage.shard import Shard

VALUES = {"facekit": 1, "command": "turn", "options": {}}


def run(here, work=toy.turn, **options) -> Outcome:
    found = open_source(here / "in", here / "out")
    return folder_map("turn", found, here / "out", VALUES, work, names=output_names(found), **options)


def faces(source: Source) -> list[Output]:
    """As many images as the source's height has tens of px."""
    image = images.read(source.path)
    stem = source.name.removesuffix(".png")
    return [Output(f"{stem}.{i}.png", images.encode(image)) for i in range(image.height // 10)]


def left(here) -> list[str]:
    return sorted(path.relative_to(here / "out").as_posix() for path in (here / "out").rglob("*.png"))


@pytest.fixture
def here(tmp_path):
    """A folder `in` of three pictures."""
    toy.fill(tmp_path / "in", 3)
    return tmp_path


def test_a_photo_that_changed_leaves_no_old_faces_and_no_old_lines(here):
    toy.picture(30).save(here / "in/001.png")
    run(here, faces)
    assert left(here) == ["000.0.png", "001.0.png", "001.1.png", "001.2.png", "002.0.png"]
    toy.picture(10, 5).save(here / "in/001.png")
    assert run(here, faces) == Outcome(made=1, kept=2)
    assert left(here) == ["000.0.png", "001.0.png", "002.0.png"]
    assert sorted(row["file"] for row in read_lines(here / "out/manifest.jsonl")) == left(here)


def test_a_photo_replaced_while_it_is_read_is_made_again_next_time(here):
    def replaced(source):
        made = toy.turn(source)
        if source.name == "001.png":
            toy.picture(20, 9).save(source.path)
        return made

    run(here, replaced)
    assert Folder(here / "out").entries["001.png"]["width"] == 16
    assert run(here) == Outcome(made=1, kept=2)
    assert Folder(here / "out").entries["001.png"]["width"] == 20


def test_a_failure_is_an_exit_code_until_it_is_good(here):
    (here / "in/001.png").write_text("no image")
    for _ in range(2):
        with pytest.raises(SomeFailed, match="1 of 3"):
            run(here)
    (here / "in/001.png").unlink()
    assert run(here) == Outcome(kept=2)
    assert list(read_lines(here / "out/failed.jsonl")) == []


def test_access_rights_that_changed_are_a_reason_to_try_again(here):
    def refused(source):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(SomeFailed, match="3 of 3"):
        run(here, refused)
    os.chmod(here / "in/001.png", 0o600)
    with pytest.raises(SomeFailed, match="1 images made, 2 of 3"):
        run(here)


def test_retry_failed_tries_again_what_has_not_changed(here):
    with pytest.raises(SomeFailed):
        run(here, lambda source: 1 / 0)
    assert run(here, retry_failed=True) == Outcome(made=3)
    assert run(here) == Outcome(kept=3)


def test_a_sub_folder_that_cannot_be_read_is_a_failure_and_keeps_what_was_made_of_it(here, monkeypatch):
    toy.fill(here / "in/sub", 2)
    run(here)
    scandir = os.scandir

    def refuse(path="."):
        if str(path).rstrip("/").endswith("in/sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for _ in range(2):
        with pytest.raises(SomeFailed, match="1 of 4 sources failed"):
            run(here)
    assert [row["path"] for row in read_lines(here / "out/failed.jsonl")] == ["sub/"]
    assert "sub/001.png" in left(here)
    monkeypatch.undo()
    assert run(here) == Outcome(kept=5)


def test_a_link_to_itself_is_one_failure(here):
    (here / "in/loop.png").symlink_to("loop.png")
    with pytest.raises(SomeFailed, match="3 images made, 1 of 4"):
        run(here)


@pytest.mark.parametrize("name", ["../victim.txt", "/tmp/victim.txt", "link/victim.txt"])
def test_a_manifest_that_names_files_elsewhere_removes_none_of_them(here, name):
    run(here)
    (here / "victim.txt").write_text("mine")
    (here / "out/link").symlink_to("..")
    row = {"file": name, "source": "000.png", "source_bytes": 1, "source_mtime": 1}
    with open(here / "out/manifest.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    toy.picture(20, 7).save(here / "in/000.png")
    run(here)
    run(here, force=True)
    assert (here / "victim.txt").read_text() == "mine"


def test_a_manifest_of_another_program_is_refused_and_left(here):
    (here / "out").mkdir()
    (here / "out/manifest.jsonl").write_text('{"file": "photo.jpg"}\n')
    with pytest.raises(CardError, match=r"manifest\.jsonl already exists"):
        run(here)
    assert (here / "out/manifest.jsonl").read_text() == '{"file": "photo.jpg"}\n'
    assert run(here, force=True).made == 3


def test_a_foreign_file_in_a_finished_output_is_not_replaced_without_force(here):
    run(here)
    (here / "out/new.png").write_text("mine")
    toy.picture(16, 8).save(here / "in/new.png")
    with pytest.raises(CardError, match=r"new\.png already exists"):
        run(here)
    assert (here / "out/new.png").read_text() == "mine"
    assert run(here, force=True).made == 4


def test_force_removes_what_the_run_before_made(here):
    run(here, faces)
    (here / "out/mine.txt").write_text("mine")
    run(here, force=True)
    assert left(here) == ["000.png", "001.png", "002.png"] and (here / "out/mine.txt").exists()


def test_saying_that_there_is_nothing_to_do_reads_each_list_once(here, monkeypatch):
    for i in range(20):
        (here / f"in/bad{i}.png").write_text("no image")
    with pytest.raises(SomeFailed):
        run(here)
    opened, real = [], builtins.open

    def counted(file, *arguments, **options):
        opened.append(os.path.basename(os.fspath(file)) if not isinstance(file, int) else file)
        return real(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", counted)
    with pytest.raises(SomeFailed, match="nothing to do"):
        run(here)
    assert opened.count("failed.jsonl") <= 2 and opened.count("manifest.jsonl") <= 2


def test_an_image_whose_namesake_arrives_keeps_its_name_and_counts_once(here):
    run(here)
    toy.picture(16, 5).save(here / "in/001.jpg")
    assert run(here) == Outcome(made=1, kept=3)
    assert run(here) == Outcome(kept=4)
    assert left(here) == ["000.png", "001.png", "002.png"]  # `turn` names both alike
    assert "images: 3" in (here / "out/card.yaml").read_text()


def sides(source: Source) -> list[Output]:
    """The image in two folders."""
    return [Output(f"{side}/{made.name}", made.data, made.entry) for side in "ab" for made in toy.turn(source)]


def test_images_in_several_folders_are_known_by_their_names(here):
    assert run(here, sides, tops=("b/", "a/")) == Outcome(made=6)
    assert run(here, sides, tops=("b/", "a/")) == Outcome(kept=3)
    (here / "out/b/001.png").unlink()
    toy.picture(20, 3).save(here / "in/002.png")
    assert run(here, sides, tops=("b/", "a/")) == Outcome(made=4, kept=1)
    assert left(here) == [f"{side}/{number:03d}.png" for side in "ab" for number in range(3)]
    assert len(list(read_lines(here / "out/manifest.jsonl"))) == 6
    (here / "out/a/new.png").write_text("mine")
    toy.picture(16, 8).save(here / "in/new.png")
    with pytest.raises(CardError, match=r"a/new\.png already exists"):
        run(here, sides, tops=("b/", "a/"))


def test_the_lines_of_shards_are_merged_in_order_and_each_once(here):
    (here / "in/000.png").write_text("no image")
    rows = [{"file": "gone.0.png", "source": "gone.png", "source_bytes": 1, "source_mtime": 1, "n": n} for n in (2, 1)]
    with pytest.raises(SomeFailed):
        run(here, faces, shard="1/2")
    with open(here / "out/manifest.1-of-2.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in (rows[0], {"file": "no.png"}, rows[1], rows[0]))
        file.write('{"file": "cut')
    toy.picture(30).save(here / "in/001.png")
    run(here, faces, shard="2/2")
    merged = list(read_lines(here / "out/manifest.jsonl"))
    assert [row["file"] for row in merged] == [
        *("001.0.png", "001.1.png", "001.2.png", "002.0.png"),
        *("no.png", "gone.0.png", "gone.0.png"),
    ]
    assert merged[-2:] == rows
    assert [row["path"] for row in read_lines(here / "out/failed.jsonl")] == ["000.png"]
    assert not list((here / "out").glob("*-of-2.jsonl"))
    assert "images: 5" in (here / "out/card.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("after", [Manifest.merge, lambda manifest: manifest.forget(["00000.png"])])
def test_manifests_are_rewritten_line_by_line(tmp_path, after):
    rows = [{"file": f"{n:05d}.png", "source": f"{n:05d}.png", "more": "x" * 2000} for n in reversed(range(3000))]
    for name, some in (("manifest.1-of-2.jsonl", rows[::2]), ("manifest.2-of-2.jsonl", rows[1::2])):
        jsonl.write(tmp_path / name, some)
    manifest = Manifest(tmp_path, Shard(), Made([], {}))
    manifest.read()
    tracemalloc.start()
    after(manifest)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500 * len(rows)
    found = sorted(row["file"] for path in tmp_path.glob("manifest*") for row in read_lines(path))
    assert len(found) >= 2999 and found[-2999:] == [f"{n:05d}.png" for n in range(1, 3000)]
