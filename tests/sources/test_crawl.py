"""`facekit crawl` against a real server on this machine: nothing lost, nothing doubled, nothing believed."""

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

import toy
from booru import FILE_FAULTS, Booru, Entry, SlowServer, picture
from facekit.commands.crawl import crawl
from facekit.errors import CardError, InputError, SomeFailed
from facekit.runtime import console
from facekit.sources import http_client
from facekit.sources.archive import NAME, Archive
from facekit.sources.rate_limiter import RateLimiter
from facekit.storage.folder import Folder, open_source
from facekit.storage.folder_map import folder_map
from facekit.storage.jsonl import read_lines

ROOT = Path(__file__).parents[2]
SITES = ["safebooru", "danbooru"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Takes the waiting out of the back-off."""
    monkeypatch.setattr(http_client, "FIRST_PAUSE", 0.0001)
    for name in ("LOGIN", "KEY"):
        monkeypatch.delenv(f"FACEKIT_DANBOORU_{name}", raising=False)


@pytest.fixture
def board():
    with Booru([Entry(i) for i in range(1, 31)], page=8) as server:
        yield server


@pytest.fixture
def out(tmp_path):
    return tmp_path / "raw"


def go(board, out, site="safebooru", **options):
    """Run a crawl of everything tagged solo."""
    given = {"tags": "solo", "limit": 1000, "address": board.address, "allow_local": True, "rate": 10_000.0}
    if "expression" in options:
        del given["tags"]
    return crawl(site, out, **{**given, **options})


def command(board, out, *more):
    """Return the arguments of such a crawl."""
    given = ["crawl", "safebooru", out, "--tags", "solo", "--limit", 1000, "--address", board.address, "--allow-local"]
    return [*given, "--rate", 10_000, *more]


def whole(board, out, wanted):
    """Check that a folder holds exactly the wanted posts, each once, with true bytes, a manifest line and a row."""
    rows = list(read_lines(out / "manifest.jsonl"))
    assert sorted(int(row["id"]) for row in rows) == sorted(wanted)
    images = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*") if p.suffix in (".jpg", ".png"))
    assert images == sorted(row["file"] for row in rows)
    for row in rows:
        entry = board.by_id[int(row["id"])]
        data = (out / row["file"]).read_bytes()
        assert data == entry.data and row["md5"] == entry.md5 == hashlib.md5(data).hexdigest()
        assert row["file"].rpartition("/")[2] == f"{row['id']}_{row['md5']}.{entry.ext}"
    database = sqlite3.connect(out / NAME)
    assert {row[0] for row in database.execute("SELECT file FROM posts WHERE state = 'done'")} == set(images)
    database.close()
    assert list(out.rglob(".*.part")) == []


# the whole way


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
def test_a_crawl_fetches_everything_once(board, out, site):
    assert go(board, out, site) == out
    whole(board, out, range(1, 31))
    assert max(board.served().values()) == 1
    told = yaml.safe_load((out / "card.yaml").read_text())
    assert told["command"] == "crawl" and told["made"]["images"] == 30
    assert not (out / "failed.jsonl").exists() and not (out / "card.unfinished.yaml").exists()


@pytest.mark.parametrize("site", SITES)
def test_the_manifest_says_where_each_image_came_from(board, out, site):
    go(board, out, site, limit=1)
    (row,) = Folder(out).entries.values()
    assert (
        row["source"] == "https://example.org/art/30" and row["rating"] == "g" and row["tags"] == ["solo", "portrait"]
    )
    assert row["page"].startswith(board.address) and "30" in row["page"] and row["time"].startswith("20")
    assert row.get("artist") == ("some_artist" if site == "danbooru" else None)
    assert (row["width"], row["height"], row["bytes"]) == (24, 32, len(board.by_id[30].data))


def test_a_next_command_reads_the_folder(board, out, tmp_path):
    go(board, out, limit=3)

    folder_map("turn", open_source(out), tmp_path / "next", {"facekit": 1, "command": "turn"}, toy.turn)
    names = {row["source"] for row in read_lines(tmp_path / "next/manifest.jsonl")}
    assert names == set(Folder(out).entries) == set(Folder(out).names)


def test_the_newest_come_first_and_a_higher_limit_continues(board, out):
    go(board, out, limit=5)
    whole(board, out, range(26, 31))
    go(board, out, limit=12)
    whole(board, out, range(19, 31))
    assert max(board.served().values()) == 1
    assert yaml.safe_load((out / "card.yaml").read_text())["options"]["limit"] == 12


def test_the_limit_may_change_while_a_crawl_is_unfinished(board, out):
    board.always["page"] = "403"
    with pytest.raises(InputError, match="forbidden"):
        go(board, out, limit=3)
    board.always.clear()
    go(board, out, limit=9)
    whole(board, out, range(22, 31))


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
def test_the_same_command_again_asks_nothing(board, out, site):
    go(board, out, site)
    before, asked = {p: p.stat().st_mtime_ns for p in out.iterdir()}, len(board.log)
    go(board, out, site)
    assert len(board.log) == asked
    assert {p: p.stat().st_mtime_ns for p in out.iterdir() if p.name != NAME} == {
        p: t for p, t in before.items() if p.name != NAME
    }


@pytest.mark.slow
def test_update_fetches_what_is_new(board, out):
    go(board, out)
    new = Entry(31)
    board.entries.insert(0, new)
    board.by_id[31] = new
    go(board, out, update=True)
    whole(board, out, range(1, 32))
    assert max(board.served().values()) == 1


def test_another_crawl_into_the_folder_is_refused_and_force_replaces(board, out):
    go(board, out, limit=4)
    with pytest.raises(CardError, match="tags: solo -> portrait"):
        go(board, out, tags="portrait", limit=4)
    (out / "mine.txt").write_text("mine")
    board.by_id[30].tags = board.by_id[29].tags = "solo"
    go(board, out, tags="portrait", limit=4, force=True)
    whole(board, out, range(25, 29))
    assert (out / "mine.txt").exists()


def test_an_image_that_the_user_deletes_does_not_come_again(board, out):
    go(board, out, limit=4)
    gone = out / next(iter(Folder(out).entries))
    gone.unlink()
    go(board, out, limit=6)
    assert not gone.exists() and max(board.served().values()) == 1


@pytest.mark.slow
def test_two_crawls_into_one_folder_are_refused(board, out):
    out.mkdir()
    first = Archive(out)
    with pytest.raises(CardError, match="another crawl is running"):
        go(board, out)
    first.close()
    go(board, out)


def test_dry_run_says_what_would_come_and_leaves_nothing(board, out, capsys):
    token = console.current.set(console.Json())
    board.by_id[7].rating = "q"
    try:
        go(board, out, dry_run=True)
        go(board, out, "danbooru", dry_run=True, limit=3)
    finally:
        console.current.reset(token)
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    true = sum(len(entry.data) for entry in board.entries if entry.id != 7)
    assert first["images"] == 29 and first["estimated"] and abs(first["bytes"] / true - 1) < 0.2
    assert first["passed_over"] == {"another rating": 1}
    assert second["bytes"] == sum(len(board.by_id[i].data) for i in (30, 29, 28)) and not second["estimated"]
    assert second["posts"][0]["page"].endswith("/posts/30")
    assert not out.exists() and board.served() == {}


def test_dry_run_counts_only_what_is_not_there(board, out, capsys):
    go(board, out, limit=4)
    token = console.current.set(console.Plain())
    try:
        go(board, out, limit=10, dry_run=True)
    finally:
        console.current.reset(token)
    assert "crawl: 6 images" in capsys.readouterr().out


# choosing


def test_only_general_images_come_by_default(board, out):
    for i, rating in enumerate("sqe"):
        board.by_id[i + 1].rating = rating
    go(board, out)
    whole(board, out, range(4, 31))


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
def test_a_page_of_unwanted_posts_does_not_end_the_crawl(board, out, site):
    for i in range(5, 30):
        board.by_id[i].tags = "solo comic"
    go(board, out, site, without=["comic"])
    whole(board, out, [1, 2, 3, 4, 30])


def test_filters_work_before_fetching(board, out):
    changes = {1: {"size": (8, 8)}, 2: {"ext": "mp4"}, 3: {"ext": "zip"}, 4: {"score": 0}, 5: {"hidden": True}}
    for number, change in changes.items():
        for key, value in change.items():
            setattr(board.by_id[number], key, value)
    go(board, out, min_size=16, min_score=1)
    whole(board, out, range(6, 31))
    assert board.count("file") == 25
    told = yaml.safe_load((out / "card.yaml").read_text())["made"]["passed_over"]
    assert told == {"too small": 1, "another file type": 2, "low score": 1, "no file address": 1}


@pytest.mark.slow
def test_the_true_size_counts_not_the_claimed_one(board, out):
    board.by_id[9].more = {"width": 5000, "height": 5000}
    go(board, out, min_size=20, limit=30)
    whole(board, out, range(1, 31))
    with pytest.raises(InputError, match="no images"):
        go(board, out.with_name("large"), min_size=25)


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
def test_expressions_go_into_a_folder_each_and_ambiguous_images_nowhere(out, site):
    tags = {1: "angry solo", 2: "sad solo", 3: "smile solo", 4: "surprised solo", 5: "smile sad solo"}
    tags |= {6: "smile solo monochrome", 7: "solo", 8: "smile solo"}
    with Booru([Entry(i, t) for i, t in tags.items()]) as board:
        go(board, out, site, expression="all", tags="solo", limit=1)
        assert {row["id"]: row["label"] for row in Folder(out).entries.values()} == {
            "1": "angry", "2": "sad", "8": "smile", "4": "surprised",
        }  # fmt: skip
        go(board, out, site, expression="all", tags="solo", limit=100)
        whole(board, out, [1, 2, 3, 4, 8])
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["angry", "sad", "smile", "surprised"]
    assert yaml.safe_load((out / "card.yaml").read_text())["made"]["labels"]["smile"] == 2


def test_the_same_image_under_two_posts_is_kept_once(board, out):
    board.by_id[3].data = board.by_id[20].data
    board.by_id[4].data, board.by_id[4].more = board.by_id[21].data, {"md5": None}
    go(board, out, workers=8)
    rows = list(read_lines(out / "manifest.jsonl"))
    assert len(rows) == len({row["md5"] for row in rows}) == 28
    assert "3" not in board.served()  # its md5 tells that it is there


@pytest.mark.slow
def test_an_image_that_is_never_what_it_should_be_is_not_asked_for_without_end(board, out):
    board.always["/images/9.jpg"] = "wrong"
    with pytest.raises(SomeFailed):
        go(board, out)
    assert sum(key == "9" for what, key, _ in board.log if what == "file") == 6


@pytest.mark.slow
def test_no_posts_at_all_are_an_error(board, out):
    with pytest.raises(InputError, match="no such posts"):
        go(board, out, tags="nothing_has_this")
    with pytest.raises(InputError, match=r"30 posts, all skipped \(too small 30\)"):
        go(board, out.with_name("other"), min_size=5000)


# faults


@pytest.mark.slow
@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_fault_of_a_file_loses_nothing(board, out, fault):
    board.planned["file"].extend([fault, "", fault, fault, fault])
    go(board, out)
    whole(board, out, range(1, 31))
    assert max(board.served().values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("seed", range(3))
def test_a_fifth_of_broken_answers_loses_and_doubles_nothing(out, site, seed):
    with Booru([Entry(i) for i in range(1, 81)], share=0.2, seed=seed, page=8) as board:
        go(board, out, site)
        whole(board, out, range(1, 81))
        assert max(board.served().values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("status", ["403", "404", "410"])
def test_a_failed_download_is_listed_and_the_others_are_kept(board, out, status):
    board.always["/images/9.jpg"] = status
    with pytest.raises(SomeFailed, match="29 images downloaded, 1 could not"):
        go(board, out)
    whole(board, out, [i for i in range(1, 31) if i != 9])
    (row,) = read_lines(out / "failed.jsonl")
    assert row["id"] == "9" and row["stage"] == "http" and status in row["reason"] and not row["again"]
    asked = len(board.log)
    with pytest.raises(SomeFailed, match="1 images of an earlier run") as caught:  # the exit code is that of the folder
        go(board, out)
    assert len(board.log) == asked and "--retry-failed" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["retry_failed", "update"])
def test_what_failed_for_good_can_be_tried_again(board, out, flag):
    board.always["/images/9.jpg"] = "403"
    with pytest.raises(SomeFailed):
        go(board, out)
    with pytest.raises(SomeFailed, match="0 images downloaded, 1 could not"):
        go(board, out, **{flag: True})
    board.always.clear()
    go(board, out, **{flag: True})
    whole(board, out, range(1, 31))
    assert max(board.served().values()) == 1 and (out / "failed.jsonl").read_text() == ""


def test_what_failed_for_a_time_comes_with_the_next_run(board, out):
    board.always["/images/9.jpg"] = "500"
    with pytest.raises(SomeFailed):
        go(board, out)
    assert [row["again"] for row in read_lines(out / "failed.jsonl")] == [True]
    board.always.clear()
    go(board, out)
    whole(board, out, range(1, 31))
    assert list(read_lines(out / "failed.jsonl")) == []


def test_addresses_elsewhere_are_refused_and_nothing_is_asked_there(board, out):
    with Booru([Entry(5)]) as other:
        evil = {
            1: "file:///etc/passwd", 2: "http://10.0.0.1/2.jpg", 3: "http://169.254.169.254/3.jpg",
            4: f"{other.address.replace('127.0.0.1', 'localhost')}/images/5.jpg", 6: "http://[::1]/6.jpg",
            5: f"{other.address}/images/5.jpg", 7: "http://evil.example/7.jpg", 8: "http://me:word@127.0.0.1/8.jpg",
        }  # fmt: skip
        for number, url in evil.items():
            board.by_id[number].more = {"file_url": url}
        board.always["/images/9.jpg"] = f"to:{other.address}/images/5.jpg"
        board.always["/images/10.jpg"] = "to:file:///etc/passwd"
        with pytest.raises(SomeFailed, match="20 images downloaded, 10 could not"):
            go(board, out)
        assert other.log == []
    whole(board, out, range(11, 31))
    rows = list(read_lines(out / "failed.jsonl"))
    assert {row["stage"] for row in rows} == {"address"} and "word" not in (out / "failed.jsonl").read_text()


def test_names_of_the_server_are_never_names_of_files(board, out, tmp_path):
    board.by_id[1].more = {"file_url": f"{board.address}/images/1.jpg?/../../../../evil.jpg", "md5": "../" * 10 + "ab"}
    go(board, out)
    whole(board, out, range(1, 31))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


@pytest.mark.slow
def test_a_file_that_is_larger_than_allowed_fails_at_once(board, out):
    board.by_id[4].data = picture(4, (900, 900), "PNG")
    with pytest.raises(SomeFailed, match="29 images downloaded"):
        go(board, out, max_mb=0.01)
    (row,) = read_lines(out / "failed.jsonl")
    assert row["stage"] == "size" and board.served()["4"] == 1


def test_a_site_that_is_down_is_reported_and_the_crawl_continues_later(board, out):
    board.always["page"] = "503"
    with pytest.raises(InputError, match=r"safebooru cannot be read: 127\.0\.0\.1 answers 503") as caught:
        go(board, out)
    assert caught.value.code == 3 and "same command" in caught.value.hint
    board.always.clear()
    go(board, out)
    whole(board, out, range(1, 31))


@pytest.mark.slow
def test_when_all_files_fail_the_crawl_stops_and_continues_later(out):
    with Booru([Entry(i) for i in range(1, 41)], page=40) as board:
        board.always["file"] = "503"
        with pytest.raises(InputError, match="20 consecutive downloads failed"):
            go(board, out, workers=2)
        assert board.count("file") < 40 * 12
        board.always.clear()
        go(board, out)
        whole(board, out, range(1, 41))


def test_nothing_listens(out):
    with Booru([]) as board:
        pass
    with pytest.raises(InputError, match="cannot be read: no connection"):
        go(board, out)


def test_without_the_flag_this_machine_is_not_asked(board, out):
    with pytest.raises(InputError, match="not on the public internet"):
        go(board, out, allow_local=False)
    assert board.log == []


def test_the_login_is_sent_to_danbooru_and_stands_nowhere(board, out, monkeypatch, capsys):
    monkeypatch.setenv("FACEKIT_DANBOORU_LOGIN", "someone")
    monkeypatch.setenv("FACEKIT_DANBOORU_KEY", "verysecretword")
    board.always["/images/9.jpg"] = "404"
    token = console.current.set(console.Json())
    try:
        with pytest.raises(SomeFailed) as caught:
            go(board, out, "danbooru")
    finally:
        console.current.reset(token)
    sent = [("Authorization" in headers, what) for headers, (what, _, _) in zip(board.seen, board.log, strict=True)]
    assert {what for has, what in sent if has} == {"page"} and {what for has, what in sent if not has} == {"file"}
    left = (
        b"".join(p.read_bytes() for p in out.iterdir()) + capsys.readouterr().out.encode() + str(caught.value).encode()
    )
    assert b"verysecretword" not in left and b"dmVyeXNlY3JldHdvcmQ" not in left


# being polite


def test_every_request_keeps_the_pace(board, out, monkeypatch):
    waited, real = [], RateLimiter.wait
    monkeypatch.setattr(RateLimiter, "wait", lambda self, host: (waited.append((host, self.gap)), real(self, host)))
    board.planned["file"].extend(["500", "to:/images/1.jpg", "cut"])
    go(board, out, rate=5000.0, workers=6)
    assert waited == [("127.0.0.1", 1 / 5000.0)] * len(board.log)


def test_about_one_request_an_image(board, out):
    board.page = 100
    go(board, out)
    assert board.count("file") == 30 and board.count("page") <= 3
    assert all(headers["User-Agent"].startswith("facekit/") for headers in board.seen)


# kills


KILLER = """
import os, signal, sys
from facekit.storage import files
from facekit.sources import archive, http_client
http_client.FIRST_PAUSE = 0.0001
point, count = sys.argv[1], int(sys.argv[2])

def dying(real, before):
    def call(*arguments, **more):
        global count
        count -= 1
        if before and count <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **more)
        if count <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

