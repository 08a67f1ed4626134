"""Outputs behind a URL: what lies in the store is what would lie in a folder, whole, and the card comes last."""

import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from skimage.data import astronaut
from torch import nn

import buckets
import toy
from facekit.data import smooth_folder
from facekit.errors import OutputError
from facekit.recipe_api import checkpoint
from facekit.storage import remote_lock, uploader, working_copy
from facekit.storage.folder import Folder

TIMES = ("start", "end", "argv", "last_start")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store://, and a working folder with a cache of its own and in/, six drawings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    toy.fill(Path("in"), 4)
    Path("in/sub").mkdir()
    for seed, name in enumerate(("sub/é with space.png", "sub/plus+100%.png")):
        toy.picture(16, 50 + seed).save(Path("in", name))
    return buckets.in_memory(monkeypatch)


@pytest.fixture
def other_machine(monkeypatch, tmp_path):
    """Makes this process another machine: it has an empty cache."""
    count = iter(range(9))
    return lambda: monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / f"cache{next(count)}"))


def objects(store, top="bucket/out"):
    """What lies below a folder of the store, by name; of cards what does not differ between two runs."""
    found = {name[len(f"/{top}/") :]: store.cat_file(name) for name in store.find(f"/{top}")}
    return {name: _card(data) if name.endswith("card.yaml") else data for name, data in found.items()}


def local(folder):
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    return {name: _card(data) if name.endswith("card.yaml") else data for name, data in found.items()}


def _card(data):
    values = yaml.safe_load(data)
    values.get("options", {}).pop("out", None)
    return {**values, "made": {key: v for key, v in (values.get("made") or {}).items() if key not in TIMES}}


def smooth(facekit, *more, out="store://bucket/out"):
    return facekit("smooth-edges", "in", out, "--workers", 1, *more)


def test_the_store_holds_what_the_folder_would_and_the_card_comes_last(store, facekit):
    done = smooth(facekit)
    assert done.code == 0, done.err
    assert smooth(facekit, out="out").code == 0
    assert objects(store) == local("out") and len(objects(store)) == 8
    assert "store://bucket/out" in done.err and "cache" not in done.err
    assert yaml.safe_load(store.cat_file("/bucket/out/card.yaml"))["options"]["out"] == "store://bucket/out"
    puts = [name for what, name in buckets.Store.log if what == "put"]
    assert puts[:2] == ["/bucket/out/.facekit.lock", "/bucket/out/card.unfinished.yaml"]
    assert puts[-1] == "/bucket/out/card.yaml" and len(puts) == len(set(puts)) == 10
    assert not any(Path("cache/outputs").rglob("*"))


def test_a_cluster_cannot_write_to_a_store(store, facekit):
    done = smooth(facekit, "--engine", "ray")
    assert (done.code, "folder that all of them see" in done.err) == (2, True)
    assert not buckets.Store.log


@pytest.mark.slow
def test_a_second_run_from_any_machine_reads_the_notes_alone(store, facekit, other_machine):
    assert smooth(facekit).code == 0
    other_machine()
    buckets.Store.log.clear()
    done = smooth(facekit)
    assert (done.code, "nothing to do" in done.err) == (0, True)
    lock = "/bucket/out/.facekit.lock"
    notes = [("get", "/bucket/out/card.yaml"), ("get", "/bucket/out/manifest.jsonl")]
    assert buckets.Store.log == [("put", lock), *notes, ("remove", lock)]


def test_what_has_changed_is_done_again_and_the_card_goes_first(store, facekit, other_machine):
    assert smooth(facekit).code == 0
    toy.picture(16, 77).save("in/001.png")
    toy.picture(16, 78).save("in/new.png")
    other_machine()
    buckets.Store.log.clear()
    done = smooth(facekit)
    assert (done.code, "2 images (1 changed), 5 done before" in done.err) == (0, True), done.err
    assert smooth(facekit, out="out").code == 0
    assert {k: v for k, v in objects(store).items() if "jsonl" not in k} == {
        k: v for k, v in local("out").items() if "jsonl" not in k
    }
    changes = [(what, Path(name).name) for what, name in buckets.Store.log if what != "get"]
    first = changes.index(("remove", "card.yaml"))
    assert changes[first - 1] == ("put", "card.unfinished.yaml")
    assert all(changes.index(("put", name)) > first for name in ("001.png", "new.png", "manifest.jsonl"))
    assert changes[-3:] == [("put", "card.yaml"), ("remove", "card.unfinished.yaml"), ("remove", ".facekit.lock")]


