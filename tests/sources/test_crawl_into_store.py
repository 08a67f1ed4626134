"""`facekit crawl` into an object store: another machine goes on where one was lost, at whatever moment that was."""

import json
import random
import re
import sqlite3
from pathlib import Path

import pytest
import yaml

import buckets
from booru import Booru, Entry
from facekit.sources import http_client, unsent
from facekit.storage import record_parts, remote, remote_lock, working_copy

OUT = "store://bucket/raw"
MOMENTS = ("argv", "start", "end", "last_start", "requests")  # what a card notes of one run
PARTS = "/bucket/raw/.crawl/"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store://, which gets a part of the record as often as it can."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(http_client, "FIRST_PAUSE", 0.0001)
    monkeypatch.setattr(working_copy, "EVERY", 0.005)
    return buckets.in_memory(monkeypatch)


@pytest.fixture
def other_machine(monkeypatch, tmp_path):
    """Makes this process another machine, with an empty cache, to which the lock of the first counts no more."""
    count = iter(range(999))

    def become():
        monkeypatch.setattr(remote_lock, "STALE", -1)
        monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / f"cache{next(count)}"))

    return become


@pytest.fixture
def board():
    """Posts of which one has a low score, two the same image and one no file; the limit ends before the last.

    With several workers it depends on who is faster which of the two is kept.
    """
    entries = [Entry(i) for i in range(1, 15)]
    entries[10].score = 0
    entries[8] = Entry(9, data=entries[12].data)
    with Booru(entries, page=4) as server:
        server.always["/images/6.jpg"] = "404"
        yield server


def go(facekit, board, *more, out=OUT, workers=1):
    line = ("crawl", "safebooru", out, "--tags", "solo", "--limit", 9, "--min-score", 1, "--workers", workers)
    return facekit(*line, "--address", board.address, "--allow-local", "--rate", 10_000, *more)


def lost_after(changes, kind=""):
    """Let the machine lose the store after some changes of objects whose names have `kind` in them: it is as killed."""
    done, gone = [], []

    def refuse(name):
        if len(done) >= changes:
            gone.append(name)
            raise PermissionError("the machine is gone")
        if kind in name:
            done.append(name)

    buckets.Store.refuse = refuse
    return gone


def found_again():
    buckets.Store.refuse = lambda name: None


def images(store):
    return {name.rpartition("/")[2] for name in store.find("/bucket/raw") if name.endswith(".jpg")}


def left(store, top="raw"):
    """Return what a crawl left: images, lines of manifests without times, values of the card, rows of the archive."""
    found = {name[len(f"/bucket/{top}/") :]: store.cat_file(name) for name in store.find(f"/bucket/{top}")}
    for name, data in found.items():
        if name.endswith(".jsonl"):
            found[name] = sorted(re.sub(rb'"time": "[^"]*"', b"", data).splitlines())
        elif name.endswith(".yaml"):
            values = yaml.safe_load(data)
            values["options"].pop("out")
            found[name] = {**values, "made": {k: v for k, v in values["made"].items() if k not in MOMENTS}}
    Path("one.sqlite").write_bytes(found[".crawl.sqlite"])
    db = sqlite3.connect("one.sqlite")
    rows = db.execute("SELECT turn, id, label, state, post, file, md5, stage, reason FROM posts ORDER BY turn")
    found[".crawl.sqlite"] = rows.fetchall(), db.execute("SELECT * FROM walks").fetchall()
    db.close()
    return found


def unlike(store, whole):
    """Return what a crawl left otherwise than an undisturbed one: names of objects, or lines and rows that one has."""
    found, different = left(store), []
    for name in sorted(found.keys() | whole.keys()):
        one, two = found.get(name), whole.get(name)
        if name == ".crawl.sqlite":
            one, two = ([*rows, *walks] for rows, walks in (one, two))
        if isinstance(one, list) and isinstance(two, list) and one != two:
            different += [(name, "left", x) for x in one if x not in two] + [
                (name, "whole", x) for x in two if x not in one
            ]
            different += [(name, len(one), len(two))]
        elif one != two:
            different.append(name)
    return different


