"""StyleGAN2 with projected discriminators as a base: fine-tuned under heads, and JoJoGAN through the frozen trunk."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import clips
import toy
from facekit.nets.vgg import VGG
from facekit.recipe_api import checkpoint
from facekit.recipes.jojogan import JoJoGAN
from facekit.recipes.projected import LAYERS, Trunk
from facekit.recipes.stylegan2_projected_structure import ProjectedStructure
from facekit.storage.card import TrainCard
from facekit.training.state import build_state, weighted_terms

SMALL = {"style_width": 8, "mapping_layers": 2, "multiplier": 0.01, "width": 8}
NO_STEPS = ("--control", "inversion_steps=1")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with faces/, one drawing, a VGG file of random weights, and runs: `heads` (projected) and `plain`."""
    from typer.testing import CliRunner

    from facekit.cli import app

    root = tmp_path_factory.mktemp("projected")
    toy.fill(root / "faces", 4)
    (root / "drawing").mkdir()
    clips.PORTRAIT.save(root / "drawing" / "face.png")
    toy.fill(root / "drawings", 3, seed=4)
    torch.manual_seed(7)
    save_file(VGG("vgg19", LAYERS).state_dict(), root / "vgg.safetensors")
    sizes = [f"--set=params.{key}={value}" for key, value in SMALL.items()]
    own = ["--set=params.head_width=4", f"--set=params.vgg={root / 'vgg.safetensors'}"]
    line = ["train", "--a", str(root / "faces"), "--steps", "2", "--size", "64", "--batch", "2", *sizes]
    for name, more in (("heads", ["stylegan2-projected", *own]), ("plain", ["stylegan2"])):
        done = CliRunner().invoke(app, [*line[:1], more[0], *line[1:], *more[1:], "--out", str(root / name)])
        assert done.exit_code == 0, done.stderr
    return root


@pytest.fixture
def jojogan(root, facekit):
    """Train jojogan from a base for no steps, or with other flags."""

    def run(base, *flags, steps=0):
        line = ("train", "jojogan", "--a", root / "drawing", "--init", base, "--steps", steps, "--batch", 1)
        return facekit(*line, "--set", "params.inversion_steps=2", *flags)

    return run


@pytest.fixture
def tune(root, facekit):
    """Train stylegan2-projected-structure from a base."""

    def run(base, *flags, steps=0):
        line = ("train", "stylegan2-projected-structure", "--a", root / "drawings", "--init", base, "--batch", 2)
        return facekit(*line, "--steps", steps, *flags)

    return run


def params_of(run):
    """The parameters in the card of a finished run."""
    return yaml.safe_load((run / "card.yaml").read_text())["params"]


def state_of(run):
    return torch.load(run / "state.pt", weights_only=True)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# JoJoGAN


@pytest.mark.slow
def test_jojogan_looks_through_what_its_base_has(root, tmp_path, jojogan):
    assert jojogan(root / "heads", "--out", tmp_path / "one", steps=1).code == 0
    one = params_of(tmp_path / "one")
    assert (one["look"], one["vgg"]) == ("trunk", str(root / "vgg.safetensors"))
    assert not [key for key in state_of(tmp_path / "one")["nets"] if key.startswith("d.")]
    assert jojogan(root / "plain", "--out", tmp_path / "two", steps=1).code == 0
    assert params_of(tmp_path / "two")["look"] == "discriminator"
    own, base = (state_of(folder)["nets"] for folder in (tmp_path / "two", root / "plain"))
    assert torch.equal(own["d.last.weight"], base["d.last.weight"])
    assert jojogan(tmp_path / "two", "--out", tmp_path / "three").code == 0
    assert params_of(tmp_path / "three")["look"] == "discriminator"


@pytest.mark.slow
def test_jojogan_starts_from_the_averaged_weights(root, tmp_path, jojogan):
    assert jojogan(root / "heads", "--out", tmp_path / "style").code == 0
    own, base = state_of(tmp_path / "style")["nets"], state_of(root / "heads")
    assert all(torch.equal(own[f"source.{key[2:]}"], x) for key, x in base["ema"].items())
    assert not all(torch.equal(base["nets"][key], x) for key, x in base["ema"].items())


@pytest.mark.slow
def test_the_card_goes_before_the_base(root, tmp_path, jojogan):
    shutil.copy(root / "vgg.safetensors", tmp_path / "other.safetensors")
    chosen = ("--set", "params.look=trunk", "--set", f"params.vgg={tmp_path / 'other.safetensors'}")
    for name in ("heads", "plain"):
        assert jojogan(root / name, *chosen, "--out", tmp_path / name).code == 0
        assert params_of(tmp_path / name)["vgg"] == str(tmp_path / "other.safetensors")


