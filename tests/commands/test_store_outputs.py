"""Outputs in servers of S3, Azure and Google Cloud, behind a proxy that is slow, busy or cuts connections."""

import contextlib
import re
import signal
import time
from pathlib import Path

import pytest

import buckets
import toy
from facekit.storage import images as images_of
from facekit.storage import remote, remote_lock
from facekit.storage.folder import Folder

NAMES = ("000.png", "001.png", "002.png", "sub/é with space.png", "sub/plus+100%.png", "日本/語 #1.png")


@pytest.fixture
def served(store, tmp_path, monkeypatch):
    """The proxy, a function that gives the objects below a folder, and a bucket's URL; in/ has six drawings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    client, name = buckets.client(store, monkeypatch, tmp_path)
    for seed, each in enumerate(NAMES):
        Path("in", each).parent.mkdir(parents=True, exist_ok=True)
        toy.picture(16, seed).save(Path("in", each))

    def objects(folder="out"):
        client.invalidate_cache()
        found = {}
        for key, info in client.find(f"{name}/{folder}", detail=True).items():
            with contextlib.suppress(FileNotFoundError):  # a running command removed it meanwhile
                if info["type"] == "file":  # s3fs may list a folder that appears meanwhile
                    found[key.partition(f"/{folder}/")[2]] = client.cat_file(key)
        return found

    store.asked.clear()
    return store, objects, f"{store.scheme}://{name}"


def smooth(facekit, out, *more):
    return facekit("smooth-edges", "in", out, "--workers", 1, *more)


def images(found):
    return {name: data for name, data in found.items() if name.endswith(".png")}


def local(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def same_as_local(facekit, objects):
    assert smooth(facekit, "out").code == 0
    one, two = objects(), local("out")
    assert images(one) == images(two) and sorted(images(one)) == sorted(NAMES)
    assert sorted(one) == sorted(two)
    assert set(one["manifest.jsonl"].splitlines()) == set(two["manifest.jsonl"].splitlines())


@pytest.mark.slow
def test_a_bucket_holds_what_the_folder_would_without_a_secret_and_the_next_command_reads_it(served, facekit):
    proxy, objects, url = served
    done = smooth(facekit, f"{url}/out")
    assert done.code == 0, done.err
    same_as_local(facekit, objects)
    told = b"".join(objects().values()).decode("latin-1") + done.err + done.out
    assert not any(secret in told for secret in buckets.SECRETS)
    assert not any(Path("cache/outputs").rglob("*"))
    proxy.asked.clear()
    assert "nothing to do" in smooth(facekit, f"{url}/out").err
    assert not [path for command, path in proxy.asked if command == "GET" and ".png" in path]
    assert sum(re.search("prefix=out(%2F|/)(&|$)", path) is not None for _, path in proxy.asked) == 1
    done = facekit("smooth-edges", f"{url}/out", f"{url}/twice", "--workers", 2)
    assert done.code == 0, done.err
    assert facekit("smooth-edges", "out", "twice", "--workers", 1).code == 0
    assert images(objects("twice")) == images(local("twice"))


@pytest.mark.slow
@pytest.mark.parametrize("faults", [["", "busy", "busy"], ["", "cut"], ["", "slow"], ["", "cut", "busy", "", "cut"]])
def test_a_put_that_fails_is_done_again(served, facekit, faults):
    proxy, objects, url = served
    buckets.skip_where_slow(proxy, faults)
    proxy.failing, proxy.faults[:] = (proxy.put,), faults
    done = smooth(facekit, f"{url}/out")
    assert done.code == 0, done.err
    assert not proxy.faults
    same_as_local(facekit, objects)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["same", "other"])
def test_credentials_that_expire_on_the_way_lose_nothing(served, facekit, monkeypatch, tmp_path, place):
    proxy, objects, url = served
    proxy.failing, proxy.faults[:] = (proxy.put, "DELETE"), [""] * 4 + ["denied"] * 99
    done = smooth(facekit, f"{url}/out")
    assert done.code == 3 and f"no permission to write {url}/" in done.err and "credentials" in done.err, done.err
    assert "card.yaml" not in objects() and 0 < len(images(objects())) < len(NAMES)
    assert all(data == toy_smoothed(facekit)[name] for name, data in images(objects()).items())
    proxy.faults.clear()
    if place == "other":
        monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "other"))
        refused = smooth(facekit, f"{url}/out")
        assert refused.code == 3 and "is in use: smooth-edges" in refused.err and ".facekit.lock" in refused.err
        monkeypatch.setattr("facekit.storage.remote_lock.STALE", -1)
    done = smooth(facekit, f"{url}/out")
    assert done.code == 0, done.err
    same_as_local(facekit, objects)


def toy_smoothed(facekit):
    assert smooth(facekit, "out").code == 0
    return images(local("out"))


@pytest.mark.slow
@pytest.mark.parametrize(("place", "number"), [("same", "SIGKILL"), ("other", "SIGKILL"), ("other", "SIGINT")])
def test_a_command_that_is_ended_leaves_whole_objects_and_goes_on(
    served, facekit, spawn, monkeypatch, tmp_path, place, number
):
    proxy, objects, url = served
    proxy.failing, proxy.faults[:] = (proxy.put,), [""] * 3 + ["slow"] * 99
    process = spawn.start("smooth-edges", "in", f"{url}/out", "--workers", 1)
    until = time.monotonic() + 120
    while len(images(objects())) < 1 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(getattr(signal, number))
    said = process.communicate()[1]
    time.sleep(1.2)  # what the proxy has taken arrives
    proxy.faults.clear()
    if number == "SIGINT" and "card.yaml" in objects():  # it came when nothing but the sending was left
        assert sorted(images(objects())) == sorted(NAMES)
    else:
        assert "card.yaml" not in objects() and "card.unfinished.yaml" in objects()
    assert images(objects()) and all(data == toy_smoothed(facekit)[name] for name, data in images(objects()).items())
    if number == "SIGINT":
        assert process.returncode == 130 and ".facekit.lock" not in objects(), said
    elif place == "other":
        monkeypatch.setattr("facekit.storage.remote_lock.STALE", -1)
    if place == "other":
        monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "other"))
    done = smooth(facekit, f"{url}/out")
    assert done.code == 0, done.err
    same_as_local(facekit, objects)


@pytest.mark.slow
def test_a_bucket_that_is_not_there_or_not_ours_is_said_before_any_work(served, facekit):
    proxy, objects, url = served
    done = smooth(facekit, f"{proxy.scheme}://no-such-bucket-at-all/out")
    assert done.code == 3 and "no such bucket" in done.err and "6 images" not in done.err, done.err
    proxy.failing, proxy.faults[:] = (proxy.put,), ["denied"] * 9
    done = smooth(facekit, f"{url}/out")
    assert done.code == 3 and f"no permission to write {url}/" in done.err and "6 images" not in done.err
    assert objects() == {}


@pytest.mark.slow
def test_training_writes_to_a_bucket(served, facekit):
    _, objects, url = served
    toy.domains(Path("data"))
    line = ("train", toy.FILE, "--data", "data", "--out")
    done = facekit(*line, f"{url}/out")
    assert done.code == 0, done.err
    assert facekit(*line, "out").code == 0
    assert sorted(objects()) == sorted(local("out"))
    assert objects()["model.safetensors"] == local("out")["model.safetensors"]
    assert not any(x.encode() in data for data in objects().values() for x in buckets.SECRETS)
    assert Folder("in").names  # the working folder is the test's own
    done = facekit(*line, f"{url}/out", "--steps", 8)
    assert done.code == 0 and "continuing from step 6" in done.err


@pytest.mark.slow
def test_of_two_commands_the_store_refuses_the_second(served, facekit):
    _, objects, url = served
    held = remote_lock.RemoteLock(Path(f"{url}/out"), "align", ".facekit.lock", "of another machine")
    held.take()
    with pytest.raises(FileExistsError):
        remote.put(held.path, b"{}", new=True)
    done = smooth(facekit, f"{url}/out")
    assert done.code == 3 and f"{url}/out is in use: align, process" in done.err
    assert list(objects()) == [".facekit.lock"] and objects()[".facekit.lock"] == held.text
    held.give_back()
    assert not objects()


@pytest.mark.slow
def test_shards_are_packed_into_a_store_and_read_there(served, facekit):
    _, objects, url = served
    done = facekit("pack", "in", f"{url}/out", "--shard-size", 1)
    assert done.code == 0, done.err
    assert any(name.endswith(".tar") for name in objects())
    packed, plain = Folder(f"{url}/out").sources(), Folder("in").sources()
    assert [s.name for s in packed] == [s.name for s in plain]
    assert [images_of.read(s.path).tobytes() for s in packed] == [images_of.read(s.path).tobytes() for s in plain]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["same", "other"])
def test_a_crawl_that_is_killed_goes_on(served, facekit, spawn, monkeypatch, tmp_path, place):
    proxy, objects, url = served
    proxy.failing, proxy.faults[:] = (proxy.put,), [""] * 4 + ["slow"] * 99
    process = spawn.start("crawl", "local", f"{url}/out", "--from", "in", "--workers", 1)
    until = time.monotonic() + 120
    while len(images(objects())) < 1 and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    time.sleep(1.2)  # what the proxy has taken arrives
    proxy.faults.clear()
    there = objects()
    assert images(there) and "card.yaml" not in there and any(name.startswith(".crawl/") for name in there)
    if place == "other":
        monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "other"))
        assert facekit("crawl", "local", f"{url}/out", "--from", "in").code == 3  # its lock still counts
        monkeypatch.setattr("facekit.storage.remote_lock.STALE", -1)
    done = facekit("crawl", "local", f"{url}/out", "--from", "in")
    assert done.code == 0, done.err
    assert facekit("crawl", "local", "out", "--from", "in").code == 0
    one, two = objects(), local("out")
    assert images(one) == images(two) and len(images(one)) == len(NAMES)
    assert sorted(one) == sorted(two)
    lines = [re.sub(rb'"time": "[^"]*"', b"", found["manifest.jsonl"]).splitlines() for found in (one, two)]
    assert sorted(lines[0]) == sorted(lines[1])
