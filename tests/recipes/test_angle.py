"""cyclegan-angle: that the angle reaches the nets (but for the paper's own way), and that it is the image's angle."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import toy
from facekit import faces
from facekit.data import roll as rolled
from facekit.data.loader import Batches
from facekit.errors import InputError
from facekit.faces.alignment import landmarks_of_eyes
from facekit.inference import face_input
from facekit.nets.angle import Channelled, Styled, plane, ramp, turned
from facekit.nets.patchgan import PatchDiscriminator
from facekit.nets.resnet import ResnetGenerator
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.recipes.cyclegan_angle import AngleScene, CycleGANAngle
from facekit.storage import card, images
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

MODES = ("ramp", "adain", "plane_zero_pad", "plane", "none")
SMALL = {"width": 8, "blocks": 2, "d_width": 8, "pool": 2}


def count(net):
    return sum(p.numel() for p in net.parameters())


def disc(size, radius=0.9):
    """The places that a turn about the middle keeps inside the image."""
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    return (at[:, None] ** 2 + at[None] ** 2) < radius**2


def face(size=64, left=(20, 28), right=(44, 28)):
    """A grey square with a red left and a green right eye; places are (x, y)."""
    pixels = np.full((size, size, 3), 40, np.uint8)
    for channel, (x, y) in enumerate((left, right)):
        pixels[y - 2 : y + 3, x - 2 : x + 3] = 0
        pixels[y - 2 : y + 3, x - 2 : x + 3, channel] = 250
    return Image.fromarray(pixels)


def eyes(image, names=(0, 1)):
    """The centres of the red and the green spot, as landmarks."""
    pixels = np.asarray(image).astype(float)
    rows, columns = np.indices(pixels.shape[:2]) + 0.5
    out = []
    for channel in names:
        weight = np.clip(pixels[..., channel] - pixels[..., 1 - channel] - 100, 0, None)
        out.append([(columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()])
    return np.array(out)


def made(mode="ramp", **params):
    return CycleGANAngle({**SMALL, "mode": mode, **params}, 32)


def learner_of(recipe, losses=None, **data):
    values = card.TrainCard.model_validate(
        {"recipe": "cyclegan-angle", "data": {"size": 32, **data}, "run": {"steps": 2}}
    )
    return build_state(recipe, weighted_terms(CycleGANAngle, losses or {}), values, torch.device("cpu"))


def batch_of(count=2, size=32):
    torch.manual_seed(5)
    pictures = {side: torch.rand(count, 3, size, size) * 2 - 1 for side in "ab"}
    return {**pictures, "a_roll": torch.tensor([10.0, -20.0])[:count], "b_roll": torch.tensor([0.0, 35.0])[:count]}


@pytest.mark.slow
def test_parameter_counts_at_full_size():
    full = {mode: CycleGANAngle({"mode": mode}, 256) for mode in MODES}
    small = CycleGANAngle({"blocks": 6}, 128)
    with torch.device("meta"):
        nets = {mode: recipe.nets() for mode, recipe in full.items()}
        six = small.nets()
        both_ways = count(ResnetGenerator(64, 9, 4, 4)), count(ResnetGenerator(64, 6, 4, 4))
    for mode in ("ramp", "plane", "plane_zero_pad"):
        assert count(nets[mode]["ab"]) == count(nets[mode]["ba"]) == 11_381_315
        assert count(nets[mode]["da"]) == count(nets[mode]["db"]) == 2_765_761
    assert count(six["ab"]) == 7_840_835
    assert both_ways == (11_384_452, 7_843_972)
    assert count(nets["none"]["ab"]) == 11_378_179 and count(nets["none"]["da"]) == 2_764_737
    assert count(nets["adain"]["ab"]) == 11_378_179 + 9 * (2 + 1) * 4 * 256


@pytest.mark.parametrize("mode", MODES)
def test_only_the_papers_plane_leaves_the_generator_blind(mode):
    torch.manual_seed(0)
    net = made(mode).generator()
    x, other = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    low, high = torch.tensor([-144.0]), torch.tensor([144.0])  # a plane of -0.8 and of 0.8
    with torch.no_grad():
        change = (net(x, low) - net(x, high)).abs().max()
        assert (net(x, low) - net(other, low)).abs().max() > 0.05
    if mode in ("plane", "none"):
        assert change < 1e-4
    else:
        assert change > 0.01


def test_the_discriminators_of_the_plane_see_what_the_generators_do_not():
    torch.manual_seed(0)
    net = PatchDiscriminator(8, 4)
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        low, high = (net(torch.cat([x, plane(torch.tensor([v]), 64, 64)], 1)) for v in (-144.0, 144.0))
    assert (low - high).abs().max() > 0.01


def test_zero_padding_shows_the_plane_at_the_border_alone():
    net = Channelled(8, 0, plane, zero_pad=True)
    x = torch.rand(1, 3, 32, 32)
    first = net.net.layers[0]
    with torch.no_grad():
        low, high = (first(torch.cat([x, plane(torch.tensor([v]), 32, 32)], 1)) for v in (-90.0, 90.0))
    change = (high - low)[0]
    inside = change[:, 3:-3, 3:-3]
    assert inside.flatten(1).std(1).max() < 1e-6  # one number per channel, which the normalisation takes away
    assert change.flatten(1).std(1).min() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "learns"), [("ramp", True), ("adain", True), ("plane_zero_pad", True), ("plane", False)]
)
def test_what_depends_on_the_angle_can_be_learnt_but_for_the_plane(mode, learns):
    """The net is to draw the eye line's ramp at 60 degrees either way; one that is not told can draw their mean."""
    torch.manual_seed(0)
    net = made(mode).generator()
    optim = torch.optim.Adam(net.parameters(), 1e-2, betas=(0.5, 0.999))
    roll = torch.tensor([60.0, -60.0])
    wanted = 0.5 * ramp(roll, 8, 8).expand(-1, 3, -1, -1)
    untold = (wanted - wanted.mean(0)).square().mean()  # the least error without the angle
    errors = []
    for _ in range(60):
        x = (torch.rand(1, 3, 8, 8) * 2 - 1).expand(2, -1, -1, -1)
        loss = (net(x, roll) - wanted).square().mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        errors.append(loss.item())
    last = sum(errors[-10:]) / 10
    assert last < 0.2 * untold if learns else last > 0.99 * untold