@pytest.fixture
def whole(store, facekit, board):
    """What an undisturbed crawl leaves."""
    assert go(facekit, board, out="store://bucket/whole").code == 4
    found = left(store, "whole")
    assert len([name for name in found if name.endswith(".jpg")]) == 9 and "failed.jsonl" in found
    return found


@pytest.mark.slow
def test_another_machine_goes_on_from_every_moment(store, facekit, board, other_machine, whole):
    moments = 0
    while True:
        for name in store.find("/bucket/raw"):
            store.rm_file(name)
        other_machine()
        lost = lost_after(moments)
        board.log.clear()
        assert go(facekit, board).code in (3, 4)
        found_again()
        if not lost:
            break
        moments += 1
        there, before = images(store), dict(board.served())
        other_machine()
        done = go(facekit, board)
        assert done.code == 4, done.err
        assert not unlike(store, whole), moments
        again = {key for key, times in board.served().items() if times > before.get(key, 0)}
        assert not again & {name.partition("_")[0] for name in there}, moments
    assert moments > 15 and not unlike(store, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_machines_take_turns_and_all_are_lost(store, facekit, board, other_machine, whole, seed, monkeypatch, tmp_path):
    chance = random.Random(seed)
    monkeypatch.setattr(remote_lock, "STALE", -1)
    for _ in range(40):
        monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / f"machine{chance.randrange(3)}"))
        lost = lost_after(chance.randrange(3, 9))
        assert go(facekit, board).code in (3, 4)
        found_again()
        if not lost:
            break
    assert go(facekit, board).code == 4
    assert not unlike(store, whole)


@pytest.mark.slow
def test_an_image_goes_up_after_its_post_and_before_its_row(store, facekit, board, monkeypatch):
    assert go(facekit, board).code == 4
    known = {}
    monkeypatch.setattr(record_parts.RecordParts, "remove", lambda self, merged=False: None)
    buckets.Store.log.clear()
    assert go(facekit, board, "--force").code == 4
    for what, name in buckets.Store.log:
        if what == "put" and name.startswith(PARTS):
            for row in map(json.loads, store.cat_file(name).splitlines()):
                if row.get("file"):
                    assert known.get(row["file"]) == "up", row
                elif "id" in row:
                    known.setdefault(row["id"], "listed")
        elif what == "put" and name.endswith(".jpg"):
            file = name.rpartition("/")[2]
            assert known.get(file.partition("_")[0]) == "listed"
            known[file] = "up"
    assert len([one for one in known.values() if one == "up"]) == 9


def test_the_record_goes_up_once_and_nothing_of_it_is_left(store, facekit, board, monkeypatch):
    monkeypatch.setattr(unsent, "ROWS", 2)
    sent, put = [], remote.put

    def noted(path, content, new=False):
        sent.append((path, content))
        put(path, content, new)

    monkeypatch.setattr(remote, "put", noted)
    assert go(facekit, board).code == 4
    parts = [data for path, data in sent if ".crawl/" in path.as_posix()]
    rows = [json.loads(line) for data in parts for line in data.splitlines() if b'"id"' in line]
    assert len(parts) > 5 and max(data.count(b'"id"') for data in parts) <= 2
    assert max(sum(row["id"] == one["id"] for one in rows) for row in rows) <= 2  # as listed, and what became of it
    names = [path.name for path, _ in sent]
    assert names.count("manifest.jsonl") == names.count(".crawl.sqlite") == 1
    assert not store.find(PARTS)
    order = [Path(name).name for what, name in buckets.Store.log if what == "put"]
    assert max(order.index(name) for name in order if name.endswith(".jpg")) < order.index(".crawl.sqlite")
    removed = [i for i, (what, name) in enumerate(buckets.Store.log) if what == "remove" and name.startswith(PARTS)]
    assert buckets.Store.log.index(("put", "/bucket/raw/.crawl.sqlite")) < removed[0]
    assert removed[-1] < buckets.Store.log.index(("put", "/bucket/raw/card.yaml"))