def test_an_image_that_somebody_has_removed_is_made_again(store, facekit):
    assert smooth(facekit).code == 0
    before = objects(store)
    store.rm_file("/bucket/out/002.png")
    done = smooth(facekit)
    assert "1 images, 5 done before" in done.err
    assert objects(store)["002.png"] == before["002.png"]


def test_files_of_others_are_not_replaced(store, facekit):
    store.pipe_file("/bucket/out/001.png", b"precious")
    done = smooth(facekit)
    assert (done.code, "store://bucket/out/001.png already exists" in done.err) == (2, True)
    assert objects(store) == {"001.png": b"precious"}
    assert smooth(facekit, "--size", 16, out="store://bucket/other").code == 0
    done = smooth(facekit, out="store://bucket/other")
    assert (done.code, "holds a run of another card: options.size: 16 -> absent" in done.err) == (2, True)
    assert smooth(facekit, "--force", "--limit", 2, out="store://bucket/other").code == 0
    assert sorted(objects(store, "bucket/other")) == ["000.png", "001.png", "card.yaml", "manifest.jsonl"]


@pytest.mark.parametrize("place", ["same", "other"])
def test_what_is_missing_after_a_failure_goes_up_with_the_same_command(store, facekit, other_machine, place):
    def refuse(name):
        if sum(what == "put" and one.endswith(".png") for what, one in buckets.Store.log) >= 3:
            raise PermissionError("ExpiredToken: the provided token has expired")

    buckets.Store.refuse = refuse
    done = smooth(facekit)
    assert done.code == 3 and "no permission to write store://bucket/out/" in done.err and "credentials" in done.err
    assert sum(name.endswith(".png") for name in objects(store)) == 3 and "card.yaml" not in objects(store)
    assert "waits here" in done.err
    buckets.Store.refuse = lambda name: None
    if place == "other":
        buckets.Store.rm_file(store, "/bucket/out/.facekit.lock")  # a token that expired cannot give the lock back
        other_machine()
    done = smooth(facekit)
    assert done.code == 0, done.err
    assert smooth(facekit, out="out").code == 0
    assert {k: v for k, v in objects(store).items() if "jsonl" not in k} == {
        k: v for k, v in local("out").items() if "jsonl" not in k
    }
    assert sorted(Folder("store://bucket/out").entries) == sorted(Folder("out").entries)


def test_no_permission_is_said_before_any_work(store, facekit):
    def refuse(name):
        raise PermissionError("Access Denied")

    buckets.Store.refuse = refuse
    done = smooth(facekit)
    assert done.code == 3 and "no permission to write store://bucket/out/" in done.err and "next:" in done.err
    assert "smooth-edges: 6 images" not in done.err and not objects(store)


def test_of_two_commands_the_second_stops(store, facekit, monkeypatch):
    held = remote_lock.RemoteLock(Path("store://bucket/out"), "align", ".facekit.lock", "of another machine")
    held.take()
    done = smooth(facekit)
    assert (done.code, "store://bucket/out is in use: align, process" in done.err) == (3, True), done.err
    assert list(objects(store)) == [".facekit.lock"]
    assert smooth(facekit, "--shard", "1/2").code == 3
    monkeypatch.setattr(remote_lock, "STALE", -1)  # its process has been killed
    assert smooth(facekit).code == 0
    monkeypatch.setattr(remote_lock, "REFRESHED", -1)
    held.take()
    remote_lock.RemoteLock(held.url, "clean", ".facekit.lock", "of a third").take()
    with pytest.raises(OutputError, match="took over"):
        held.refresh()


def test_shards_on_two_machines_end_as_one_folder(store, facekit, other_machine):
    assert smooth(facekit, "--shard", "1/2").code == 0
    assert "card.yaml" not in objects(store) and "manifest.1-of-2.jsonl" in objects(store)
    other_machine()
    assert smooth(facekit, "--shard", "2/2").code == 0
    assert smooth(facekit, out="out").code == 0
    one, two = objects(store), local("out")
    assert sorted(one.pop("manifest.jsonl").splitlines()) == sorted(two.pop("manifest.jsonl").splitlines())
    assert one == two


