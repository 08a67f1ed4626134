"""Training on a real Ray cluster of this machine: to the bit what `torchrun` trains, whatever dies on the way."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import toy
from facekit.runtime import ray_group
from support import eventually

LONGEST = 900  # s of a test: processes that import torch take long to start on a busy machine
TESTS = Path(toy.__file__).parent
METHOD = '''
"""A toy method whose second process does what files beside it ask for, at step 3."""
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, {tests!r})
import toy
from facekit.errors import InputError
from facekit.recipe_api.base import term

HERE = Path(__file__).parent


def asked(name):
    """Whether a file asks for something, which is done once."""
    if os.environ.get("RANK") != "1" or not (HERE / name).exists():
        return False
    (HERE / name).unlink()
    return True


class AskedScene(toy.ToyScene):
    """A scene of a process that may be killed, may fail, or takes its time."""

    @term("D")
    def judge(self):
        """Tell real from translated."""
        if self.step == 3 and asked("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.step == 3 and asked("fail"):
            raise InputError("photo 7 is cut short", "fetch it again")
        if self.step == 3 and (HERE / "where").exists():
            import ray

            (HERE / f"node{{os.environ['RANK']}}").write_text(ray.get_runtime_context().get_node_id())
            time.sleep(120)
        if self.step and (HERE / "slow").exists():  # not while memory is estimated
            time.sleep(3)
        return toy.ToyScene.judge(self)


class Asked(toy.Toy):
    """A toy that obeys."""

    Scene = AskedScene
    presets = {{"asked": {{}}}}
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a method and data."""
    made = tmp_path_factory.mktemp("place")
    (made / "method.py").write_text(METHOD.format(tests=str(TESTS)))
    toy.domains(made / "data", 8)
    return made


@pytest.fixture(autouse=True)
def quiet(place):
    """Nothing is asked of the method that a test does not ask for, and no test takes for ever."""

    def too_long(number, frame):
        raise TimeoutError(f"{LONGEST} s")

    bounded = hasattr(signal, "SIGALRM")  # not on Windows
    if bounded:
        before = signal.signal(signal.SIGALRM, too_long)
        signal.alarm(LONGEST)
    yield
    if bounded:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    for name in ("kill", "fail", "slow", "where"):
        (place / name).unlink(missing_ok=True)


def line(place, out, *more):
    """The arguments of a training of two processes that ends at step 6, saved at every second step."""
    words = ("train", place / "method.py", "--data", place / "data", "--out", place / out, *more)
    return [str(word) for word in words]


def on(cluster, *more):
    """The flags that train with two workers of a cluster."""
    return ("--engine", "ray", "--address", cluster.address, "--workers", "2", *more)