@pytest.mark.slow
def test_the_style_is_learned_through_the_trunk(root, tmp_path, jojogan):
    flags = ("--out", tmp_path / "style", "--set", "run.log_every=1", "--set", "optim.lr=0.01")
    assert jojogan(root / "heads", *flags, steps=25).code == 0
    losses = [json.loads(line)["losses"]["features"] for line in (tmp_path / "style" / "log.jsonl").open()]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


@pytest.mark.slow
def test_the_loss_is_the_mean_of_the_layers_of_the_trunk(root):
    own = {"look": "trunk", "vgg": str(root / "vgg.safetensors")}
    state = started(JoJoGAN, **own)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    batch = {"a": x, "number": torch.tensor([0, 0])}
    torch.manual_seed(0)
    scene = state.recipe.Scene(state.recipe, state.nets, batch, 0, helpers=state.helpers)
    found, styles = scene.features(), scene.styles
    vgg = VGG("vgg19", ("relu1_2", *LAYERS))
    vgg.load_state_dict(load_file(root / "vgg.safetensors"))
    g = state.nets["g"]
    torch.manual_seed(0)
    torch.randn(2, 8)  # of the mixed styles
    with torch.no_grad():
        drawn = g.synthesis(styles)
        maps = zip(Trunk(vgg)(drawn).values(), Trunk(vgg)(x).values(), strict=True)
        assert torch.allclose(found, torch.stack([(a - b).abs().mean() for a, b in maps]).mean(), rtol=1e-4)


def started(kind, losses=None, **params):
    """The state of a method of 64 px before its first step."""
    params = {**SMALL, **params}
    values = TrainCard.model_validate({"recipe": "stylegan2", "params": params, "data": {"size": 64}})
    return build_state(kind(params, 64), weighted_terms(kind, losses or {}), values, torch.device("cpu"))


@pytest.mark.slow
def test_a_base_without_anything_to_look_through_is_refused(root, tmp_path, jojogan):
    weights = root / "plain" / "model.safetensors"  # the generator alone
    done = jojogan(weights, "--out", tmp_path / "no")
    assert (done.code, "holds none" in done.err, "params.look=trunk" in done.err) == (2, True, True)
    done = jojogan(root / "heads", "--out", tmp_path / "no", "--set", "params.look=discriminator")
    assert (done.code, "holds none" in done.err) == (2, True)
    given = ("--set", "params.look=trunk", "--set", f"params.vgg={root / 'vgg.safetensors'}")
    assert jojogan(weights, "--out", tmp_path / "yes", *given).code == 0
    assert jojogan(root / "heads" / "model.safetensors", "--out", tmp_path / "also").code == 0


@pytest.mark.slow
def test_a_look_of_another_name_is_refused(root, tmp_path, jojogan):
    done = jojogan(root / "heads", "--out", tmp_path / "no", "--set", "params.look=eyes")
    assert (done.code, "look" in done.err) == (2, True)


@pytest.mark.slow
def test_a_vgg_file_that_is_gone_is_named(root, tmp_path, jojogan, tune):
    gone = ("--set", f"params.vgg={tmp_path / 'gone.safetensors'}")
    for start in (jojogan, tune):
        done = start(root / "heads", "--out", tmp_path / "no", *gone)
        assert (done.code, "gone.safetensors" in done.err, "params.vgg=FILE" in done.err) == (5, True, True)


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 128])
def test_a_base_of_another_size_is_refused(root, tmp_path, jojogan, tune, size):
    for start in (jojogan, tune):
        done = start(root / "heads", "--out", tmp_path / "no", "--size", size)
        assert (done.code, "--size 64" in done.err) == (2, True)


# fine-tuning under heads


@pytest.mark.slow
def test_generator_and_heads_start_from_the_base(root, tmp_path, tune):
    assert tune(root / "heads", "--out", tmp_path / "tuned").code == 0
    own, base = state_of(tmp_path / "tuned")["nets"], state_of(root / "heads")
    heads = [key for key in own if "_heads." in key]
    assert heads and all(torch.equal(own[key], base["nets"][key]) for key in heads)
    averaged = {key.removeprefix("g."): x for key, x in base["ema"].items()}
    assert all(torch.equal(own[f"{net}.{key}"], x) for net in ("g", "source") for key, x in averaged.items())
    found = params_of(tmp_path / "tuned")
    assert (found["head_width"], found["vgg"]) == (4, str(root / "vgg.safetensors"))