@pytest.mark.slow
def test_the_same_machine_sends_what_it_had(store, facekit, board, whole):
    board.log.clear()
    lost_after(3, ".jpg")
    assert go(facekit, board, workers=2).code == 3
    found_again()
    assert len(images(store)) == 3 < sum(board.served().values())
    assert go(facekit, board).code == 4
    assert not unlike(store, whole) and sum(board.served().values()) <= 9 + 2  # both workers had one under way


@pytest.mark.slow
def test_a_higher_limit_goes_on_where_another_machine_was_lost(store, facekit, board, other_machine, whole):
    assert go(facekit, board, "--limit", 3).code == 0
    lost_after(2, ".jpg")
    other_machine()
    assert go(facekit, board, "--limit", 9).code == 3
    found_again()
    assert "/bucket/raw/card.yaml" not in store.find("/bucket/raw") and len(images(store)) == 5
    other_machine()
    assert go(facekit, board).code == 4
    assert not unlike(store, whole)


@pytest.mark.slow
def test_force_deletes_what_a_lost_machine_has_sent(store, facekit, board, other_machine):
    for more in ((), ("--force", "--min-size", 2)):
        other_machine()
        lost_after(4 + len(images(store)), ".jpg")
        assert go(facekit, board, *more).code == 3
        found_again()
        assert len(images(store)) == 4
    other_machine()
    assert go(facekit, board).code == 2  # that would be another crawl
    assert go(facekit, board, "--force", "--limit", 2).code == 0
    assert {name.partition("_")[0] for name in images(store)} == {"14", "13"} and not store.find(PARTS)


@pytest.mark.slow
def test_nothing_of_a_finished_crawl_is_left_where_force_began_another(store, facekit, board, other_machine):
    assert go(facekit, board).code == 4
    lost_after(9 + 2, ".jpg")  # nine are removed
    assert go(facekit, board, "--force", "--limit", 4, "--without", "x").code == 3
    found_again()
    other_machine()
    assert go(facekit, board, "--limit", 4, "--without", "x").code == 0
    rows = [json.loads(line) for line in store.cat_file("/bucket/raw/manifest.jsonl").splitlines()]
    assert sorted(row["id"] for row in rows) == ["10", "12", "13", "14"]
    assert {row["file"] for row in rows} == images(store) and not store.exists("/bucket/raw/failed.jsonl")


@pytest.mark.slow
def test_a_crawl_that_goes_on_elsewhere_is_taken_over_by_the_first_machine(
    store, facekit, board, other_machine, monkeypatch, whole
):
    first = str(Path("cache").resolve())
    lost_after(2, ".jpg")
    assert go(facekit, board).code == 3
    other_machine()
    lost_after(4, ".jpg")
    assert go(facekit, board).code == 3
    found_again()
    monkeypatch.setenv("FACEKIT_CACHE", first)
    served = dict(board.served())
    kept = {name.partition("_")[0] for name in images(store)}
    assert go(facekit, board).code == 4
    assert not unlike(store, whole)
    assert all(board.served()[key] == served[key] for key in kept)


@pytest.mark.slow
def test_a_command_that_is_refused_leaves_what_a_killed_one_left(store, facekit, board, whole):
    lost_after(3, ".jpg")
    assert go(facekit, board).code == 3
    found_again()
    (record,) = Path("cache").rglob(".crawl.sqlite")
    log = record.with_name(".crawl.sqlite-wal")
    log.touch()  # SQLite leaves one where it is killed
    before = {path: path.read_bytes() for path in record.parent.rglob("*.jpg")}
    done = go(facekit, board, "--min-size", 2)
    assert done.code == 2 and "waits here" in done.err, done.err
    assert {path: path.read_bytes() for path in record.parent.rglob("*.jpg")} == before and log.exists()
    assert go(facekit, board).code == 4
    assert not unlike(store, whole)


def test_a_machine_that_lives_keeps_another_out(store, facekit, board, other_machine, monkeypatch):
    held = remote_lock.RemoteLock(Path(OUT), "crawl", ".facekit.lock", "of another machine")
    held.take()
    done = go(facekit, board)
    assert done.code == 3 and f"{OUT} is in use: crawl, process" in done.err
    assert not board.log and store.find("/bucket/raw") == ["/bucket/raw/.facekit.lock"]