def cut(self, entry):
    global count
    count -= 1
    import json
    line = json.dumps(entry) + "\\n"
    with open(self.folder / "manifest.jsonl", "a") as file:
        file.write(line[:20] if count <= 0 else line)
    if count <= 0:
        os.kill(os.getpid(), signal.SIGKILL)

if point == "named":
    archive.Archive._set = dying(archive.Archive._set, True)
elif point == "stored":
    archive.Archive._set = dying(archive.Archive._set, False)
elif point == "cut":
    archive.Archive.append = cut
elif point == "page stored":
    archive.Archive.add = dying(archive.Archive.add, False)
elif point == "card":
    from facekit.storage import claim
    claim.finish = dying(claim.finish, True)
from facekit.commands.crawl import crawl
crawl("safebooru", sys.argv[3], tags="solo", limit=1000, address=sys.argv[4], allow_local=True, rate=10000.0, workers=3)
"""
POINTS = ["named", "stored", "cut", "page stored", "card"]


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_loses_and_doubles_nothing(board, out, point):
    counts = {"page stored": 2, "card": 1}
    arguments = [point, str(counts.get(point, 7)), str(out), board.address]
    around = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    killed = subprocess.run([sys.executable, "-c", KILLER, *arguments], env=around, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    before = dict(board.served())
    kept = {p.name.partition("_")[0] for p in out.glob("*_*.jpg")}
    assert not (out / "card.yaml").exists() and (kept or "page" in point)
    go(board, out, workers=3)
    whole(board, out, range(1, 31))
    again = {key for key, times in board.served().items() if times > 1}
    assert not again & kept  # what had its name is not fetched again
    assert len(again) <= 3 and again <= set(before)  # only what was under way: one file for each worker


@pytest.mark.slow
def test_kills_at_any_time_lose_and_double_nothing(out, spawn):
    with Booru([Entry(i) for i in range(1, 61)], page=15) as board:
        for wanted in (20, 40):
            process = spawn.start(*command(board, out, "--quiet"))
            deadline = time.monotonic() + 60
            while len(board.served()) < wanted and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            process.kill()
            process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)
        go(board, out)
        whole(board, out, range(1, 61))
        assert sum(board.served().values()) <= 60 + 2 * 4  # at each kill, what four workers had under way


@pytest.mark.slow
def test_ctrl_c_says_how_to_continue(out, spawn):
    with Booru([Entry(i) for i in range(1, 31)], page=15) as board:
        process = spawn.start(*command(board, out, "--rate", 20))
        deadline = time.monotonic() + 60
        while len(board.served()) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and "same command again" in err
        go(board, out)
        whole(board, out, range(1, 31))


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_a_server_that_hangs(out, spawn):
    with SlowServer() as server:
        process = spawn.start("crawl", "urls", out, "--from", "-", "--allow-local", stdin=subprocess.PIPE)
        process.stdin.write(f"{server.address}/body/1.jpg\n")
        process.stdin.close()
        process.stdin = None
        assert server.asked.wait(60)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and time.monotonic() - begun < 5, err


@pytest.mark.slow
def test_a_damaged_archive_is_reported(board, out):
    go(board, out, limit=3)
    (out / NAME).write_bytes(b"rubbish" * 1000)
    with pytest.raises(InputError, match="damaged") as caught:
        go(board, out)
    assert "--force" in caught.value.hint
    go(board, out, force=True)
    whole(board, out, range(1, 31))


def test_a_missing_archive_is_reported(board, out):
    go(board, out, limit=3)
    (out / NAME).unlink()
    with pytest.raises(InputError, match="is missing"):
        go(board, out)
    go(board, out, limit=5, force=True)
    whole(board, out, range(26, 31))


def test_every_option_stands_in_the_card(board, out):
    go(board, out, limit=2, min_score=0, want="solo", without=["comic"], aspect="0.1:9")
    told = yaml.safe_load((out / "card.yaml").read_text())["options"]
    assert (told["min_score"], told["want"], told["without"], told["aspect"]) == (0, ["solo"], ["comic"], "0.1:9")


# lists and folders


def test_a_list_of_addresses_is_fetched_and_may_grow(board, out, tmp_path):
    lines = [f"{board.address}/images/{i}.jpg" for i in range(1, 6)]
    path = tmp_path / "list.txt"
    path.write_text("\n".join([*lines, lines[0], "# end"]))
    crawl("urls", out, from_=str(path), allow_local=True, rate=10_000.0)
    assert {row["md5"] for row in Folder(out).entries.values()} == {board.by_id[i].md5 for i in range(1, 6)}
    assert {row["source"] for row in Folder(out).entries.values()} == set(lines)
    path.write_text(path.read_text() + f"\n{board.address}/images/6.jpg?token=verysecretword\n")
    crawl("urls", out, from_=str(path), allow_local=True, rate=10_000.0)
    crawl("urls", out, from_=str(path), allow_local=True, rate=10_000.0)
    assert len(Folder(out).entries) == 6 and board.count("file") == 6
    assert "verysecretword" not in "".join(p.read_text() for p in out.glob("*.[jy]*l"))


def test_a_list_with_bad_addresses_gives_the_good_ones(board, out, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(
        f"{board.address}/images/1.jpg\nfile:///etc/passwd\nnonsense\nhttp://[\nhttp://me:word@127.0.0.1/x.jpg\n"
    )
    with pytest.raises(SomeFailed, match="1 images downloaded, 4 could not"):
        crawl("urls", out, from_=str(path), allow_local=True, rate=10_000.0)
    assert "word" not in (out / "failed.jsonl").read_text()


def test_a_redirect_of_a_list_stays_on_its_hosts(board, out, tmp_path):
    board.always["/images/1.jpg"] = f"to:{board.address.replace('127.0.0.1', 'localhost')}/images/2.jpg"
    path = tmp_path / "list.txt"
    path.write_text(f"{board.address}/images/1.jpg\n")
    with pytest.raises(SomeFailed):
        crawl("urls", out, from_=str(path), allow_local=True, rate=10_000.0)
    assert "--allow-host" not in (out / "failed.jsonl").read_text() and board.served() == {}
    crawl("urls", out, from_=str(path), allow_local=True, rate=10_000.0, allow_host=["localhost"], force=True)
    assert len(Folder(out).entries) == 1


def test_a_folder_is_copied_with_provenance(out, tmp_path):
    toy.fill(tmp_path / "in/x", 3, seed=1)
    toy.fill(tmp_path / "in/y", 2, seed=2)
    (tmp_path / "in/x/bad.png").write_bytes((tmp_path / "in/x/000.png").read_bytes()[:60])
    Image.open(tmp_path / "in/x/000.png").save(tmp_path / "in/y/é ü.png")
    (tmp_path / "in/y/twice.png").write_bytes((tmp_path / "in/x/000.png").read_bytes())
    with pytest.raises(SomeFailed, match="1 could not"):
        crawl("local", out, from_=str(tmp_path / "in"))
    rows = Folder(out).entries
    came = {row["copied_from"] for row in rows.values()}
    assert {"x/001.png", "x/002.png", "y/000.png", "y/001.png"} <= came and set(rows) == set(Folder(out).names)
    assert len(came) == 5  # equal bytes once
    for name, row in rows.items():
        assert (out / name).read_bytes() == (tmp_path / "in" / row["copied_from"]).read_bytes()
    assert Path(next(iter(rows))).parent.as_posix() in "xy"
    toy.fill(tmp_path / "in/z", 1, seed=3)
    with pytest.raises(SomeFailed):
        crawl("local", out, from_=str(tmp_path / "in"))
    assert len(Folder(out).entries) == 6


def test_a_folder_into_itself_is_refused(tmp_path):
    toy.fill(tmp_path / "in", 1)
    with pytest.raises(CardError, match="both input and output"):
        crawl("local", tmp_path / "in", from_=str(tmp_path / "in"))


# the command line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("safeboru OUT --tags x --limit 1", "did you mean 'safebooru'"), ("safebooru OUT --limit 1", "--tags"),
        ("safebooru OUT --tags x", "--limit"), ("urls OUT", "--from"), ("local OUT --from x --tags y", "for boards"),
        ("danbooru OUT --tags x --limit 1 --from y", "--from is for"),
        ("danbooru OUT --tags 'a b c' --limit 1", "2 tags"),
        ("danbooru OUT --tags x --limit 1 --rating safe", "not one of general"),
        ("danbooru OUT --tags x --limit 1 --types mp4", "not one of jpg"),
        ("danbooru OUT --tags x --limit 1 --aspect wide", "LOW:HIGH"),
        ("danbooru OUT --expression smirk --limit 1", "not a preset"),
        ("danbooru OUT --tags order:score --limit 1", "order"),
        ("danbooru OUT --tags x --limit 0", "--limit"), ("danbooru OUT --tags x --limit 1 --rate 0", "--rate"),
    ],
)  # fmt: skip
def test_wrong_usage_is_reported_before_any_request(facekit, out, line, words):
    import shlex

    done = facekit("crawl", *(str(out) if word == "OUT" else word for word in shlex.split(line)))
    assert done.code == 2 and words in done.err and not out.exists()


def test_a_missing_list_is_exit_3(facekit, out):
    assert facekit("crawl", "urls", out, "--from", "nowhere.txt").code == 3


def test_the_command_counts_and_its_card_repeats_it(facekit, board, out):
    done = facekit(*command(board, out))
    assert done.code == 0, done.err
    assert "crawl 30/" in done.err and "MB/s" in done.err and "requests" in done.err
    again = facekit("crawl", "--card", out / "card.yaml")
    assert again.code == 0 and "nothing to do" in again.err


def test_json_is_one_object_a_line(facekit, board, out):
    board.always["/images/9.jpg"] = "404"
    done = facekit(*command(board, out, "--json"))
    events = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 4 and {event["event"] for event in events} == {"note", "warning", "progress", "error"}


@pytest.mark.slow
def test_help_needs_no_network_library(spawn):
    code = "import sys; from facekit.cli import main\ntry: main()\nfinally: assert 'requests' not in sys.modules"
    around = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code, "crawl", "--help"], env=around, capture_output=True, text=True)
    assert done.returncode == 0 and "--expression" in done.stdout, done.stderr


def test_control_characters_never_reach_the_terminal_or_the_lists(facekit, board, out):
    board.by_id[9].more = {
        "tags": "solo \x1b[2Jred",
        "source": "a\x1b]0;owned\x07\x9b2J\u202eb",
        "file_url": "http://\x1b[31m.org/",
    }
    done = facekit("crawl", "danbooru", *command(board, out)[2:])
    left = done.out + done.err + "".join(p.read_text() for p in out.glob("*.[jy]*l"))
    assert done.code == 4 and not any(c in left for c in "\x1b\x07\x9b\u202e")