def test_objects_that_the_store_lists_late_are_not_made_again(store, facekit, other_machine, monkeypatch):
    assert smooth(facekit).code == 0
    find = buckets.Store.find
    late = ("/bucket/out/003.png", "/bucket/out/sub/é with space.png")

    def listing(self, path, **more):
        return {name: info for name, info in find(self, path, **more).items() if name not in late}

    monkeypatch.setattr(buckets.Store, "find", listing)
    other_machine()
    assert "nothing to do" in smooth(facekit).err


@pytest.mark.slow
def test_texts_go_up_in_between_and_the_lock_gives_signs_of_life(store, facekit, monkeypatch):
    monkeypatch.setattr(working_copy, "EVERY", 0.001)
    monkeypatch.setattr(remote_lock, "REFRESHED", -1)
    one = smooth_folder.smooth_one

    def slow(source, **more):
        time.sleep(0.2)
        return one(source, **more)

    monkeypatch.setattr(smooth_folder, "smooth_one", slow)
    done = smooth(facekit)
    assert done.code == 0, done.err
    puts = [Path(name).name for what, name in buckets.Store.log if what == "put"]
    assert puts.count("manifest.jsonl") > 1 and puts.count(".facekit.lock") > 2
    assert puts.count("card.yaml") == 1 and puts[-1] == "card.yaml"
    assert smooth(facekit, out="out").code == 0
    assert objects(store) == local("out")


def test_nothing_in_the_store_is_lost_with_the_cache(store, facekit, monkeypatch):
    assert smooth(facekit).code == 0
    before = objects(store)
    toy.picture(16, 90).save("in/zz.png")
    one = smooth_folder.smooth_one

    def wiped(source, **more):
        shutil.rmtree("cache")
        return one(source, **more)

    monkeypatch.setattr(smooth_folder, "smooth_one", wiped)
    assert smooth(facekit).code != 0
    kept = {name: data for name, data in before.items() if "card" not in name}
    assert {name: data for name, data in objects(store).items() if name in kept} == kept


def test_little_waits_on_the_disk(store, facekit, monkeypatch):
    monkeypatch.setattr(uploader, "MOST", 1)  # byte: one image at a time
    largest = []

    def refuse(name):
        sizes = [path.stat().st_size for path in Path("cache").rglob("*.png")]
        largest.append(sum(size > 0 for size in sizes))

    buckets.Store.refuse = refuse
    assert smooth(facekit).code == 0
    assert 1 <= max(largest) <= 2 and len(objects(store)) == 8


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("store://bucket", "name a folder in it: store://bucket/NAME"),
        ("store://bucket/face.png", "is one file"),
        ("http://127.0.0.1:1/out", "http:// is for reading"),
        ("store://KEY:SECRET@bucket/out", "credentials"),
        ("nosuch://bucket/out", "pip install"),
    ],
)
def test_what_cannot_be_an_output_is_refused(store, facekit, out, said):
    done = smooth(facekit, out=out)
    assert done.code in (2, 3, 5) and said in done.err and "SECRET" not in done.err


def test_a_key_cannot_lead_out_of_the_folder(store, facekit, tmp_path, monkeypatch):
    assert smooth(facekit).code == 0
    evil = "../../../../evil.jsonl"
    store.pipe_file("/bucket/evil.jsonl", b'{"file": "a.png"}')
    manifest = store.cat_file("/bucket/out/manifest.jsonl")
    store.pipe_file("/bucket/out/manifest.jsonl", manifest + f'{{"file": "{evil}", "source": "x.png"}}\n'.encode())
    find = buckets.Store.find

    def listing(self, path, **more):
        found = find(self, path, **more)
        return {**found, f"{path}/{evil}": {**next(iter(found.values())), "name": f"{path}/{evil}"}} if found else found

    monkeypatch.setattr(buckets.Store, "find", listing)
    assert smooth(facekit).code == 0
    assert not list(tmp_path.rglob("evil*")) and store.exists("/bucket/evil.jsonl")