def test_the_ramp_turns_with_the_image():
    roll, degrees = torch.tensor([0.0, 15.0, -40.0]), torch.tensor([30.0, -70.0, 8.0])
    there = turned(ramp(roll, 64, 64), degrees)
    assert (there - ramp(roll + degrees, 64, 64))[:, 0, disc(64)].abs().max() < 0.05  # bilinear on 64 px
    level = ramp(torch.zeros(1), 8, 8)[0, 0]
    assert torch.allclose(level, torch.linspace(-1, 1, 8).expand(8, 8))


def test_the_ramp_of_a_wide_image_has_one_unit_for_both_edges():
    wide = ramp(torch.tensor([90.0, 0.0]), 32, 64)
    assert wide[0, 0].abs().max() == pytest.approx(1, abs=1e-5)
    assert wide[1, 0].abs().max() == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("degrees", [25.0, -40.0, 90.0])
def test_turning_adds_to_the_roll_that_landmarks_tell(degrees):
    level = face()
    by_tensor = images.to_image(turned(images.to_tensor(level)[None], torch.tensor([degrees]))[0])
    for image in (rolled.tilt(level, degrees), by_tensor):
        assert image.size == level.size
        assert faces.roll(eyes(image)) == pytest.approx(degrees, abs=1.5)


def test_a_face_that_align_levels_gets_back_the_roll_that_align_notes():
    photo = rolled.tilt(face(128, (52, 60), (76, 60)), 25)
    marks = landmarks_of_eyes(eyes(photo))
    found = faces.Face((30.0, 40.0, 98.0, 108.0), 1.0, marks, False)
    cut = faces.align_face(np.asarray(photo), found, 64, margin=0.0)
    assert cut.roll == pytest.approx(25, abs=1.5)
    assert faces.roll(eyes(cut.image)) == pytest.approx(0, abs=1)
    assert faces.roll(eyes(rolled.tilt(cut.image, cut.roll))) == pytest.approx(25, abs=1.5)


def test_what_comes_in_at_the_corners_is_the_image():
    bright = Image.new("RGB", (32, 32), (200, 200, 200))
    assert np.asarray(rolled.tilt(bright, 45)).min() == 200
    assert turned(torch.ones(1, 3, 32, 32), torch.tensor([45.0])).min() > 0.999


def folder_of(root, entries):
    root.mkdir(parents=True, exist_ok=True)
    for name in entries:
        face().save(root / name)
    rows = [{"file": name, **entry} for name, entry in entries.items() if entry is not None]
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


