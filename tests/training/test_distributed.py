"""Several processes train what one would: two gloo processes on the CPU against one, in double precision."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import toy
from facekit.errors import FacekitError
from facekit.runtime import distributed
from support import eventually

TESTS = Path(toy.__file__).parent
METHOD = '''
"""A toy method; with STOP set, its second process has the launcher stopped at step 2, as a cluster's queue does.

With KILL set, a file, the second process is killed there, once. With SLOW set, steps take time, and each process notes
its number.
"""
import os
import signal
import sys
import time

sys.path.insert(0, {tests!r})
import toy
from facekit.recipe_api.base import term


def stop_the_launcher():
    """Return when its signal has come back to us."""
    told, came = signal.getsignal(signal.SIGTERM), []
    signal.signal(signal.SIGTERM, lambda *what: (came.append(what), told(*what)))
    os.kill(os.getppid(), signal.SIGTERM)
    while not came:
        time.sleep(0.01)


class StopScene(toy.ToyScene):
    """Draws nothing: random numbers come per image, and so differently in a batch of another size."""

    noise = None

    @term("D")
    def judge(self):
        """Tell real from translated."""
        if self.step == 2 and os.environ.get("STOP") and os.environ["RANK"] == "1":
            stop_the_launcher()
        if os.environ.get("SLOW") and self.step:  # not while memory is estimated
            time.sleep(0.1)
            with open(os.environ["SLOW"] + os.environ["RANK"], "w") as file:
                file.write(str(os.getpid()))
        killed = os.environ.get("KILL")
        if self.step == 2 and killed and os.environ["RANK"] == "1" and not os.path.exists(killed):
            open(killed, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return toy.ToyScene.judge(self)


class Stop(toy.Toy):
    """A toy that may be stopped."""

    Scene = StopScene
    presets = {{"stop": {{}}}}
'''
SEVERAL = '''
"""Runs several command lines one after the other, up to the first that fails."""
import json
import sys

from facekit.cli import app

for line in json.loads(sys.argv[1]):
    print("$", *line, file=sys.stderr)
    try:
        app(line, prog_name="facekit")
    except SystemExit as end:
        if end.code:
            raise
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("distributed")
    toy.domains(root / "data")
    (root / "method.py").write_text(METHOD.format(tests=str(TESTS)))
    (root / "several.py").write_text(SEVERAL)
    return root


def line(place, out, batch, *more):
    """The arguments of a training."""
    exact = ("--set", "run.precision=fp64", "--set", "run.accumulate=2", "--steps", 4, "--batch", batch)
    words = ("train", place / "method.py", "--data", place / "data", "--out", place / out, *exact, *more)
    return [str(word) for word in words]


def torchrun(*arguments, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    path = os.pathsep.join([str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    around = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run(command, env=around, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def stopped(place):
    """Two processes whose launcher got SIGTERM; what they said, and the state that they left."""
    done = torchrun("-m", "facekit", *line(place, "two", 2), STOP="1")
    left = {path.name for path in (place / "two").rglob("*") if path.is_file()}
    return done, torch.load(place / "two" / "state.pt", weights_only=True)["step"], left


@pytest.fixture(scope="module")
def later(place, stopped):
    """What two processes said in three more starts: one that goes on, the same again, and one of another card."""
    lines = [line(place, "two", 2), line(place, "two", 2), line(place, "two", 2, "--lr", 1)]
    return torchrun(str(place / "several.py"), json.dumps(lines))


@pytest.mark.slow
def test_a_stopped_launcher_makes_all_save_once(stopped):
    done, step, left = stopped
    assert done.returncode != 0 and step == 3
    assert "stopped at step 3, saved" in done.stderr
    assert "00000003.png" in left and "card.yaml" not in left and not any(name.endswith(".part") for name in left)


@pytest.mark.slow
def test_two_processes_stopped_on_the_way_equal_one(place, later, facekit):
    assert facekit(*line(place, "one", 4)).code == 0
    tensors = []
    for run in (place / "one", place / "two"):
        state = torch.load(run / "state.pt", weights_only=True)
        tensors.append({**state["nets"], **state["ema"], **load_file(run / "model.safetensors")})
    torch.testing.assert_close(*tensors, atol=1e-9, rtol=0)
    rows = [[json.loads(row) for row in (place / run / "log.jsonl").read_text().splitlines()] for run in ("one", "two")]
    for one, two in zip(*rows, strict=True):
        assert one["step"] == two["step"]
        assert one["losses"] == pytest.approx(two["losses"], abs=1e-9)


def two_agents(place, *arguments, **environment):
    """Run as on two machines of one process each, which find each other at an address; returns codes and errors."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *meeting]
    path = os.pathsep.join([str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    around = {**os.environ, "PYTHONPATH": path, **environment}
    said = [place / f"agent{number}.log" for number in range(2)]
    agents = []
    try:
        for log in said:
            with log.open("w") as file:
                how = {"env": around, "stdout": subprocess.DEVNULL, "stderr": file}
                agents.append(subprocess.Popen([*command, *arguments], **how))
        codes = [agent.wait(240) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    return codes, "".join(log.read_text() for log in said)


@pytest.mark.slow
def test_a_killed_process_of_two_machines_is_started_again_and_the_run_ends_as_undisturbed(place, later):
    saving = ("--set", "run.save_every=1", "--force")  # forced, it must not begin anew each time
    run = ("--max-restarts", "1", "-m", "facekit", *line(place, "killed", 2, *saving))
    codes, said = two_agents(place, *run, KILL=str(place / "was-killed"))
    assert codes == [0, 0], said
    assert "continuing from step 2" in said
    killed, whole = (load_file(place / name / "model.safetensors") for name in ("killed", "two"))
    assert killed.keys() == whole.keys() and all(torch.equal(killed[name], whole[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_processes_save_and_end_when_their_launcher_is_killed(place):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "facekit"]
    path = os.pathsep.join([str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    notes = [place / f"slow{rank}" for rank in "01"]
    around = {**os.environ, "PYTHONPATH": path, "SLOW": str(place / "slow")}
    line_of = [*line(place, "orphans", 2), "--steps", "5000"]
    launcher = subprocess.Popen([*command, *line_of], env=around, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: all(note.exists() and note.read_text() for note in notes), 120)
    finally:
        launcher.kill()
        launcher.wait()
    ranks = [int(note.read_text()) for note in notes]
    assert eventually(lambda: not any(map(alive, ranks)), 60)
    assert (place / "orphans" / "state.pt").exists() and not (place / "orphans" / "card.yaml").exists()


def test_those_who_ask_meet_the_first_of_their_own_start(monkeypatch):
    store = torch.distributed.HashStore()
    store.set("facekit/asked/1", "of a process that died")
    store.add("facekit/asking", 2)  # the second died before it said its name
    with ThreadPoolExecutor(3) as pool:
        for _ in range(2):  # two starts with the same store
            names = [future.result(30) for future in [pool.submit(distributed._meet, store, n, 3) for n in (2, 0, 1)]]
            assert len(set(names)) == 1
    monkeypatch.setattr(distributed, "PATIENCE", 0.2)
    for number in (0, 1):
        with pytest.raises(FacekitError, match="did not start"):
            distributed._meet(torch.distributed.HashStore(), number, 2)


def alive(process):
    """Whether a process still runs: one that has ended may be listed until somebody asks for its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_only_the_first_process_speaks(later):
    said = later.stderr
    assert said.count("continuing from step 3") == said.count("train: done") == 1


@pytest.mark.slow
def test_a_finished_run_is_left_alone_by_all(later):
    assert later.stderr.count("nothing to do") == 1


@pytest.mark.slow
def test_a_refusal_in_the_first_process_ends_all_and_is_the_error_to_read(later):
    said = later.stderr
    assert later.returncode != 0
    assert "another card: optim.lr: 0.0002 -> 1.0" in said
    assert "this is a bug" not in said


@pytest.mark.slow
@pytest.mark.parametrize("started_before", [False, True])  # as Ray Train starts the group
def test_the_error_of_one_process_reaches_the_others(tmp_path, started_before):
    script = tmp_path / "two.py"
    script.write_text(
        "import torch\n"
        f"if {started_before}:\n"
        "    torch.distributed.init_process_group('gloo')\n"
        "from facekit.errors import InputError\n"
        "from facekit.runtime import distributed\n"
        "device = distributed.start('cpu')\n"
        "with distributed.failing_together():\n"
        "    distributed.any_of(False, device)\n"
        "    if distributed.rank() == 1:\n"
        "        raise InputError('photo 7 is cut short', 'fetch it')\n"
        "    distributed.average_gradients([])\n"
        "    distributed.gather(torch.zeros(1))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = os.pathsep.join([str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    around = {**os.environ, "PYTHONPATH": path, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [
        subprocess.Popen([sys.executable, script], env={**around, "RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    first, _ = (process.communicate(timeout=120)[1] for process in both)
    assert "PeerFailed: another process of this run has failed: process 1: photo 7 is cut short" in first


READS = '''
"""Reads three passes over eight images, and says which this process has decoded and what the batches were."""
import sys
from pathlib import Path

import torch

from facekit.data import loader
from facekit.data.loader import Batches
from facekit.data.reader import Reader
from facekit.runtime import distributed

decoded = []


class Noting(Reader):
    def read(self, path, size):
        decoded.append(path.name)
        return super().read(path, size)


distributed.start("cpu")
loader.available_memory = lambda: 10**7 * (1 + distributed.rank())  # it changes from one look to the next
root, out, batch = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
batches = Batches.of({"a": sorted(root.iterdir())}, 10, {"a": Noting("a")}, seed=0, batch=batch, size=8)
seen = []
for step in range(6):
    distributed.barrier()
    seen += [batches(step)[0]["a"]]
torch.save({"decoded": decoded, "seen": torch.stack(seen)}, out / f"{distributed.size()}-{distributed.rank()}.pt")
'''


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="processes share decoded images on Linux alone")
def test_two_processes_decode_an_image_once_between_them_and_see_what_one_sees(tmp_path):
    toy.fill(tmp_path / "faces", 8, size=12)
    (tmp_path / "reads.py").write_text(READS)
    words = (str(tmp_path / "reads.py"), str(tmp_path / "faces"), str(tmp_path))
    done = torchrun(*words, "2")
    assert done.returncode == 0, done.stderr
    path = os.pathsep.join([str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, *words, "4"], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=240)
    first, second, one = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("2-0", "2-1", "1-0"))
    names = sorted(path.name for path in (tmp_path / "faces").iterdir())
    assert sorted(first["decoded"] + second["decoded"]) == sorted(one["decoded"]) == names
    assert torch.equal(torch.cat([first["seen"], second["seen"]], 1), one["seen"])
