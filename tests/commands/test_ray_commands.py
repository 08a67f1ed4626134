"""Commands on a Ray cluster of three nodes write what they write on one machine, byte for byte."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

import toy
from facekit.recipe_api import checkpoint
from facekit.recipes.cyclegan import CycleGAN
from facekit.storage import card, pack_folder

pytestmark = pytest.mark.slow


class Means(torch.nn.Module):
    """Features of a picture: its coarse pixels."""

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)


@pytest.fixture
def both(cluster, facekit, tmp_path, monkeypatch):
    """Runs a command here, into `local`, and on the cluster, into `ray`; returns what it said there."""
    monkeypatch.chdir(tmp_path)

    def run(command, *arguments, code=0):
        local = facekit(command, *arguments, "local")
        ray = facekit(command, *arguments, "ray", "--engine", "ray", "--address", cluster.address)
        assert (local.code, ray.code) == (code, code), ray.err
        return ray

    return run


def contents(folder):
    """All files below a folder but cards, which have times in them, and pages, which name the folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".yaml", ".html"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("detector", ["cascade", "facekit"])
def test_align(both, tmp_path, detector):
    (tmp_path / "in/x").mkdir(parents=True)
    for i in range(5):
        Image.fromarray(astronaut()[i:230, 100:350]).save(tmp_path / f"in/x/{i}.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "in/none.png")
    both("align", "--size", 64, "--faces", "all", "--detector", detector, "in", code=4)
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")
    assert len(list((tmp_path / "ray/x").glob("*.png"))) == 5


def test_translate_with_the_net_in_the_workers_alone_and_in_batches(both, facekit, cluster, tmp_path):
    toy.fill(tmp_path / "in", 9, size=48)
    (tmp_path / "in/004.png").write_text("broken")
    torch.manual_seed(0)
    params = {"width": 4, "blocks": 1, "d_width": 4, "pool": 0}
    made = CycleGAN(params, 32).nets()
    nets = torch.nn.ModuleDict({name: made[name] for name in CycleGAN.exports})
    values = {"recipe": "cyclegan", "data": {"size": 32}, "params": params, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(tmp_path / "both.safetensors", nets, values)
    command = ("translate", "--to", "anime,photo", "--weights", "both.safetensors", "--no-align", "in")
    both(*command, code=4)
    assert contents(tmp_path / "local") == contents(tmp_path / "ray") and len(contents(tmp_path / "ray")) == 18
    batches = facekit(*command, "batches", "--batch", 4, "--engine", "ray", "--address", cluster.address)
    assert batches.code == 4
    assert contents(tmp_path / "local") == contents(tmp_path / "batches")


def test_films_and_single_images_are_refused(facekit, tmp_path):
    toy.picture().save(tmp_path / "a.png")
    done = facekit("translate", tmp_path / "a.png", tmp_path / "b.png", "--engine", "ray")
    assert done.code == 2 and "folders of images" in done.err


def test_clean(both, tmp_path):
    toy.fill(tmp_path / "in", 40, size=80)
    toy.picture(80, 3).save(tmp_path / "in/copy.png")
    both("clean", "in", "--report")
    for name in ("findings.jsonl", "measures.jsonl"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()


def test_pack(both, tmp_path, monkeypatch):
    toy.fill(tmp_path / "in", 40)
    (tmp_path / "in/labels.csv").write_text("file,smile\n")
    groups = pack_folder._groups
    monkeypatch.setattr(pack_folder, "_groups", lambda sources, size: groups(sources, 12_000))
    done = both("pack", "in")
    assert contents(tmp_path / "local") == contents(tmp_path / "ray") and "labels.csv" in contents(tmp_path / "ray")
    assert len(list((tmp_path / "ray").glob("*.tar"))) > 3 and "were written now" in done.out


def test_score_fid(facekit, cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.jit.script(Means()).save("features.pt")
    toy.fill(tmp_path / "out", 30)
    toy.fill(tmp_path / "ref", 20, seed=5)
    (tmp_path / "out/001.png").write_text("broken")
    command = ("score-fid", "out", "ref", "--features", "features.pt", "--allow-torchscript", "--no-cache", "--json")

    def figures(*more):
        done = facekit(*command, *more)
        assert done.code == 4
        return next(row for row in map(json.loads, done.out.splitlines()) if row["event"] == "result")

    assert figures() == figures("--engine", "ray", "--address", cluster.address)


def test_what_is_done_stays_and_only_new_images_go_to_the_cluster(both, facekit, cluster, tmp_path):
    toy.fill(tmp_path / "in", 40)
    both("smooth-edges", "in")
    Image.fromarray(np.asarray(toy.picture(16, 77))).save(tmp_path / "in/new.png")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").glob("0*.png")}
    done = both("smooth-edges", "in")
    assert "1 images, 40 done before" in done.err
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")
    assert card.read_made(tmp_path / "ray/card.yaml")["images"] == 41


def test_several_drivers_with_a_shard_each_make_one_folder(facekit, cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy.fill(tmp_path / "in", 20)
    assert facekit("smooth-edges", "in", "local").code == 0
    for part in ("2/2", "1/2"):
        done = facekit("smooth-edges", "in", "ray", "--shard", part, "--engine", "ray", "--address", cluster.address)
        assert done.code == 0, done.err
    local, ray = (contents(tmp_path / out) for out in ("local", "ray"))
    lines = [[json.loads(line) for line in files.pop("manifest.jsonl").splitlines()] for files in (local, ray)]
    assert local == ray and lines[0] == lines[1] and len(lines[1]) == 20
    assert card.read_made(tmp_path / "ray/card.yaml")["images"] == 20