def test_clean_copies_what_it_keeps(store, facekit):
    toy.fill(Path("many"), 3, size=80)
    (Path("many") / "twice.png").write_bytes(Path("many/000.png").read_bytes())
    line = ("--apply", "--max-blur", 1, "--keep", "near", "--keep", "grey", "--min-size", 8)
    done = facekit("clean", "many", "store://bucket/out", *line)
    assert done.code == 0, done.err
    assert facekit("clean", "many", "out", *line).code == 0
    one, two = objects(store), local("out")
    assert sorted(one) == sorted(two) and {k: v for k, v in one.items() if k.endswith("png")} == {
        k: v for k, v in two.items() if k.endswith("png")
    }
    assert b"store://bucket/out" in one["report.html"] and not any(
        b"cache/outputs" in str(v).encode() for v in one.values()
    )
    done = facekit("clean", "store://bucket/out")
    assert (done.code, "give OUT, or --report DIR" in done.err) == (2, True)
    done = facekit("clean", "store://bucket/out", "--apply", "--report", "report")
    assert (done.code, "behind a URL" in done.err) == (2, True)


@pytest.mark.slow
def test_pairs_and_crawled_pictures_lie_in_the_store(store, facekit, other_machine):
    Path("copy.py").write_text("import shutil, sys\nshutil.copy(*sys.argv[1:])\n")
    keep = [word for reason in ("no-face", "face-lost", "parts", "near-duplicate") for word in ("--keep", reason)]
    draw = ("--teacher-command", f"{sys.executable} copy.py {{in}} {{out}}", "--size", 16, "--detector", "cascade")
    for out in ("store://bucket/out", "out"):
        assert facekit("pairs", "in", out, "--no-align", *keep, *draw, "--limit", 2).code == 0
    assert objects(store) == local("out") and "b/000.png" in objects(store)
    crawl = ("crawl", "local", "store://bucket/raw", "--from", "in", "--limit", 3)
    done = facekit(*crawl)
    assert done.code == 0, done.err
    assert sum(name.endswith(".png") for name in objects(store, "bucket/raw")) == 3
    other_machine()
    assert "nothing to do" in facekit(*crawl).err
    done = facekit(*crawl[:-1], 5)
    assert done.code == 0 and "2 images downloaded" in done.err, done.err
    assert len(Folder("store://bucket/raw").sources()) == len(Folder("store://bucket/raw").entries) == 5


def test_shards_are_packed_into_a_store_and_read_there(store, facekit, other_machine):
    Path("in/labels.csv").write_text("file,label\n")
    assert facekit("pack", "in", "store://bucket/out", "--shard-size", 1).code == 0
    assert facekit("pack", "in", "out", "--shard-size", 1).code == 0
    one, two = objects(store), local("out")
    assert sorted(one) == sorted(two) and one["000000.tar"] == two["000000.tar"]
    assert [s.name for s in Folder("store://bucket/out").sources()] == [s.name for s in Folder("in").sources()]
    other_machine()
    buckets.Store.log.clear()
    assert facekit("pack", "in", "store://bucket/out", "--shard-size", 1).code == 0
    assert not [name for what, name in buckets.Store.log if what == "put" and "lock" not in name]
    assert facekit("pack", "store://bucket/out", "store://bucket/again").code == 0
    assert objects(store, "bucket/again")["labels.csv"] == b"file,label\n"


