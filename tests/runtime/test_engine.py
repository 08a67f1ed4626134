"""The choice between this machine and a cluster, as far as it shows without Ray."""

import pickle
import sys

import pytest

import toy
from facekit.errors import CardError, MissingError, OutputError
from facekit.runtime import engine, ray_cluster, workers
from facekit.runtime.engine import Engine
from facekit.runtime.ray_worker import Worker, seen, versions
from facekit.storage import files
from facekit.storage.folder import open_source, output_names
from facekit.storage.folder_work import Piece
from facekit.storage.manifest import Output


def test_an_engine_that_is_not_installed_is_named_with_the_line_that_installs_it(facekit, tmp_path, monkeypatch):
    toy.fill(tmp_path / "in", 2)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(ray_cluster, "QUIET", {})
    done = facekit("smooth-edges", tmp_path / "in", tmp_path / "out", "--engine", "ray")
    assert done.code == 5 and "this needs ray" in done.err and "pip install 'facekit-anime[ray]'" in done.err
    assert facekit("smooth-edges", tmp_path / "in", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "spark"}, "no engine"),
        ({"address": "auto"}, "--address is of a cluster"),
        ({"gpus": 0.5}, "--gpu-share is of a cluster"),
        ({"name": "ray", "gpus": 1.5}, "no share"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(given, said):
    with pytest.raises(CardError, match=said):
        Engine(**given)


def test_an_address_without_the_engine_is_a_usage_error(facekit, tmp_path):
    toy.fill(tmp_path / "in", 1)
    done = facekit("smooth-edges", tmp_path / "in", tmp_path / "out", "--address", "head:6379")
    assert done.code == 2 and "--engine ray" in done.err


class NoRay:
    """Ray where no connection comes about."""

    is_initialized = staticmethod(lambda: False)
    shutdown = staticmethod(lambda: None)

    def __init__(self, said):
        self.said = said

    def init(self, **given):
        raise RuntimeError(self.said)


@pytest.mark.parametrize(
    ("address", "said", "error", "words"),
    [
        ("ray://head:10001", "", CardError, "Ray Client"),
        ("auto", "Could not find any running Ray instance.", MissingError, "no Ray cluster answers at auto: Could not"),
        ("auto", "Version mismatch: the cluster has Ray: 2.9", MissingError, "runs other versions: .*2.9"),
        ("auto", "InvalidAuthToken: Authentication token is missing", MissingError, "asks for a token"),
        ("127.0.0.1:9", "", MissingError, "127.0.0.1:9: .*refused"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_an_error_that_says_why(monkeypatch, address, said, error, words):
    monkeypatch.setattr(ray_cluster, "load", lambda: NoRay(said))
    with pytest.raises(error, match=words) as found, ray_cluster.connected(address):
        pass
    assert found.value.hint


def test_gpus_are_taken_where_the_work_can_use_them(monkeypatch):
    monkeypatch.setattr(ray_cluster, "resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    assert ray_cluster.gpus(None, "auto") == 1 and ray_cluster.gpus(None, "cpu") == 0
    assert ray_cluster.gpus(0.25, "auto") == 0.25 and ray_cluster.gpus(0, "auto") == 0
    monkeypatch.setattr(ray_cluster, "resources", lambda: {"CPU": 8.0})
    assert ray_cluster.gpus(None, "auto") == 0
    for share, device in ((0.5, "auto"), (None, "cuda")):
        with pytest.raises(CardError, match="the cluster has 0"):
            ray_cluster.gpus(share, device)


def test_workers_are_as_asked_or_all_cores_and_a_cluster_decides_itself(monkeypatch):
    monkeypatch.setattr(engine, "usable_cores", lambda: 4)
    assert [Engine().workers(None, count) for count in (5, 100)] == [1, 4]
    assert [Engine().workers(3, count) for count in (2, 100)] == [2, 3]
    assert Engine("ray").workers(None, 100) == 0 and Engine("ray").workers(3, 100) == 3


def test_a_cluster_gets_larger_pieces_but_some_for_every_worker():
    class Cluster:
        count = 3

    assert workers.piece_size(None, 1000, 4) == 4
    assert workers.piece_size(Cluster(), 1000) == workers.PIECE
    assert workers.piece_size(Cluster(), 60) == 5 and workers.piece_size(Cluster(), 2) == 1
    assert workers.piece_size(Cluster(), 60, 32) == 32


def test_a_worker_says_what_it_does_not_see_and_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("facekit.runtime.ray_worker.PATIENCE", 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("four")
    wanted = [seen("here.txt"), seen(tmp_path), (str(tmp_path / "here.txt"), 5), (str(tmp_path / "gone"), None)]
    machine, its, missing = Worker(str(tmp_path), {}).hello(wanted)
    assert machine and its == versions() and its["torch"][0].isdigit()
    assert missing == [str(tmp_path / "here.txt"), str(tmp_path / "gone")]
    assert Worker(str(tmp_path / "other"), {}).hello([])[2] == [str(tmp_path / "other")]


def test_output_names_travel_without_those_that_follow_from_the_source(tmp_path):
    toy.fill(tmp_path, 300)
    toy.picture().save(tmp_path / "000.jpg")
    names = output_names(open_source(tmp_path))
    sent = pickle.dumps(names)
    assert len(sent) < 400
    arrived = pickle.loads(sent)
    assert {source: arrived[source] for source in names} == names and len(arrived) == 2


def test_a_piece_of_work_writes_under_temporary_names_and_tells_only_these(tmp_path):
    found = open_source(toy.fill(tmp_path / "in", 3))
    (tmp_path / "in/001.png").write_text("broken")
    rows = Piece(toy.turn, batch=2, out=tmp_path / "out")(found)
    assert [type(images) for _, images in rows][1] is not list
    for source, (stamp, images) in zip(found[::2], rows[::2], strict=True):
        assert stamp == source.stamp()
        (image,) = images
        assert image.data.parent == tmp_path / "out" and image.data.name.startswith(".facekit-")
        assert image.data.read_bytes() == toy.turn(source)[0].data
    files.put(tmp_path / "out/a.png", rows[0][1][0].data)
    assert len(list((tmp_path / "out").iterdir())) == 2
    files.sweep(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_one_image_that_fails_in_a_batch_fails_alone(tmp_path):
    found = open_source(toy.fill(tmp_path / "in", 3))

    def together(group):
        if any(source.name == "001.png" for source, _ in group):
            raise ValueError("not this one")
        return [made for _, made in group]

    rows = Piece(toy.turn, together, batch=3)(found)
    assert [str(images) if isinstance(images, Exception) else images[0].name for _, images in rows] == [
        "000.png", "not this one", "002.png",
    ]  # fmt: skip


def test_a_piece_that_cannot_be_written_is_an_error_not_a_failed_image(tmp_path):
    found = open_source(toy.fill(tmp_path / "in", 1))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="a file is where a folder should be"):
        Piece(lambda source: [Output(source.name, b"x")], out=tmp_path / "out")(found)
