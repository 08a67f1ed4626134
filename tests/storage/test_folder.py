"""Folders of images, and mapping one onto another: resumable, atomic, and never stopped by one bad image."""

import json
import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import toy
from facekit.errors import CardError, InputError, Interrupted, OutOfMemory, SomeFailed
from facekit.runtime import console
from facekit.storage import card, folder, images
from facekit.storage.folder import Chosen, Folder, Source, open_source, output_names, without
from facekit.storage.folder_map import Outcome, folder_map
from facekit.storage.jsonl import read_lines
from facekit.storage.listing import Listing
from facekit.storage.manifest import Output

VALUES = {"facekit": 1, "command": "turn", "options": {"by": 180}}


def counted(source: Source, log: Path, then=None, after: int = -1) -> list[Output]:
    """Turn an image, note its name in a file, and do `then` in place of the images that come after so many."""
    if then and len(log.read_text().splitlines() if log.exists() else []) >= after:
        then()
    with open(log, "a") as file:
        file.write(source.name + "\n")
    return toy.turn(source)


def interrupt() -> None:
    raise KeyboardInterrupt


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(source: Path, out: Path, work=toy.turn, **options) -> Outcome:
    return folder_map("turn", open_source(source, out), out, VALUES, work, **options)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a run left, apart from times."""
    found = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != card.NAME}


@pytest.fixture
def here(tmp_path):
    """A folder `in` of five pictures in two sub-folders, with equal names in them."""
    toy.fill(tmp_path / "in/x", 3, seed=1)
    toy.fill(tmp_path / "in/y", 2, seed=2)
    return tmp_path


@pytest.fixture
def told(monkeypatch):
    """What is said while a test runs."""
    said: list[str] = []

    class Keep(console.Reporter):
        def note(self, text):
            said.append(text)

        warn = note

    token = console.current.set(Keep())
    yield said
    console.current.reset(token)


# what a folder is


def test_a_folder_lists_images_of_all_sub_folders_in_order_and_counts_the_rest(here):
    (here / "in/notes.txt").write_text("")
    (here / "in/x/.hidden.png").write_bytes(b"")
    (here / "in/photo.HEIC").write_bytes(b"")
    toy.fill(here / "in/.cache", 1)
    toy.picture().save(here / "in/Z.JPG")
    folder = Folder(here / "in")
    assert folder.names == ["Z.JPG", "x/000.png", "x/001.png", "x/002.png", "y/000.png", "y/001.png"]
    assert folder.listing.others == 2


def test_chosen_items_are_made_when_they_are_asked_for():
    class Made(list):
        def __getitem__(self, number):
            asked.append(number)
            return f"{number}.png"

    asked = []
    chosen = Chosen(Made(range(9)), (number for number in range(9) if number % 3))
    assert len(chosen) == 6 and not asked
    assert chosen[2] == "4.png" and asked == [4]
    assert list(chosen[1:3]) == ["2.png", "4.png"] and list(chosen)[-1] == "8.png"


def test_only_what_is_named_as_the_sheet_is_looked_up(here, monkeypatch):
    for name in ("in/x/out-sheet.png", "in/y/out-sheet.png", "in/y/my-out-sheet.png"):
        toy.picture().save(here / name)
    whole = Folder(here / "in").sources()
    assert without(whole, here / "elsewhere.png") is whole
    asked = []
    monkeypatch.setattr(folder, "real", lambda path: (asked.append(path.name), path.resolve())[1])
    left = without(whole, (here / "in/x/out-sheet.png").resolve())
    assert [s.name for s in left] == [s.name for s in whole if s.name != "x/out-sheet.png"]
    assert sorted(asked) == ["my-out-sheet.png", "out-sheet.png", "out-sheet.png"]


def test_what_facekit_notes_beside_images_is_not_foreign(here):
    run(here / "in", here / "out")
    assert Folder(here / "out").listing == Listing(["x/000.png", "x/001.png", "x/002.png", "y/000.png", "y/001.png"], 0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "no such file or folder"),
        (lambda p: p.mkdir(), "no images in"),
        (
            lambda p: (p.mkdir(), (p / "a.txt").write_text(""), (p / "b.svg").write_text("")),
            r"no images.*2 other files",
        ),
        (lambda p: (p.mkdir(), (p / ".a.png").write_bytes(b"")), "no images"),
    ],
)
def test_a_folder_without_images_is_refused_by_name(tmp_path, make, says):
    make(tmp_path / "nothing")
    with pytest.raises(InputError, match=rf"(?s){says}|nothing.*{says}") as caught:
        open_source(tmp_path / "nothing")
    assert "nothing" in caught.value.message and caught.value.hint and caught.value.code == 3


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="is not a folder"):
        Folder(tmp_path / "a.png")


def test_a_single_file_is_a_source(tmp_path):
    (tmp_path / "a b.png").write_bytes(b"")
    assert open_source(tmp_path / "a b.png") == [Source(tmp_path, "a b.png")]
    assert open_source(tmp_path / "a b.png")[0].path == tmp_path / "a b.png"


def test_a_folder_is_aligned_if_its_card_says_so(tmp_path):
    assert not Folder(tmp_path).aligned
    (tmp_path / card.NAME).write_text("command: translate")
    assert not Folder(tmp_path).aligned
    (tmp_path / card.NAME).write_text("command: align")
    assert Folder(tmp_path).aligned


def test_lines_that_are_cut_or_no_objects_are_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n\n[1]\n\xff\n{"a": "\xc3\xa4"}\n{"a": 3, "b')
    assert [row["a"] for row in read_lines(tmp_path / "a.jsonl")] == [1, "ä"]
    assert list(read_lines(tmp_path / "nowhere")) == []


def named(*names: str) -> dict[str, str]:
    return output_names([Source(Path(), name) for name in names])


def test_outputs_keep_names_and_sub_folders():
    assert named("x/a.jpg", "y/a.jpg", "ä b.c.webp") == {
        "x/a.jpg": "x/a.png",
        "y/a.jpg": "y/a.png",
        "ä b.c.webp": "ä b.c.png",
    }


@pytest.mark.parametrize(
    "names", [("a.jpg", "a.png"), ("a.jpg", "a.JPG"), ("a.jpg", "a.png", "a_jpg.gif"), ("a_jpg.gif", "a.png", "a.jpg")]
)
def test_no_two_images_become_one(names):
    assert len(set(named(*names).values())) == len(names)


def test_an_image_beside_its_namesake_tells_its_type():
    assert named("a.jpg", "a.png", "b.png") == {"a.jpg": "a_jpg.png", "a.png": "a_png.png", "b.png": "b.png"}


# one run


@pytest.mark.slow
def test_every_image_is_mapped_with_a_manifest_and_a_card(here):
    outcome = run(here / "in", here / "out", made=lambda: {"by": "test"})
    assert outcome == Outcome(made=5)
    entries = Folder(here / "out").entries
    assert list(entries) == Folder(here / "in").names
    assert entries["y/001.png"]["source"] == "y/001.png" and entries["y/001.png"]["width"] == 16
    turned = images.read(here / "out/y/001.png").rotate(180)
    assert turned.tobytes() == images.read(here / "in/y/001.png").tobytes()
    assert card.load(here / "out/card.yaml") == VALUES
    assert "images: 5" in (here / "out/card.yaml").read_text()
    assert not [name for name in contents(here / "out") if name.endswith(".part") or "unfinished" in name]


@pytest.mark.parametrize("options", [{"workers": 3}, {"workers": 2, "processes": True}, {"processes": True}])
def test_threads_processes_and_one_after_the_other_are_equal(here, options):
    run(here / "in", here / "serial")
    run(here / "in", here / "other", **options)
    assert contents(here / "serial") == contents(here / "other")


def test_batches_reach_the_second_function_together_and_in_order(here):
    groups = []

    def together(group):
        groups.append([source.name for source, _ in group])
        return [made for _, made in group]

    run(here / "in", here / "out", together=together, batch=2, workers=2)
    assert groups == [["x/000.png", "x/001.png"], ["x/002.png", "y/000.png"], ["y/001.png"]]
    assert len(Folder(here / "out").names) == 5


def test_what_is_made_together_is_encoded_elsewhere_meanwhile_and_written_in_order(here):
    toy.fill(here / "in", 20, size=8)
    makers, encoders, waiting = set(), set(), []
    encoded = []

    def slow(made):
        def data():
            encoders.add(threading.get_ident())
            time.sleep(0.02 if made.name.endswith("000.png") else 0)
            encoded.append(made.name)
            return made.data

        return [Output(made.name, data, made.entry)]

    def together(group):
        makers.add(threading.get_ident())
        waiting.append(len(encoded))
        return [slow(made) for _, (made,) in group]

    outcome = run(here / "in", here / "out", together=together, batch=2, workers=2)
    assert makers == {threading.get_ident()} and not makers & encoders
    assert all(2 * i - done <= 2 * 2 + 2 + 1 for i, done in enumerate(waiting))  # never many of them in memory
    names = [row["file"] for row in read_lines(here / "out/manifest.jsonl")]
    assert len(names) == outcome.made == len(encoded) and names == sorted(names)


def test_one_source_may_become_several_images(here):
    def halves(source):
        made = toy.turn(source)[0]
        return [made, Output(made.name.replace(".png", ".face2.png"), made.data, {})]

    assert run(here / "in", here / "out", halves).made == 10
    assert len(Folder(here / "out").entries) == 10
    (here / "out/x/001.png").unlink()
    assert run(here / "in", here / "out", halves) == Outcome(made=2, kept=4)


@pytest.mark.parametrize("name", ["a b.png", "顔/写真.png", "ünï😀.png", "a'\"$(x).png", "line\nbreak.png"])
def test_odd_names_are_names(tmp_path, name):
    (tmp_path / "in" / name).parent.mkdir(parents=True)
    toy.picture().save(tmp_path / "in" / name)
    assert run(tmp_path / "in", tmp_path / "out").made == 1
    assert (tmp_path / "out" / name).exists()
    assert run(tmp_path / "in", tmp_path / "out") == Outcome(kept=1)


def test_a_name_that_is_not_utf_8_is_a_name(tmp_path):
    (tmp_path / "in").mkdir()
    try:
        toy.picture().save(os.fsencode(tmp_path / "in") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert run(tmp_path / "in", tmp_path / "out").made == 1
    assert run(tmp_path / "in", tmp_path / "out") == Outcome(kept=1)


def test_an_output_inside_its_input_is_not_read_as_input(here):
    assert run(here / "in", here / "in/out").made == 5
    assert run(here / "in", here / "in/out") == Outcome(kept=5)


def test_output_onto_its_input_is_refused(here):
    for path in (here / "in", here / "in/x/000.png"):
        with pytest.raises(CardError, match="both input and output"):
            open_source(path, here / "in/../in" / path.relative_to(here / "in"))


def test_an_input_that_holds_nothing_but_its_output_is_refused(here):
    with pytest.raises(InputError, match="outside the output"):
        open_source(here, here / "in")


def test_an_output_above_its_input_is_fine(here):
    assert len(open_source(here / "in", here)) == 5


# done is done


def test_a_second_run_does_nothing_and_says_so(here, told):
    run(here / "in", here / "out")
    before = {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*")}
    told.clear()
    assert run(here / "in", here / "out", lambda source: pytest.fail("made again")) == Outcome(kept=5)
    assert {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*")} == before
    assert len(told) == 1 and "nothing to do" in told[0] and "5 sources" in told[0]


def test_another_card_is_refused_unless_forced(here):
    run(here / "in", here / "out")
    sources, other = open_source(here / "in"), {**VALUES, "options": {"by": 90}}
    with pytest.raises(CardError, match=r"options\.by: 180 -> 90"):
        folder_map("turn", sources, here / "out", other, toy.turn)
    assert folder_map("turn", sources, here / "out", other, toy.turn, force=True).made == 5
    assert len(lines(here / "out/manifest.jsonl")) == 5


def test_images_that_arrive_later_are_done_by_the_same_command(here):
    log = here / "log"
    run(here / "in", here / "out", partial(counted, log=log))
    toy.fill(here / "in/z", 1, seed=3)
    assert run(here / "in", here / "out", partial(counted, log=log)) == Outcome(made=1, kept=5)
    assert lines(log)[5:] == ["z/000.png"]
    assert "images: 6" in (here / "out/card.yaml").read_text()


def test_deleted_outputs_and_changed_inputs_are_made_again(here):
    log = here / "log"
    run(here / "in", here / "out", partial(counted, log=log))
    (here / "out/x/001.png").unlink()
    toy.picture(24, seed=9).save(here / "in/y/000.png")
    assert run(here / "in", here / "out", partial(counted, log=log)) == Outcome(made=2, kept=3)
    assert lines(log)[5:] == ["x/001.png", "y/000.png"]
    assert Folder(here / "out").entries["y/000.png"]["width"] == 24
    assert run(here / "in", here / "out") == Outcome(kept=5)


def test_a_limit_takes_the_first_images_and_a_later_run_continues(here):
    assert run(here / "in", here / "out", limit=2).made == 2
    assert Folder(here / "out").names == ["x/000.png", "x/001.png"]
    assert run(here / "in", here / "out", limit=2) == Outcome(kept=2)
    assert run(here / "in", here / "out") == Outcome(made=3, kept=2)


# stops


@pytest.mark.slow
def test_a_killed_run_continues_and_ends_as_if_uninterrupted(here):
    log = here / "log"
    run(here / "in", here / "whole")
    work = partial(counted, log=log, then=die, after=3)
    killed = multiprocessing.get_context("spawn").Process(target=run, args=(here / "in", here / "out", work))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL and not (here / "out/card.yaml").exists()
    (here / "out/.half.part").write_bytes(b"half an image")
    noted = map(json.loads, lines(here / "out/manifest.jsonl"))
    kept = sum((here / "out" / row["file"]).exists() for row in noted)
    assert 1 <= kept <= 3  # a line is written before its image
    assert run(here / "in", here / "out", partial(counted, log=log)) == Outcome(made=5 - kept, kept=kept)
    assert lines(log)[3:] == Folder(here / "in").names[kept:]
    assert contents(here / "out") == contents(here / "whole")
    assert (here / "out/card.yaml").exists()


def test_a_cut_last_line_is_made_again(here):
    run(here / "in", here / "out")
    manifest, card_file = here / "out/manifest.jsonl", here / "out/card.yaml"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-30])
    card_file.rename(here / "out/card.unfinished.yaml")
    assert run(here / "in", here / "out") == Outcome(made=1, kept=4)
    assert len(list(read_lines(manifest))) == 5 and manifest.read_bytes().endswith(whole.splitlines(True)[-1])
    assert card_file.exists()


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"processes": True}, {"processes": True, "workers": 2}])
def test_ctrl_c_exits_130_and_the_same_command_continues(here, options):
    log = here / "log"
    with pytest.raises(Interrupted, match="stopped after") as caught:
        run(here / "in", here / "out", partial(counted, log=log, then=interrupt, after=2), **options)
    assert caught.value.code == 130 and "run the same command again" in caught.value.hint
    assert not (here / "out/card.yaml").exists()
    there = len(Folder(here / "out").names)
    assert run(here / "in", here / "out") == Outcome(made=5 - there, kept=there)
    assert (here / "out/card.yaml").exists()


def test_a_killed_worker_is_reported_and_the_rest_can_continue(here):
    log = here / "log"
    with pytest.raises(OutOfMemory, match="worker process was killed") as caught:
        run(here / "in", here / "out", partial(counted, log=log, then=die, after=2), workers=2, processes=True)
    assert "--workers" in caught.value.hint
    run(here / "in", here / "out")
    assert len(Folder(here / "out").names) == 5


# failures


def spoil(here: Path) -> None:
    (here / "in/x/001.png").write_bytes(b"")
    (here / "in/y/bad.png").write_text("no image")


def test_a_bad_image_is_a_line_of_failed_and_stops_nothing(here, told):
    spoil(here)
    with pytest.raises(SomeFailed, match="4 images made, 2 of 6 sources failed") as caught:
        run(here / "in", here / "out")
    assert caught.value.code == 4 and "failed.jsonl" in caught.value.hint
    rows = list(read_lines(here / "out/failed.jsonl"))
    assert [(row["path"], row["stage"]) for row in rows] == [("x/001.png", "read"), ("y/bad.png", "read")]
    assert "is empty" in rows[0]["reason"] and "is not an image" in rows[1]["reason"]
    assert any("x/001.png" in text and "is empty" in text for text in told)
    assert (here / "out/card.yaml").exists() and len(Folder(here / "out").names) == 4


def fail_to_encode(group):
    return [[Output(made[0].name, lambda: 1 / 0, {})] for _, made in group]


def return_errors(group):
    return [ZeroDivisionError("no") for _ in group]


@pytest.mark.parametrize("together", [fail_to_encode, return_errors])
def test_whatever_an_image_raises_is_a_line_of_failed(here, together):
    with pytest.raises(SomeFailed, match="0 images made, 5 of 5 sources failed"):
        run(here / "in", here / "out", together=together, batch=2)
    assert all("ZeroDivisionError" in row["reason"] for row in read_lines(here / "out/failed.jsonl"))


def test_a_failed_image_is_tried_again_only_when_it_changes(here, told):
    spoil(here)
    with pytest.raises(SomeFailed):
        run(here / "in", here / "out")
    told.clear()
    with pytest.raises(SomeFailed, match=r"nothing to do.* 2 of 6 sources failed"):
        run(here / "in", here / "out", lambda source: pytest.fail("tried again"))
    toy.picture().save(here / "in/x/001.png")
    with pytest.raises(SomeFailed, match="1 images made, 1 of 6"):
        run(here / "in", here / "out")
    assert [row["path"] for row in read_lines(here / "out/failed.jsonl")] == ["y/bad.png"]
    toy.picture().save(here / "in/y/bad.png")
    assert run(here / "in", here / "out") == Outcome(made=1, kept=5)


def test_force_tries_failed_images_again(here):
    spoil(here)
    for _ in range(2):
        with pytest.raises(SomeFailed, match="2 of 6"):
            run(here / "in", here / "out", force=True)
    assert len(lines(here / "out/failed.jsonl")) == 2


def test_an_image_that_is_gone_is_a_failure_until_it_is_there(here):
    (here / "in/link.png").symlink_to(here / "later.png")
    with pytest.raises(SomeFailed, match="1 of 6"):
        run(here / "in", here / "out")
    assert "no such file" in next(read_lines(here / "out/failed.jsonl"))["reason"]
    toy.picture().save(here / "later.png")
    assert run(here / "in", here / "out") == Outcome(made=1, kept=5)


# shards


def test_shards_are_disjoint_and_together_complete(here):
    run(here / "in", here / "whole")
    log = here / "log"
    for index in (2, 1, 3):
        assert not (here / "out/card.yaml").exists()
        run(here / "in", here / "out", partial(counted, log=log), shard=f"{index}/3")
    assert sorted(lines(log)) == Folder(here / "in").names
    assert (here / "out/card.yaml").exists() and "images: 5" in (here / "out/card.yaml").read_text()
    assert Folder(here / "out").entries == Folder(here / "whole").entries
    assert not list((here / "out").glob("manifest.*-of-3.jsonl"))
    merged = [json.loads(row)["source"] for row in lines(here / "out/manifest.jsonl")]
    assert merged == Folder(here / "in").names
    assert run(here / "in", here / "out", shard="1/3") == Outcome(kept=2)
    assert run(here / "in", here / "out") == Outcome(kept=5)


def test_more_shards_than_images_still_end(tmp_path):
    toy.fill(tmp_path / "in", 1)
    for index in (2, 1):
        run(tmp_path / "in", tmp_path / "out", shard=f"{index}/2")
    assert (tmp_path / "out/card.yaml").exists()


def test_shards_keep_their_failures_apart_and_all_count(here):
    spoil(here)
    run(here / "in", here / "out", shard="1/3")
    for index in (2, 3):
        with pytest.raises(SomeFailed, match="1 of 2"):
            run(here / "in", here / "out", shard=f"{index}/3")
        assert (here / "out" / f"failed.{index}-of-3.jsonl").exists() == (index == 2)
    assert (here / "out/card.yaml").exists() and len(lines(here / "out/failed.jsonl")) == 2
    assert not list((here / "out").glob("*-of-3.jsonl"))  # all are merged
    with pytest.raises(SomeFailed, match=r"nothing to do.* 2 of 6"):
        run(here / "in", here / "out")


def test_force_of_one_shard_is_refused(here):
    with pytest.raises(CardError, match="other shards"):
        run(here / "in", here / "out", shard="1/2", force=True)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/2/3", "a/b", "", "-1/2", "1/0"])
def test_a_wrong_shard_is_refused_and_quoted(here, text):
    with pytest.raises(CardError, match="--shard") as caught:
        run(here / "in", here / "out", shard=text)
    assert repr(text) in caught.value.message and "1/4" in caught.value.hint
    assert not (here / "out").exists()


# bad images of every kind, through a command's own reading


def test_all_kinds_of_images_pass_and_all_kinds_of_rubbish_fail(tmp_path):
    good, bad = tmp_path / "in/good", tmp_path / "in/bad"
    good.mkdir(parents=True)
    bad.mkdir()
    photo = toy.picture()
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16"):
        suffix = "jpg" if mode == "CMYK" else "png"
        made = photo.convert("L").convert("I;16") if mode == "I;16" else photo.convert(mode)
        made.save(good / f"{mode.replace(';', '-')}.{suffix}")
    photo.save(good / "png in truth.jpg", "PNG")
    Image.new("RGB", (1, 1)).save(good / "one.png")
    whole = (good / "RGBA.png").read_bytes()
    (bad / "cut.png").write_bytes(whole[: len(whole) // 2])
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "text.png").write_text("hello")
    with pytest.raises(SomeFailed, match="9 images made, 3 of 12 sources failed"):
        run(tmp_path / "in", tmp_path / "out")
    assert [row["path"] for row in read_lines(tmp_path / "out/failed.jsonl")] == [
        "bad/cut.png",
        "bad/empty.jpg",
        "bad/text.png",
    ]