@pytest.mark.slow
def test_faces_go_from_store_to_store(store, facekit, other_machine):
    Path("photos").mkdir()
    Image.fromarray(astronaut()).save("photos/one.png")
    values = {"recipe": str(toy.FILE), "data": {"size": 32}, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(Path("t.safetensors"), nn.ModuleDict({"ab": toy.Toy({}, 32).nets()["ab"]}), values)
    assert facekit("align", "photos", "store://bucket/faces", "--detector", "cascade").code == 0
    assert Folder("store://bucket/faces").aligned
    other_machine()
    line = ("--weights", "t.safetensors", "--recipe", toy.FILE, "--sheet", "--to", "anime")
    done = facekit("translate", "store://bucket/faces", "store://bucket/anime", *line)
    assert done.code == 0, done.err
    assert facekit("translate", "store://bucket/faces", "anime", *line).code == 0
    assert objects(store, "bucket/anime") == local("anime")
    assert store.cat_file("/bucket/anime-sheet.png") == Path("anime-sheet.png").read_bytes()
    other_machine()
    again = facekit("translate", "store://bucket/faces", "store://bucket/anime", *line)
    assert again.code == 0 and "nothing to do" in again.err
    done = facekit("translate", "store://bucket/faces", "store://bucket/faces", *line)
    assert (done.code, "both input and output" in done.err) == (2, True), done.err
    inside = facekit("smooth-edges", "store://bucket", "store://bucket/faces/smooth", "--workers", 1)
    assert inside.code == 0, inside.err
    again = facekit("smooth-edges", "store://bucket", "store://bucket/faces/smooth", "--workers", 1)
    assert "nothing to do" in again.err, again.err
    done = facekit("translate", "photos", "store://bucket/no", *line, "--watch")
    assert (done.code, "--watch writes to a disk" in done.err) == (2, True)


@pytest.fixture
def train(facekit, store):
    toy.domains(Path("data"))

    def run(out, *more):
        return facekit("train", toy.FILE, "--data", "data", "--out", out, *more)

    return run


def state(data):
    import io

    return torch.load(io.BytesIO(data), weights_only=True)


@pytest.mark.slow
def test_a_run_of_training_lies_in_the_store(train, store, other_machine):
    done = train("store://bucket/out")
    assert done.code == 0, done.err
    assert "store://bucket/out/model.safetensors" in done.out and "cache" not in done.err + done.out
    assert train("out").code == 0
    one, two = objects(store), local("out")
    assert sorted(one) == sorted(two) and one["model.safetensors"] == two["model.safetensors"]
    assert one["card.yaml"] == two["card.yaml"] and one["log.jsonl"] == two["log.jsonl"]
    puts = [Path(name).name for what, name in buckets.Store.log if what == "put"]
    assert puts.index("model.safetensors") < puts.index("log.jsonl") < puts.index("state.pt") < puts.index("card.yaml")
    assert puts[-1] == "card.yaml"
    other_machine()
    buckets.Store.log.clear()
    assert "nothing to do" in train("store://bucket/out").err
    assert not [name for _, name in buckets.Store.log if name.endswith((".pt", ".safetensors"))]
    done = train("store://bucket/out", "--steps", 9)
    assert done.code == 0 and "continuing from step 6" in done.err, done.err
    assert train("out", "--steps", 9).code == 0
    assert objects(store)["model.safetensors"] == local("out")["model.safetensors"]
    assert objects(store)["log.jsonl"] == local("out")["log.jsonl"]
    assert train("store://bucket/out", "--steps", 2, "--force").code == 0
    assert [name for name in objects(store) if "previews" in name] == ["previews/00000002.png"]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["same", "other"])
def test_training_goes_on_from_the_newest_save(train, store, other_machine, place):
    saves = iter(range(99))

    def refuse(name):
        if name.endswith("state.pt") and next(saves) == 2:
            buckets.Store.refuse = denied
            denied(name)

    def denied(name):
        raise PermissionError("ExpiredToken")

    line = ("--set", "run.save_every=2")
    buckets.Store.refuse = refuse
    done = train("store://bucket/out", *line)
    assert done.code == 3 and "no permission" in done.err
    assert state(objects(store)["state.pt"])["step"] == 4 and "card.yaml" not in objects(store)
    buckets.Store.refuse = lambda name: None
    if place == "other":
        store.rm_file("/bucket/out/.facekit.lock")
        other_machine()
    done = train("store://bucket/out", *line)
    assert done.code == 0, done.err
    if place == "other":
        assert "continuing from step 4" in done.err, done.err
    else:  # where the failure came to light before or after the card was written
        assert "nothing to do" in done.err or "continuing from step 6" in done.err, done.err
    assert train("out", *line).code == 0
    assert objects(store)["model.safetensors"] == local("out")["model.safetensors"]
    assert objects(store)["log.jsonl"] == local("out")["log.jsonl"]


@pytest.mark.slow
def test_a_run_is_not_put_among_its_images_nor_by_several_processes(facekit, store, monkeypatch):
    toy.domains(Path("data"))
    for path in Path("data").rglob("*.png"):
        store.pipe_file(f"/bucket/{path.as_posix()}", path.read_bytes())
    done = facekit("train", toy.FILE, "--data", "store://bucket/data", "--out", "store://bucket/data/trainA")
    assert (done.code, "holds the training images" in done.err) == (2, True), done.err
    done = facekit("train", toy.FILE, "--data", "store://bucket/data", "--out", "store://bucket/run")
    assert done.code == 0, done.err
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = facekit("train", toy.FILE, "--data", "data", "--out", "store://bucket/two")
    assert (done.code, "several processes" in done.err) == (2, True)