@pytest.mark.slow
def test_a_base_with_its_own_discriminator_gets_new_heads(root, tmp_path, tune):
    given = ("--set", f"params.vgg={root / 'vgg.safetensors'}", "--set", "params.head_width=4")
    assert tune(root / "plain", "--out", tmp_path / "tuned", *given, steps=2).code == 0
    assert not [key for key in state_of(tmp_path / "tuned")["nets"] if key.startswith("d.")]


@pytest.mark.slow
def test_what_is_frozen_stays_and_the_rest_moves(root, tmp_path, tune):
    assert tune(root / "heads", "--out", tmp_path / "tuned", "--set", "params.freeze_g=2", steps=2).code == 0
    nets = state_of(tmp_path / "tuned")["nets"]
    moved = {key[2:] for key in nets if key.startswith("g.") and not torch.equal(nets[key], nets[f"source.{key[2:]}"])}
    assert moved and not [key for key in moved if key.startswith(("mapping.", "const", "layers.0.", "layers.2."))]
    assert [key for key in moved if key.startswith("layers.3.")]
    free = ("--set", "params.freeze_mapping=false", "--set", "losses.structure=0")
    assert tune(root / "heads", "--out", tmp_path / "free", *free, steps=2).code == 0
    nets = state_of(tmp_path / "free")["nets"]
    assert not torch.equal(nets["g.const"], nets["source.const"])
    mapping = [key for key in nets if key.startswith("g.mapping.")]
    assert any(not torch.equal(nets[key], nets[f"source.{key[2:]}"]) for key in mapping)


@pytest.mark.slow
def test_the_structure_term_holds_the_layout(root):
    state = started(ProjectedStructure, head_width=4, vgg=str(root / "vgg.safetensors"), structure_levels=2)
    state.recipe.start(state.nets, None)

    def structure():
        torch.manual_seed(0)
        batch = {"a": torch.zeros(2, 3, 64, 64)}
        return state.recipe.Scene(state.recipe, state.nets, batch, 0, helpers=state.helpers).structure().item()

    assert structure() == pytest.approx(0, abs=1e-10)
    state.nets["g"].layers[0].bias.data.add_(0.5)
    assert structure() > 1e-4
    assert list(state.terms)[-1] == "structure" and "r1" not in state.terms


@pytest.mark.slow
def test_its_run_draws_pairs_and_translates_and_takes_an_encoder(root, tmp_path, tune, facekit):
    tuned, base = tmp_path / "tuned", root / "heads"
    assert tune(base, "--out", tuned, steps=2).code == 0
    assert facekit("sample", base, tmp_path / "both", "-n", 1, "--with", tuned, "--sheet").code == 0
    assert (tmp_path / "both" / "tuned" / "seed000000.png").exists()
    anything = [word for reason in ("no-face", "face-lost", "parts") for word in ("--keep", reason)]
    assert facekit("pairs", tmp_path / "pairs", "--from", base, "--and", tuned, "-n", 1, *anything).code == 0
    assert all((tmp_path / "pairs" / side / "seed000000.png").exists() for side in "ab")
    line = ("translate", root / "drawing", "--no-align", *NO_STEPS)
    assert facekit(*line[:2], tmp_path / "out", *line[2:], "--weights", tuned, "--swap-at", 16).code == 0
    train = ("train", "stylegan2-encoder", "--a", root / "faces", "--steps", 1, "--batch", 1)
    found = (*train, "--set", "params.encoder_width=8", "--init", tuned, "--out", tmp_path / "finder")
    assert facekit(*found).code == 0
    nets = checkpoint.load_model(tmp_path / "finder").nets
    source = checkpoint.load_model(tuned).nets["source"]
    assert equal(nets["source"].state_dict(), source.state_dict())
    assert facekit(*line[:2], tmp_path / "again", *line[2:], "--weights", tmp_path / "finder").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jojogan", "tune"])
def test_a_run_that_was_stopped_continues_to_the_bit(root, tmp_path, request, name):
    start = request.getfixturevalue(name)
    assert start(root / "heads", "--out", tmp_path / "whole", steps=4).code == 0
    assert start(root / "heads", "--out", tmp_path / "parts", steps=2).code == 0
    assert start(root / "heads", "--out", tmp_path / "parts", steps=4).code == 0
    whole, parts = (state_of(tmp_path / folder) for folder in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 4 and equal(whole["nets"], parts["nets"])