ENTRIES = {
    "levelled.png": {"roll": 30.0, "warp": [[1, 0, 0], [0, 1, 0]]},
    "own.png": {"roll": -12.5},
    "odd.png": {"roll": "left"},
    "untold.png": None,
}


def test_the_reader_turns_levelled_faces_back_and_takes_others_as_they_are(tmp_path):
    folder = folder_of(tmp_path, ENTRIES)
    reader = rolled.RolledReader("a", *rolled.read_rolls(folder))
    level = np.asarray(face())
    found = {name: reader.read(folder / name, 64) for name in ENTRIES}
    assert {name: float(sample["a_roll"]) for name, sample in found.items()} == {
        "levelled.png": 30.0,
        "own.png": -12.5,
        "odd.png": 0.0,
        "untold.png": 0.0,
    }
    assert faces.roll(eyes(found["levelled.png"]["a"])) == pytest.approx(30, abs=1.5)
    assert all(np.array_equal(found[name]["a"], level) for name in ("own.png", "odd.png", "untold.png"))
    upright = rolled.RolledReader("a", *rolled.read_rolls(folder, restore=False)).read(folder / "levelled.png", 64)
    assert float(upright["a_roll"]) == 0 and np.array_equal(upright["a"], level)


def test_a_mirror_negates_the_angle_and_it_is_still_the_images(tmp_path):
    folder = folder_of(tmp_path, ENTRIES)
    reader = rolled.RolledReader("a", *rolled.read_rolls(folder))
    sample = reader.mirror(reader.read(folder / "levelled.png", 64))
    assert float(sample["a_roll"]) == -30
    assert sample["a_roll"].dtype == np.float32
    assert faces.roll(eyes(sample["a"], (1, 0))) == pytest.approx(-30, abs=1.5)  # left and right change places


def test_batches_carry_angles_beside_images(tmp_path):
    root = tmp_path / "set"
    for side in ("trainA", "trainB"):
        folder_of(root / side, ENTRIES)
    layout = rolled.open_rolled(card.Data(root=str(root), size=32, holdout=1))
    batches = Batches.of(layout.train, 36, layout.readers, seed=0, batch=4, size=32)
    (batch,) = batches(0)
    assert batch["a"].shape == (4, 3, 32, 32) and batch["a_roll"].shape == (4,)
    assert batch["a_roll"].dtype == torch.float32
    assert set(batch["b_roll"].abs().tolist()) <= {30.0, 12.5, 0.0}


def test_a_set_without_angles_is_refused_where_none_are_made(tmp_path):
    data = card.Data(root=str(toy.domains(tmp_path / "set", 4, 32)), size=32)
    with pytest.raises(InputError, match="angle") as caught:
        made(turn=0).open(data)
    assert "facekit align" in caught.value.hint
    assert made(turn=5).open(data).readers["a"].rolls == {}


def scene_of(recipe, batch, nets=None, carried=None, active=("identity",)):
    return AngleScene(recipe, nets or nn.ModuleDict(recipe.nets()), batch, 0, carried, None, active)


def test_augmentation_turns_image_and_angle_together():
    batch = batch_of()
    torch.manual_seed(1)
    scene = scene_of(made(turn=25), batch)
    x, roll = scene.turned_a
    added = roll - batch["a_roll"]
    assert added.abs().min() > 0 and added.abs().max() <= 25 and added[0] != added[1]
    assert torch.equal(x, turned(batch["a"], added))
    assert torch.equal(scene.a, x) and scene.turned_a is scene.turned_a
    still = scene_of(made(turn=0), batch)
    assert torch.equal(still.a, batch["a"]) and torch.equal(still.turned_b[1], batch["b_roll"])


