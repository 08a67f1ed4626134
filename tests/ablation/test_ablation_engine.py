"""An ablation whose runs are done by a Ray cluster."""

import pytest
import yaml

import toy
from facekit.storage import card

pytestmark = pytest.mark.slow


def test_an_ablation_on_a_cluster_has_the_figures_of_one_here(cluster, facekit, tools, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy.domains(tmp_path / "data", 12)
    values = {"recipe": "toy", "data": {"root": "data", "holdout": 4}, "run": {"steps": 3}}
    (tmp_path / "base.yaml").write_text(card.dump(values))

    def rows(out, *more):
        flags = ("--drop", "noise", "--sweep", "optim.lr=1e38", "--set", "run.log_every=1", *tools, *more)
        done = facekit("ablate", "base.yaml", "--set", f"recipe={toy.FILE}", "--out", out, *flags)
        assert done.code == 0, done.err
        found = yaml.safe_load((tmp_path / out / "table.yaml").read_text())["rows"]
        for row in found:
            row.get("scores", {}).pop("s/step", None)
        return found

    there = rows("ray", "--engine", "ray", "--address", cluster.address)
    assert there == rows("local") and [row["variant"] for row in there] == ["toy", "no-noise", "lr-1e38", "input"]
    for name in ("toy-s0", "no-noise-s0"):
        paths = [tmp_path / out / "runs" / name / "model.safetensors" for out in ("ray", "local")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
