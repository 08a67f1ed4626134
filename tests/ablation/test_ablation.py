"""Variants of a card, their table, and the whole command on a method that trains in milliseconds."""

import json
import os
import shutil
import statistics
import subprocess

import pytest
import torch
import yaml
from torch import nn

import toy
import toy_scores
from facekit.ablation import runner, table, variants
from facekit.errors import CardError
from facekit.recipe_api import checkpoint
from facekit.storage import card

BASE = {"recipe": "toy", "seed": 3, "data": {"root": "x"}, "run": {"steps": 2}, "losses": {"noise": 1.0}}


def test_every_variant_differs_in_what_its_name_says():
    other = {"recipe": "cyclegan", "params": {"width": 8}, "data": {"root": "y"}, "run": {"steps": 9}}
    found = variants.plan_variants(
        BASE, ["noise", "noise+identity"], ["losses.identity=1,10", "optim.lr=1e-4"], [other]
    )
    assert [v.name for v in found] == [
        *("toy", "no-noise", "no-noise-identity", "identity-1", "identity-10", "lr-1e-4", "cyclegan"),
    ]
    values = {v.name: v.values for v in found}
    assert values["toy"] == BASE
    assert values["no-noise-identity"]["losses"] == {"noise": 0, "identity": 0}
    assert values["identity-10"]["losses"] == {"noise": 1.0, "identity": 10}
    assert values["lr-1e-4"]["optim"] == {"lr": 1e-4}
    assert values["cyclegan"]["params"] == {"width": 8}
    assert (values["cyclegan"]["data"], values["cyclegan"]["run"]) == (BASE["data"], BASE["run"])
    assert [v.at for v in found if v.at] == [("losses.identity", 1), ("losses.identity", 10), ("optim.lr", 1e-4)]


@pytest.mark.parametrize(
    ("drops", "sweeps", "words"),
    [([], ["losses.cycle"], "no values"), ([], ["x="], "no values"), (["noise", "noise"], [], "two variants")],
)
def test_variants_that_make_no_sense_are_refused(drops, sweeps, words):
    with pytest.raises(CardError, match=words):
        variants.plan_variants(BASE, drops, sweeps, [])


def test_a_figure_is_mean_and_deviation_and_knows_a_difference_inside_the_spread():
    first, near, far = [1.0, 2.0, 3.0], [1.5, 2.5, 3.5], [7.0, 8.0, 9.0]
    found = table.figure(near, first)
    assert (found.mean, found.spread, found.difference) == (2.5, statistics.stdev(near), 0.5)
    assert found.inside is True and table.figure(far, first).inside is False
    assert table.figure([1.0, 1.0], [1.0, 1.0]).inside is True
    assert table.figure(first).difference is None


def test_one_seed_has_no_spread_and_says_nothing_of_it():
    found = table.figure([2.0], [1.0])
    assert (found.spread, found.inside, found.difference) == (None, None, 1.0)
    assert table.cell(found, "FID-768") == "2.000 (+1.000)"


def test_the_table_names_differences_inside_the_spread_and_failures():
    first = {"FID-768": table.figure([1.0, 1.2])}
    near = {"FID-768": table.figure([1.1, 1.3], [1.0, 1.2])}
    rows = [
        table.Row("base", "the card as it is", first, {}),
        table.Row("near", "without x", near, {5: "became nan"}),
        table.Row("gone", "without y", {}, {3: "out of | memory"}),
    ]
    lines = table.table(rows, ["FID-768"])
    assert lines[0] == ["variant", "what changes", "FID-768"]
    assert lines[2][2].startswith("1.200 ± 0.141 (+0.100, inside the spread)") and "seed 5 failed" in lines[2][2]
    assert lines[3][2] == "seed 3 failed: out of | memory"
    text = table.markdown(lines)
    assert text.count("\n") == 5 and "out of \\| memory" in text


# the command