@pytest.fixture(scope="module")
def whole(place):
    """What two processes of `torchrun` have trained, undisturbed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "facekit"]
    path = os.pathsep.join([str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    around = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([*command, *line(place, "whole")], env=around, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return contents(place / "whole")


def contents(run):
    """What a run folder holds that must be equal to the bit, and the names of its files."""
    rows = [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]
    previews = [(run / f"previews/{step:08d}.png").read_bytes() for step in (2, 4, 6)]  # a stop adds one of its step
    return (run / "model.safetensors").read_bytes(), rows, previews, sorted(path.name for path in run.iterdir())


@pytest.fixture(scope="module")
def undisturbed(cluster, place, facekit):
    """A training on the cluster: what it said."""
    return facekit(*line(place, "ray", *on(cluster)))


@pytest.mark.slow
def test_workers_train_to_the_bit_what_torchrun_trains(undisturbed, place, whole):
    assert undisturbed.code == 0, undisturbed.err
    assert contents(place / "ray") == whole
    assert len(whole[1]) == 6


@pytest.mark.slow
def test_the_command_says_what_a_plain_one_says_and_stdout_is_the_result_alone(undisturbed, place):
    assert undisturbed.out == f"{place / 'ray' / 'model.safetensors'}\n"
    for said in ("2 workers of 1 core", "train: starting, 6 steps", "train 6/6", "train: done, look at"):
        assert said in undisturbed.err
    assert undisturbed.err.count("train: starting") == 1


@pytest.mark.slow
def test_a_finished_run_needs_no_cluster(undisturbed, facekit, place):
    done = facekit(*line(place, "ray", "--engine", "ray", "--address", "127.0.0.1:9"))
    assert done.code == 0 and "nothing to do" in done.err


@pytest.mark.slow
def test_a_worker_that_is_killed_makes_all_go_on_from_the_last_save_to_the_same_bits(cluster, facekit, place, whole):
    (place / "kill").touch()
    done = facekit(*line(place, "killed", *on(cluster, "--force")))
    assert done.code == 0, done.err
    assert not (place / "kill").exists()
    assert "a worker is gone" in done.err and "continuing from step 2" in done.err
    assert contents(place / "killed") == whole


@pytest.mark.slow
def test_a_machine_that_dies_makes_all_go_on_from_the_last_save_to_the_same_bits(cluster, facekit, place, whole):
    cluster.add()
    (place / "where").touch()
    notes = [place / "node0", place / "node1"]
    removed = []

    def remove():
        if eventually(lambda: all(note.exists() and note.read_text() for note in notes), LONGEST / 2):
            named = [note.read_text() for note in notes]
            node = next(one for one in cluster.worker_nodes if one.node_id in named)
            (place / "where").unlink()
            cluster.remove_node(node, allow_graceful=False)
            removed.append(node)

    killer = threading.Thread(target=remove)
    killer.start()
    done = facekit(*line(place, "moved", *on(cluster)))
    killer.join()
    assert removed and done.code == 0, done.err
    assert "a worker is gone" in done.err and "continuing from step 2" in done.err
    assert contents(place / "moved") == whole


@pytest.mark.slow
def test_an_error_in_one_worker_is_the_error_of_the_command(cluster, facekit, place):
    (place / "fail").touch()
    done = facekit(*line(place, "failed", *on(cluster)))
    assert done.code == 3
    assert "error: photo 7 is cut short\n  next: fetch it again" in done.err
    assert "Traceback" not in done.err and "continuing" not in done.err
    assert not list((place / "failed").glob(".facekit*"))


@pytest.mark.slow
def test_a_path_that_workers_do_not_see_is_named_with_their_machine(cluster, facekit, place, monkeypatch):
    seen = ray_group.seen
    monkeypatch.setattr(
        ray_group, "seen", lambda path: (seen(path)[0], 10**9 if "data" in str(path) else seen(path)[1])
    )
    done = facekit(*line(place, "unseen", *on(cluster)))
    assert done.code == 5
    assert f"does not see {place / 'data'}" in done.err and "the worker on" in done.err and "same path" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_goes_on_to_the_same_bits(cluster, facekit, spawn, place, whole, number):
    (place / "slow").touch()
    out = place / number.name
    driver = spawn.start(*line(place, number.name, *on(cluster)))
    said = []
    reader = threading.Thread(target=lambda: said.extend(driver.stderr), daemon=True)
    reader.start()
    try:
        assert eventually(lambda: (out / "state.pt").exists() or driver.poll() is not None, 500), said
        driver.send_signal(number)
        code = driver.wait(120)
    finally:
        driver.kill()
    reader.join(10)
    if number != signal.SIGKILL:
        assert code == 130, said
        assert any("saved" in row and "stopped at step" in row for row in said), said
        assert not list(out.glob(".facekit*"))
    (place / "slow").unlink()
    done = facekit(*line(place, number.name, *on(cluster)))
    assert done.code == 0, done.err
    assert "continuing from step" in done.err
    assert contents(out) == whole


def test_workers_get_a_gpu_each_or_the_cores_that_fit():
    two = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 2.0}]
    choose = ray_group.choose
    assert choose(None, None, 1, two, 12) == ray_group.Group(4, 2, 1)
    assert choose(None, None, 0, two, 12) == ray_group.Group(1, 8, 0)
    assert choose(2, None, 0, two, 12) == ray_group.Group(2, 4, 0)
    assert choose(2, None, 0, two, 3) == ray_group.Group(2, 1, 0)  # another job has the others
    assert choose(3, 2, 0, two, 12) == ray_group.Group(3, 2, 0)
    assert choose(None, None, 0.5, two, 12) == ray_group.Group(1, 8, 0.5)
    assert choose(9, None, 1, [], 0) == ray_group.Group(9, 1, 1)  # an autoscaler may bring machines
    for workers, share in ((2, 0.5), (1, 2)):
        with pytest.raises(ray_group.CardError, match="--gpu-share"):
            choose(workers, None, share, two, 12)


@pytest.mark.parametrize(
    ("flags", "around", "said"),
    [
        (("--workers", "2"), {}, "--workers are of a cluster"),
        (("--engine", "ray"), {"WORLD_SIZE": "2"}, "leave out torchrun"),
        (("--engine", "ray", "--device", "cuda:1"), {}, "the cluster chooses the GPU"),
        (("--engine", "ray", "--out", "s3://bucket/run"), {}, "a folder that all of them see"),
        (("--gpu-share", "0.5"), {}, "--gpu-share is of a cluster"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(facekit, place, monkeypatch, flags, around, said):
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    done = facekit(*line(place, "refused", *flags))
    assert done.code == 2 and said in done.err
    assert not (place / "refused").exists()


def test_a_dry_run_asks_no_cluster(facekit, place):
    done = facekit(*line(place, "dry", "--engine", "ray", "--address", "127.0.0.1:9", "--dry-run"))
    assert done.code == 0 and "recipe:" in done.out
    assert not (place / "dry").exists()


def test_without_ray_the_line_that_installs_it_is_named(facekit, place, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = facekit(*line(place, "without", "--engine", "ray"))
    assert done.code == 5 and "pip install 'facekit-anime[ray]'" in done.err
    assert not (place / "without").exists()
