"""A real Ray cluster of three nodes on this machine: equal to the local pool, and nothing is lost when a part dies."""

import functools
import os
import threading
import time

import pytest

import toy
from facekit.errors import MissingError, OutOfMemory
from facekit.runtime import ray_pool as pools
from facekit.runtime.engine import Engine
from facekit.runtime.workers import in_order, pool_of
from facekit.storage.folder import open_source, output_names
from facekit.storage.folder_map import folder_map
from facekit.storage.jsonl import read_lines

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow

VALUES = {"facekit": 1, "command": "turn"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with 40 pictures and a broken one."""
    monkeypatch.chdir(tmp_path)
    toy.fill(tmp_path / "in", 40)
    (tmp_path / "in/007.png").write_text("broken")
    return tmp_path


def slowly(source, seconds=0.25):
    """Turn an image upside down, and take some time over it."""
    time.sleep(seconds)
    return toy.turn(source)


def name_all(group, names):
    """Give images the names that the folder has for them."""
    return [[type(made)(names[source.name], made.data, made.entry) for made in images] for source, images in group]


def run(here, out, work=toy.turn, **options):
    """Map the folder, and pass over the images that fail."""
    from facekit.errors import SomeFailed

    found = open_source(here / "in", here / out)
    names = output_names(found)
    together = functools.partial(name_all, names=names)
    with pytest.raises(SomeFailed, match="1 of 40 sources failed"):
        folder_map("turn", found, here / out, VALUES, work, together, names=names, **options)


def contents(folder):
    """All files of an output folder but its card, which has times in it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "card.yaml")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_cluster_writes_what_this_machine_writes_byte_for_byte(cluster, here):
    run(here, "local", workers=2, processes=True)
    run(here, "ray", engine=Engine("ray", cluster.address))
    assert contents(here / "local") == contents(here / "ray") and len(contents(here / "ray")) == 41
    run(here, "batches", engine=Engine("ray", cluster.address), batch=7, workers=2)
    assert contents(here / "local") == contents(here / "batches")


def test_a_node_that_dies_loses_and_doubles_nothing(cluster, here, capsys):
    run(here, "local", workers=2, processes=True)
    node = cluster.add()
    manifest = here / "ray/manifest.jsonl"
    removed = []

    def remove():
        while not manifest.exists() or len(list(read_lines(manifest))) < 4:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        removed.append(len(list(read_lines(manifest))))

    killer = threading.Thread(target=remove)
    killer.start()
    run(here, "ray", slowly, engine=Engine("ray", cluster.address), workers=4)
    killer.join()
    assert removed[0] < 30  # in the middle
    assert contents(here / "local") == contents(here / "ray")
    names = [row["file"] for row in read_lines(manifest)]
    assert len(names) == len(set(names)) == 39
    assert capsys.readouterr().out == ""  # which is for results


def kill_once(source, mark):
    """Kill the worker over one image, the first time."""
    if source.name == "005.png" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return toy.turn(source)


def test_a_worker_that_is_killed_once_is_replaced(cluster, here):
    run(here, "local", workers=2, processes=True)
    work = functools.partial(kill_once, mark=here / "mark")
    run(here, "ray", work, engine=Engine("ray", cluster.address))
    assert (here / "mark").exists() and contents(here / "local") == contents(here / "ray")


def always_killed(number):
    os.kill(os.getpid(), 9)


def test_work_that_kills_every_worker_ends_in_the_error_of_memory(cluster):
    engine = Engine("ray", cluster.address)
    with pytest.raises(OutOfMemory, match="3 workers were killed") as found, pool_of(0, True, engine) as pool:
        list(in_order(pool, always_killed, [1], 2))
    assert "fewer --workers" in found.value.hint


def test_a_worker_killed_for_memory_ends_in_the_documented_error(here, spawn):
    limits = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    toy.fill(here / "in", 40)
    done = spawn("smooth-edges", here / "in", here / "out", "--engine", "ray", env=limits)
    assert done.code == 7 and "because memory ran out" in done.err and "fewer --workers" in done.err
    assert spawn("smooth-edges", here / "in", here / "out").code == 0
    assert len(list((here / "out").glob("*.png"))) == 40


def test_the_same_command_goes_on_after_its_driver_was_killed(cluster, here, spawn):
    toy.fill(here / "in", 160)
    assert spawn("smooth-edges", "in", "local").code == 0
    command = ("smooth-edges", "in", "ray", "--engine", "ray", "--address", cluster.address)
    driver = spawn.start(*command)
    manifest = here / "ray/manifest.jsonl"
    while not manifest.exists() or len(list(read_lines(manifest))) < 3:
        time.sleep(0.01)
        assert driver.poll() is None
    driver.kill()
    driver.communicate()
    before = len(list(read_lines(manifest)))
    assert before < 160
    done = spawn(*command)
    assert done.code == 0 and any(f"{kept} done before" in done.err for kept in (before, before - 1))
    assert contents(here / "local") == contents(here / "ray")


def megabyte(source):
    """Make an image of a megabyte."""
    (made,) = toy.turn(source)
    return [type(made)(made.name, made.data + bytes(2**20), made.entry)]


def test_images_do_not_pass_through_the_object_store(cluster, here):
    from ray._private.internal_api import memory_summary

    run(here, "ray", megabyte, engine=Engine("ray", cluster.address))
    assert sum(map(len, contents(here / "ray").values())) > 39 * 2**20
    with Engine("ray", cluster.address).connected():
        said = memory_summary(cluster.address, stats_only=True)
    assert "Spilled" not in said and "Plasma memory usage 0 MiB" in said


def test_a_driver_takes_no_more_ahead_than_it_says(cluster):
    taken = []

    def numbers():
        for number in range(200):
            taken.append(number)
            yield number

    with pool_of(0, True, Engine("ray", cluster.address)) as pool:
        assert pool.count == 3 and pool.ahead == pools.AHEAD * 3
        for done, (number, result) in enumerate(in_order(pool, abs, numbers(), 4)):
            assert number == result == done and len(taken) <= done + 1 + pool.ahead


def test_what_work_raises_comes_back_as_it_is(cluster):
    engine = Engine("ray", cluster.address)
    with pytest.raises(MissingError, match="weights") as found, pool_of(1, True, engine) as pool:
        list(in_order(pool, missing, [1], 2))
    assert found.value.hint == "look"


def missing(number):
    raise MissingError("no weights", "look")


def test_a_path_that_workers_cannot_see_is_an_error_before_any_work(cluster, here, monkeypatch):
    gone = here / "only-here.txt"
    gone.write_text("x")
    monkeypatch.setattr(pools, "seen", lambda path: (str(path), 10**9))  # as if the driver saw another file
    monkeypatch.setattr("facekit.runtime.ray_worker.PATIENCE", 0)
    engine = Engine("ray", cluster.address).seeing(gone)
    with pytest.raises(MissingError, match=r"does not see .*only-here") as found, pool_of(1, True, engine) as pool:
        list(in_order(pool, abs, [1], 2))
    assert "same path" in found.value.hint


def test_versions_that_differ_are_an_error_that_names_both(cluster, monkeypatch):
    monkeypatch.setattr(pools, "versions", lambda: {"python": "3.11", "facekit-anime": "9.9"})
    with (
        pytest.raises(MissingError, match=r"facekit-anime \S+ \(here 9.9\)") as found,
        pool_of(1, True, Engine("ray", cluster.address)) as pool,
    ):
        list(in_order(pool, abs, [1], 2))
    assert "same versions" in found.value.hint