@pytest.fixture
def study(tmp_path, facekit, tools):
    """Return a function that runs `facekit ablate` on the toy method, and where it leaves its results."""
    data = toy.domains(tmp_path / "data", 12, 16)
    toy.fill(data / "valA", 5, 16, 7)
    toy.fill(data / "valB", 6, 16, 8)
    base = tmp_path / "base.yaml"
    base.write_text(card.dump({"recipe": str(toy.FILE), "seed": 1, "data": {"root": str(data)}, "run": {"steps": 2}}))

    def run(*flags, out=tmp_path / "out", base=base):
        return facekit("ablate", base, "--set", f"recipe={toy.FILE}", "--out", out, *tools, *flags)

    return run, tmp_path / "out"


FLAGS = ("--drop", "noise", "--sweep", "losses.identity=1,20", "--seeds", 2)


@pytest.mark.slow
def test_it_trains_scores_and_reports_every_variant(study):
    run, out = study
    done = run(*FLAGS)
    assert done.code == 0, done.err
    rows = {row["variant"]: row for row in yaml.safe_load((out / "table.yaml").read_text())["rows"]}
    assert list(rows) == ["toy", "no-noise", "identity-1", "identity-20", "input"]
    fid = next(name for name in rows["toy"]["scores"] if name.startswith("FID"))
    assert len(rows["no-noise"]["scores"][fid]["values"]) == 2
    assert {"difference", "inside", "spread"} <= set(rows["no-noise"]["scores"][fid])
    assert rows["input"]["scores"]["identity-cosine"]["mean"] == pytest.approx(1, abs=1e-5)
    assert rows["input"]["scores"]["IoU-parts"]["mean"] == pytest.approx(1)
    for name, of in (("toy-s1", "noise"), ("identity-20-s2", "identity")):
        made = card.load(out / "cards" / f"{name}.yaml")
        assert made["seed"] == int(name[-1]) and card.load(out / "runs" / name / "card.yaml")["losses"][of]
    assert card.load(out / "runs/no-noise-s1/card.yaml")["losses"]["noise"] == 0
    page = (out / "report.html").read_text()
    assert all(name in page for name in ("losses.png", "sweep.png", "translation.png", "no-noise", "inside the spread"))
    assert all((out / name).stat().st_size > 1000 for name in ("losses.png", "sweep.png", "translation.png"))
    assert "scores.png" not in page and not (out / "scores.png").exists()
    assert "| toy |" in (out / "table.md").read_text() and "2 seed(s); 5 held-out faces" in page
    assert len(list((out / "faces/b/toy-s1").glob("*.png"))) == 5


@pytest.mark.slow
def test_scores_along_the_runs_become_learning_curves_over_images(study, tmp_path):
    run, out = study
    toy_scores.write_onnx(tmp_path / "features.onnx")
    validate = ("run.validate_every=1", f"run.validate_features={tmp_path / 'features.onnx'}", "data.batch=3")
    done = run("--drop", "noise", "--seeds", 2, *(word for text in validate for word in ("--set", text)))
    assert done.code == 0, done.err
    curves = yaml.safe_load((out / "table.yaml").read_text())["curves"]
    assert [(line["variant"], line["seed"]) for line in curves] == [
        *(("toy", 1), ("toy", 2), ("no-noise", 1), ("no-noise", 2)),
    ]
    for line in curves:
        assert line["metric"].startswith("KID-") and [images for images, _ in line["points"]] == [3, 6]
        rows = (out / "runs" / f"{line['variant']}-s{line['seed']}" / "scores.jsonl").read_text().splitlines()
        assert [score for _, score in line["points"]] == [json.loads(row)["scores"][line["metric"]] for row in rows]
    assert "scores.png" in (out / "report.html").read_text() and (out / "scores.png").stat().st_size > 1000


@pytest.mark.slow
def test_again_it_trains_only_what_is_missing(study):
    run, out = study
    assert run("--drop", "noise").code == 0
    before = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/model.safetensors")}
    table = (out / "table.md").read_text()
    done = run("--drop", "noise")
    assert done.code == 0 and done.err.count("train: nothing to do") == 2
    assert (out / "table.md").read_text() == table
    assert run("--drop", "noise", "--drop", "identity").code == 0
    assert all(p.stat().st_mtime_ns == when for p, when in before.items())
    assert (out / "runs/no-identity-s1/card.yaml").exists()