class Keep(nn.Module):
    """A generator that changes nothing and remembers the angles that it was told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def forward(self, x, roll):
        self.told.append(roll)
        return x


def test_the_way_back_and_the_discriminators_get_the_sources_angle():
    recipe, batch = made(turn=25), batch_of()
    nets = nn.ModuleDict({**recipe.nets(), "ab": Keep(), "ba": Keep()})
    scene = scene_of(recipe, batch, nets)
    assert scene.cycle().item() == 0 and scene.identity().item() == 0
    (_, roll_a), (_, roll_b) = scene.turned_a, scene.turned_b
    assert torch.equal(nets.ab.told[0], torch.cat([roll_a, roll_b])) and torch.equal(nets.ab.told[1], roll_b)
    assert torch.equal(nets.ba.told[0], roll_a) and torch.equal(nets.ba.told[1], torch.cat([roll_b, roll_a]))
    seen = scene.seen(scene.fake_b, roll_a)
    assert torch.equal(seen[:, :3], scene.a) and torch.equal(seen[:, 3:], ramp(roll_a, 32, 32))
    scene.judge_b()
    assert torch.equal(nets.pool_b.images[:2], seen)  # the pool keeps each translation with its angle


@pytest.mark.slow
def test_both_turns_of_a_step_see_the_same_angles(monkeypatch):
    drawn = []
    monkeypatch.setattr(AngleScene, "turn", lambda self, x, roll: drawn.append(roll) or (x, roll))
    train_step(learner_of(made()), [batch_of()], Progress(0, 2))
    assert len(drawn) == 2  # once for a and once for b: the discriminators' turn takes them over


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_and_translates(mode):
    recipe = made(mode)
    learner = learner_of(recipe)
    values = train_step(learner, [batch_of()], Progress(0, 2))
    assert all(torch.isfinite(value) for value in values.values())
    x = batch_of()["a"]
    with torch.no_grad():
        upright = recipe.translate(learner.nets, x, "b")
        tilted = recipe.translate(learner.nets, x, "b", torch.tensor([40.0, 40.0]))
        assert torch.equal(upright, recipe.translate(learner.nets, x, "b", torch.zeros(2)))
        assert recipe.translate(learner.nets, x[..., :24], "b").shape == x[..., :24].shape
    assert torch.allclose(upright, tilted, atol=1e-4) == (mode in ("plane", "none"))


def test_the_baseline_levels_translates_and_turns_back():
    recipe = made()
    nets = nn.ModuleDict({"ab": Keep(), "ba": Keep()})
    level, roll = images.to_tensor(face())[None], torch.tensor([30.0])
    tilted = turned(level, roll)
    seen = []
    nets.ab.register_forward_hook(lambda net, given, out: seen.append(given[0]))
    out = recipe.translate_upright(nets, tilted, "b", roll)
    assert faces.roll(eyes(images.to_image(seen[0][0]))) == pytest.approx(0, abs=1.5)
    assert torch.equal(nets.ab.told[0], torch.zeros(1))
    assert faces.roll(eyes(images.to_image(out[0]))) == pytest.approx(30, abs=1.5)
    assert (out - tilted)[:, :, disc(64)].abs().mean() < 0.05


def test_adain_is_plain_instance_normalisation_where_its_style_is_zero():
    torch.manual_seed(0)
    net = Styled(4, 1)
    for layer in net.layers:
        if hasattr(layer, "style"):
            nn.init.zeros_(layer.style.weight)
    plain = ResnetGenerator(4, 1)
    weights = [p for name, p in net.named_parameters() if "style" not in name]
    with torch.no_grad():
        for mine, theirs in zip(plain.parameters(), weights, strict=True):
            mine.copy_(theirs)
        x = torch.rand(1, 3, 16, 16)
        assert torch.allclose(plain(x), net(x, torch.tensor([50.0])), atol=1e-6)


@pytest.mark.slow
def test_it_trains_from_folders_that_align_left(facekit, tmp_path):
    root = toy.domains(tmp_path / "set", 4, 32)
    row = {"file": "001.png", "roll": 20.0, "warp": [[1, 0, 0], [0, 1, 0]]}
    (root / "trainA" / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    small = [f"--set=params.{key}={value}" for key, value in SMALL.items()]
    run = tmp_path / "run"
    done = facekit("train", "cyclegan-angle", "--data", root, "--out", run, "--size", 32, "--steps", 2, *small)
    assert done.code == 0, done.err
    assert "1 of 4 images have an angle" in done.err or "1 of 3 images have an angle" in done.err
    done = facekit("translate", root / "trainA", tmp_path / "out", "--weights", run, "--no-align")
    assert done.code == 0, done.err


@pytest.fixture
def weights(tmp_path):
    """Weights of both recipes, untrained: cyclegan-angle and cyclegan."""
    out = {}
    for name in ("cyclegan-angle", "cyclegan"):
        torch.manual_seed(0)
        kind, _ = registry.find(name)
        values = card.TrainCard.model_validate({"recipe": name, "params": SMALL, "data": {"size": 64}})
        nets = kind(SMALL, 64).nets()
        out[name] = tmp_path / f"{name}.safetensors"
        checkpoint.save_model(out[name], nn.ModuleDict({n: nets[n] for n in ("ab", "ba")}), card.plain(values))
    return out


@pytest.mark.slow
def test_translate_tells_the_angle_of_the_manifest(facekit, tmp_path, weights):
    folder = folder_of(tmp_path / "faces", {"own.png": {"roll": -12.5}})
    more = ["--weights", weights["cyclegan-angle"], "--to", "b", "--device", "cpu"]
    done = facekit("translate", folder, tmp_path / "out", "--rotation", "condition", *more)
    assert done.code == 0, done.err
    model = checkpoint.load_model(weights["cyclegan-angle"])
    x = images.to_tensor(face())[None].contiguous(memory_format=torch.channels_last)
    told = images.to_image(model.recipe.translate(model.nets, x, "b", torch.tensor([-12.5]))[0])
    untold = images.to_image(model.recipe.translate(model.nets, x, "b")[0])
    assert np.array_equal(np.asarray(images.read(tmp_path / "out" / "own.png")), np.asarray(told))
    assert not np.array_equal(np.asarray(told), np.asarray(untold))


@pytest.mark.slow
def test_translate_levels_tilted_faces_and_turns_them_back_with_any_weights(facekit, tmp_path, weights):
    folder = folder_of(tmp_path / "faces", {"own.png": {"roll": -12.5}})
    tilted = rolled.tilt(face(), -12.5)
    tilted.save(folder / "own.png")
    more = ["--weights", weights["cyclegan"], "--to", "b", "--device", "cpu"]
    done = facekit("translate", folder, tmp_path / "out", "--rotation", "upright", *more)
    assert done.code == 0, done.err
    model = checkpoint.load_model(weights["cyclegan"])
    level = images.to_tensor(rolled.tilt(tilted, 12.5))[None].contiguous(memory_format=torch.channels_last)
    wanted = rolled.tilt(images.to_image(model.recipe.translate(model.nets, level, "b")[0]), -12.5)
    assert np.array_equal(np.asarray(images.read(tmp_path / "out" / "own.png")), np.asarray(wanted))


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [("level", "upright"), ("tell", "condition")])
def test_the_old_name_of_rotation_works_with_a_warning(facekit, tmp_path, weights, old, new):
    folder = folder_of(tmp_path / "faces", {"own.png": {"roll": -12.5}})
    more = ["--weights", weights["cyclegan-angle"], "--to", "b", "--device", "cpu"]
    done = facekit("translate", folder, tmp_path / "old", "--tilted", old, *more)
    assert done.code == 0 and f"--tilted {old} is now --rotation {new}" in done.err
    assert facekit("translate", folder, tmp_path / "new", "--rotation", new, *more).code == 0
    assert (tmp_path / "old" / "own.png").read_bytes() == (tmp_path / "new" / "own.png").read_bytes()


def test_translate_finds_the_roll_where_no_manifest_tells_it(facekit, tmp_path, weights, monkeypatch):
    told = []

    class Finder:
        name = "finder"

        def detect(self, image, effort="first"):
            return [faces.Face((10.0, 10.0, 54.0, 54.0), 1.0, landmarks_of_eyes(eyes(image)), False)]

    monkeypatch.setattr(face_input, "find_detector", lambda *given: Finder())
    monkeypatch.setattr(CycleGANAngle, "translate", lambda self, nets, x, to, roll=None: told.append(float(roll)) or x)
    source = tmp_path / "tilted.png"
    rolled.tilt(face(), 20).save(source)
    more = ["--weights", weights["cyclegan-angle"], "--to", "b", "--device", "cpu"]
    done = facekit("translate", source, tmp_path / "out.png", "--rotation", "condition", *more)
    assert done.code == 0, done.err
    assert told == [pytest.approx(20, abs=1.5)]


def test_weights_without_an_angle_do_not_receive_one(facekit, tmp_path, weights):
    folder = folder_of(tmp_path / "faces", {"own.png": {"roll": 5.0}})
    more = ["--to", "b", "--device", "cpu"]
    done = facekit(
        "translate", folder, tmp_path / "o", "--rotation", "condition", "--weights", weights["cyclegan"], *more
    )
    assert done.code == 2 and "--rotation upright" in done.err
    done = facekit(
        "translate", folder, tmp_path / "o", "--rotation", "upright", "--paste", "--weights", weights["cyclegan"], *more
    )
    assert done.code == 2


def test_a_wide_image_can_be_turned_too():
    wide = Image.new("RGB", (60, 20), (90, 90, 90))
    assert rolled.tilt(wide, 90).size == (60, 20)
    assert np.asarray(rolled.tilt(wide, 90)).min() == 90
