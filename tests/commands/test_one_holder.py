"""Every command that writes files holds its output: a second one is refused, and nothing is replaced."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import toy
import toy_scores
from facekit.inference import import_weights
from facekit.recipe_api import checkpoint
from facekit.storage import files, lock

HOLD = """
import contextlib, sys, time
from pathlib import Path
from facekit.storage import lock
with contextlib.ExitStack() as held:
    for name in sys.argv[1:]:
        held.enter_context(lock.held_file(Path(name), "other") if "." in name else lock.held(Path(name), "other"))
    print("held", flush=True)
    time.sleep(60)
"""
OUTPUTS = ("face.png", "net.onnx", "score.yaml", "card", "own.safetensors", "run")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of pictures, a model, features for scores, and official weights."""
    monkeypatch.chdir(tmp_path)
    toy.fill(Path("in"), 3, 32)
    values = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(Path("m.safetensors"), nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)
    toy_scores.write_onnx("features.onnx")
    return tmp_path


def commands(here: Path) -> list[list[object]]:
    weights = ["--weights", "m.safetensors", "--recipe", toy.FILE]
    return [
        ["translate", "in/000.png", "face.png", "--no-align", *weights],
        ["export", "m.safetensors", "net.onnx", "--recipe", toy.FILE],
        ["score-fid", "in", "in", "--features", "features.onnx", "--save", "score.yaml", "--no-cache"],
        ["examples", "card"],
    ]


@pytest.mark.slow
def test_a_second_command_is_refused_whatever_it_writes(facekit, here):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, *OUTPUTS], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        for command in commands(here):
            done = facekit(*command)
            assert done.code == 3 and "in use: other, process" in done.err, command
        imported = import_weights.Imported(nn.ModuleDict({"ab": nn.Linear(1, 1)}), ("ab",), {}, {})
        for out in ("own.safetensors", "run"):
            with pytest.raises(files.OutputError, match="in use: other"):
                import_weights.write(imported, Path(out))
    finally:
        holder.kill()
        holder.wait()
    assert not any(Path(name).is_file() for name in OUTPUTS)
    for name in ("face.png", "net.onnx", "score.yaml"):
        files.beside(Path(name), "-0.part").write_bytes(b"what a killed process left")
    foreign = files.beside(Path("other.png"), "-0.part")
    foreign.write_bytes(b"another process writes this")
    for command in commands(here):
        assert facekit(*command).code == 0, command
    dead = files.beside(Path("own.safetensors"), ".lock")
    assert {path.name for path in here.glob(".*")} == {foreign.name, dead.name}


def test_one_image_is_translated_again_after_a_kill(facekit, here, monkeypatch):
    command = commands(here)[0]

    def dies(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("facekit.storage.claim.finish", dies)
        assert facekit(*command).code == 130
    first = Path("face.png").read_bytes()
    assert Path("face.png.card.unfinished.yaml").exists()
    assert facekit(*command).code == 0
    assert Path("face.png").read_bytes() == first and not Path("face.png.card.unfinished.yaml").exists()
    assert "nothing to do" in facekit(*command).err
    toy.picture(32, 9).save("in/000.png")
    changed = facekit(*command)
    assert changed.code == 2 and "another run: inputs.source" in changed.err
    assert Path("face.png").read_bytes() == first


def test_an_import_goes_on_after_a_kill_and_replaces_nothing_else(facekit, here):
    nets = nn.ModuleDict({"ab": nn.Linear(1, 1), "d": nn.Linear(1, 1)})
    imported = import_weights.Imported(nets, ("ab",), {"recipe": "cyclegan", "made": {"x": (1, 2)}}, {})
    assert import_weights.write(imported, Path("one")) == []
    whole = {path.name: path.read_bytes() for path in Path("one").iterdir()}
    assert whole.keys() == {"model.safetensors", "state.pt"}
    Path("one/state.pt").unlink()  # killed between the two
    import_weights.write(imported, Path("one"))
    assert {path.name: path.read_bytes() for path in Path("one").iterdir()} == whole
    Path("two").mkdir()
    Path("two/state.pt").write_bytes(b"somebody else's")
    for out in ("two", "m.safetensors"):
        with pytest.raises(import_weights.CardError, match="already exists"):
            import_weights.write(imported, Path(out))
    assert Path("two/state.pt").read_bytes() == b"somebody else's" and len(list(Path("two").iterdir())) == 1
    assert lock.NAME not in [path.name for path in Path("two").iterdir()]