@pytest.mark.slow
def test_a_plan_is_cards_and_a_makefile_and_what_make_trained_is_taken(study, facekit):
    run, out = study
    done = run("--drop", "noise", "--plan")
    assert done.code == 0 and not (out / "runs").exists() and "make -j" in done.err
    for name in ("toy-s1", "no-noise-s1"):
        assert facekit("train", "--card", out / f"cards/{name}.yaml", "--out", out / f"runs/{name}").code == 0
    done = run("--drop", "noise")
    assert done.code == 0 and done.err.count("train: nothing to do") == 2


@pytest.mark.slow
def test_a_variant_that_fails_is_a_row_that_says_why(study):
    run, out = study
    done = run("--sweep", "optim.lr=1e38", "--set", "run.log_every=1")
    assert done.code == 0, done.err
    rows = {row["variant"]: row for row in yaml.safe_load((out / "table.yaml").read_text())["rows"]}
    failed = rows["lr-1e38"]["failed"]
    assert list(failed) == [1] and any(word in failed[1] for word in ("infinite", "nan", "inf"))
    assert rows["toy"]["scores"] and "seed 1 failed" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--drop", "nose"), "noise"),
        (("--sweep", "losses.identiy=1"), "identity"),
        (("--drop", "noise", "--drop", "noise"), "two variants"),
        (("--against", "cyclegam"), "cyclegan"),
        (("--to", "c"), "--to"),
        (("--features", "nowhere.onnx"), "nowhere"),
    ],
)
def test_what_it_cannot_do_it_refuses_before_it_trains(study, flags, words):
    run, out = study
    done = run(*flags)
    assert done.code in (2, 3, 5) and words in done.err, done.err
    assert not (out / "runs").exists()


def test_another_ablation_in_the_folder_is_refused_with_the_differences(study):
    run, out = study
    assert run("--plan").code == 0
    done = run("--plan", "--set", "run.steps=5")
    assert done.code == 2 and "run.steps: 2 -> 5" in done.err
    assert run("--plan", "--set", "run.steps=5", "--force").code == 0
    assert card.load(out / "cards/toy-s1.yaml")["run"]["steps"] == 5


def test_a_dry_run_lists_the_variants_and_writes_nothing(study):
    run, out = study
    done = run("--drop", "noise", "--dry-run", "--json")
    assert done.code == 0 and not out.exists()
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert any(set(line.get("variants", ())) == {"toy", "no-noise"} for line in lines)


@pytest.mark.slow
def test_where_no_part_of_a_face_is_found_the_rest_is_scored(study, monkeypatch):
    from facekit.errors import InputError
    from facekit.scoring import preservation

    def blind(*given, **more):
        raise InputError("the segnet sees no eyes, nose or mouth", "are these faces?")

    monkeypatch.setattr(preservation, "table", blind)
    run, out = study
    done = run()
    assert done.code == 0 and "sees no eyes" in done.err
    rows = yaml.safe_load((out / "table.yaml").read_text())["rows"]
    assert all(any(name.startswith("FID") for name in row["scores"]) for row in rows)
    assert not any("IoU-parts" in row["scores"] for row in rows)


def test_methods_with_other_preview_columns_stand_side_by_side(tmp_path):
    from facekit.ablation import report
    from facekit.recipes.cyclegan import CycleGAN

    runs = {}
    for name, made in (("toy", toy.Toy({"width": 4}, 32)), ("cyclegan", CycleGAN({"width": 4, "blocks": 1}, 32))):
        recipe = str(toy.FILE) if name == "toy" else name
        values = {"recipe": recipe, "params": made.params.model_dump(mode="json"), "data": {"size": 32}}
        nets = nn.ModuleDict({key: net for key, net in made.nets().items() if key in made.exports})
        runs[name] = tmp_path / name
        checkpoint.save_model(runs[name] / "model.safetensors", nets, card.plain(card.TrainCard.model_validate(values)))
    written = report.draw_faces(tmp_path, runs, [toy.picture(32), toy.picture(32, 1)], "b")
    assert set(written) == {"b", "and back"} and all((tmp_path / name).exists() for name in written.values())


