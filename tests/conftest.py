"""Fixtures that all tests share."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

os.environ["OMP_NUM_THREADS"] = "1"  # before torch comes in: sums are bit-identical for one number of threads only
os.environ["FACEKIT_SETTINGS"] = os.devnull  # no defaults of whoever runs the tests
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # its pool, and a program for each instruction set,
os.environ["TORCHINDUCTOR_VEC_ISA_OK"] = "0"  # take longer than what the tests compile
TESTS = Path(__file__).parent
ROOT = TESTS.parent
SHARED = Path(os.environ.get("FACEKIT_SHARED", ROOT.parent / "shared"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that are marked slow, too")


def slow_asked(config: pytest.Config) -> bool:
    """Whether slow tests run: with --slow, -m or --last-failed, or where a test is given by its own name."""
    asked = (config.getoption(name, None) for name in ("slow", "markexpr", "lf"))  # no lf without the cache
    return any(asked) or any("::" in name for name in config.args)


def room_asked(config: pytest.Config) -> str | None:
    """The folder of tests that -k names, where nobody gives other folders or files."""
    word = config.getoption("keyword", "")
    whole = all(Path(config.invocation_params.dir, name).resolve() in (TESTS, ROOT) for name in config.args)
    return word if whole and word.isidentifier() and (TESTS / word).is_dir() else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no other room's tests where -k names one: that takes as long as the tests of most rooms."""
    room = room_asked(config)
    return True if room and collection_path.parent == TESTS and collection_path.name != room else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out where nobody asks for them.

    Files that hold one come first: one that is begun last keeps a single core busy at the end.
    """
    slow = [item for item in items if item.get_closest_marker("slow")]
    files = {item.path for item in slow}
    items.sort(key=lambda item: item.path not in files)
    if not slow_asked(config):
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if room := room_asked(config):
        terminalreporter.write_line(f"only tests/{room} was looked at: -k '{room} or x' looks at all tests")
    if not slow_asked(config):
        terminalreporter.write_line("tests marked slow were left out: --slow runs them, as `make test` does")


@dataclass
class Result:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def shared() -> Path:
    """The folder of real faces and weights; the test is skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED} (set FACEKIT_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def facekit():
    """Runs a command in this process: facekit("align", in, out).code."""

    def run(*arguments: object) -> Result:
        from facekit.cli import app

        found = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="facekit")
        return Result(found.exit_code, found.stdout, found.stderr)

    return run


@pytest.fixture(scope="module", params=["s3", "az", "gs"])
def store(request):
    """The proxy before a server of S3, Azure or Google Cloud; the latter two skip where no emulator is installed."""
    import buckets

    with buckets.server(request.param) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster of three nodes of one core each on this machine; `add` starts another node."""
    pytest.importorskip("ray", reason="needs the extra ray")
    from ray.cluster_utils import Cluster

    def add():
        for last in (False, False, True):  # Ray waits half a minute for a node: on a busy machine once may not do
            try:
                return made.add_node(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
            except Exception:
                if last:
                    raise

    paths = map(str, (ROOT / "tests", ROOT / "tests" / "runtime", ROOT / "src"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_worker_niceness", "0")  # or they starve beside other tests
        patched.setenv("PYTHONPATH", os.pathsep.join(paths))
        made = Cluster()
        made.add = add
        for _ in range(3):
            add()
        yield made
        made.shutdown()


@pytest.fixture
def spawn():
    """Runs a command in a process of its own; `start` gives the process instead of waiting for it."""

    def run(*arguments: object, **more: object) -> Result:
        done = start(*arguments, **more)
        out, err = done.communicate(timeout=300)
        return Result(done.returncode, out, err)

    def start(*arguments: object, env: dict | None = None, **more: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "facekit", *(str(a) for a in arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
        around = {**os.environ, "PYTHONPATH": path, **(env or {})}
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's tests ignore ctrl-c
        try:
            return subprocess.Popen(command, env=around, **{**pipes, **more})
        finally:
            signal.signal(signal.SIGINT, before)

    run.start = start
    return run


@pytest.fixture(scope="module")
def random_helpers():
    """A narrow VGG and a face teacher, both of random weights, in place of the published ones."""
    from facekit.nets import face_embedding, pretrained, vgg
    from support import Teacher

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(vgg, "WIDTHS", (4, 8, 16, 16, 16))
        patched.setattr(pretrained, "load_vgg", lambda net, source, kind="vgg19": None)
        patched.setattr(pretrained, "load_trunk", lambda net, source, kind: None)
        patched.setattr(face_embedding, "onnx_embedding", lambda *given: Teacher(48, 128))
        yield