@pytest.mark.slow
def test_other_features_score_trained_runs_again(study, tools, tmp_path):
    class Corners(nn.Module):
        def forward(self, x):
            return x[:, :, :2, :1].flatten(1)

    torch.jit.script(Corners()).save(str(tmp_path / "corners.pt"))
    run, out = study
    assert run().code == 0
    done = run("--features", tmp_path / "corners.pt")
    assert done.code == 0 and "nothing to do" in done.err
    found = yaml.safe_load((out / "table.yaml").read_text())
    assert found["features"] == str(tmp_path / "corners.pt")
    assert all({"FID-6", "KID-6"} <= set(row["scores"]) and "FID-12" not in row["scores"] for row in found["rows"])


@pytest.mark.slow
def test_where_the_first_variant_fails_nothing_is_called_a_difference_from_it(study):
    run, out = study
    done = run("--set", "optim.lr=1e38", "--set", "run.log_every=1", "--sweep", "optim.lr=1e-3,1e-4")
    assert done.code == 0, done.err
    rows = {row["variant"]: row for row in yaml.safe_load((out / "table.yaml").read_text())["rows"]}
    assert rows["toy"]["failed"] and not rows["toy"]["scores"]
    assert not any("difference" in figure for figure in rows["lr-1e-4"]["scores"].values())


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("jobs", [1, 2, 64])
def test_the_makefile_trains_every_run_with_its_share_of_the_cores(study, tmp_path, jobs):
    run, _ = study
    out = tmp_path / "a folder: with $ and 'quotes' #1"
    assert run("--drop", "noise", "--plan", out=out).code == 0
    script = tmp_path / "facekit.sh"
    whole = (
        'line=$(printf "%s|" "$OMP_NUM_THREADS" "$@"); echo "$line" >> "$LOG"'  # in one write: jobs run side by side
    )
    script.write_text(f"#!/bin/sh\n{whole}\n")
    script.chmod(0o755)
    around = {"PATH": os.environ["PATH"], "LOG": str(tmp_path / "log")}
    command = ["make", f"-j{jobs}", "-f", out / "Makefile", f"FACEKIT={script}", "CORES=4"]
    subprocess.run(command, env=around, cwd=tmp_path, check=True, capture_output=True)
    lines = sorted((tmp_path / "log").read_text().splitlines())
    threads = str(max(1, 4 // jobs))
    assert lines == [
        f"{threads}|train|{toy.FILE}|--card|{out}/cards/{name}.yaml|--out|{out}/runs/{name}|"
        for name in ("no-noise-s1", "toy-s1")
    ]


def test_files_that_facekit_did_not_write_are_not_replaced(study):
    run, out = study
    out.mkdir()
    (out / "Makefile").write_text("all:\n\techo mine\n")
    refused = run("--plan")
    assert refused.code == 3 and "Makefile" in refused.err and "--force" in refused.err
    assert (out / "Makefile").read_text() == "all:\n\techo mine\n"
    assert run("--plan", "--force").code == 0
    (out / "Makefile").write_text("all:\n\techo mine\n")
    assert run("--plan").code == 3
    assert "echo mine" in (out / "Makefile").read_text()


def test_too_few_held_out_images_are_noticed_before_training(study, tmp_path):
    run, out = study
    for path in sorted((tmp_path / "data" / "valA").iterdir())[1:]:
        path.unlink()
    refused = run()
    assert refused.code == 3 and "held-out" in refused.err and "at least" not in refused.err
    assert not (out / "runs").exists()


@pytest.mark.slow
def test_a_domain_may_have_any_name(study):
    run, out = study
    done = run("--set", "domains.a=real/../photo", "--set", "domains.b=ani/me")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (out / "held").iterdir()) == ["ani-me-b", "real-..-photo-a"]
    assert "translated to ani/me" in (out / "table.md").read_text()


@pytest.mark.slow
def test_the_page_shows_how_far_it_is_and_refreshes_only_until_then(study, monkeypatch):
    pages = []
    train = runner.run.train
    run, out = study

    def noting(*arguments, **more):
        pages.append((out / "report.html").read_text())
        return train(*arguments, **more)

    monkeypatch.setattr(runner.run, "train", noting)
    assert run("--drop", "noise").code == 0
    assert [f"{number} of 2 runs" in page and "http-equiv" in page for number, page in enumerate(pages)] == [True, True]
    assert "http-equiv" not in (out / "report.html").read_text()
