"""`facekit pairs`: what each teacher draws, which pairs are dropped and why, and that a stopped run continues."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from skimage.data import astronaut
from torch import nn

import toy
from facekit.faces import find_detector
from facekit.recipe_api import checkpoint
from facekit.recipes.stylegan2 import StyleGAN2
from facekit.teaching.command_teacher import CommandTeacher
from facekit.teaching.pair_filters import FilterOptions, PairFilters

ANYTHING = [word for reason in ("no-face", "face-lost", "parts") for word in ("--keep", reason)]
FACE = Image.fromarray(astronaut()[10:180, 140:310]).resize((128, 128))
COPY = """
import pathlib, shutil, sys
if pathlib.Path("broken").exists():
    sys.exit("out of paint")
shutil.copy(*sys.argv[1:])
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder: four pictures in in/, two of them the same."""
    monkeypatch.chdir(tmp_path)
    toy.fill(Path("in"), 3)
    toy.picture(16, 1).save("in/same.png")
    Path("copy.py").write_text(COPY)
    return tmp_path


@pytest.fixture
def pairs(facekit, here):
    """Runs `facekit pairs in OUT` on pictures that are no faces, and returns its result with what is in OUT."""

    def run(out, *more):
        return facekit("pairs", "in", out, "--no-align", *ANYTHING, "--detector", "cascade", *more)

    return run


def listed(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.png"))


def rows(folder: str) -> list[dict]:
    return [json.loads(line) for line in (Path(folder) / "manifest.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_weights_draw_and_a_student_learns_from_the_folder(pairs, facekit, here):
    torch.manual_seed(0)
    values = {"recipe": str(toy.FILE), "data": {"size": 32}, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(Path("t.safetensors"), nn.ModuleDict({"ab": toy.Toy({}, 32).nets()["ab"]}), values)
    teacher = ("--teacher", "t.safetensors", "--recipe", toy.FILE)
    done = pairs("out", *teacher)
    assert done.code == 0, done.err
    assert "3 pairs in out; dropped: 1 near-duplicate" in done.out
    assert listed("out") == [*(f"{s}/00{i}.png" for s in "ab" for i in range(3)), "dropped/near-duplicate/same.png"]
    assert Image.open("out/b/000.png").size == (32, 32) and rows("out")[-1]["near"] == "001.png"
    (translated,) = checkpoint.load_model("t.safetensors", recipe=str(toy.FILE)).nets.values()
    x = torch.from_numpy(np.asarray(Image.open("out/a/002.png")).copy()).movedim(2, 0)[None] / 127.5 - 1
    y = (translated(x)[0].movedim(0, 2) * 127.5 + 127.5).round()
    assert np.abs(y.numpy() - np.asarray(Image.open("out/b/002.png"), float)).max() <= 1
    stamp = Path("out/b/000.png").stat().st_mtime_ns
    again = pairs("out", *teacher)
    assert (again.code, "nothing to do" in again.err, "3 pairs" in again.out) == (0, True, True)
    assert Path("out/b/000.png").stat().st_mtime_ns == stamp
    small = ("--set=params.width=4", "--set=params.d_width=8", "--set=losses.perceptual=0", "--batch", 2)
    assert facekit("train", "student", "--data", "out", "--size", 32, "--steps", 1, *small, "--out", "run").code == 0


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_files(pairs, here):
    command = ("--teacher-command", f"{sys.executable} copy.py {{in}} {{out}}", "--size", 16)
    assert pairs("whole", *command).code == 0
    assert pairs("parts", *command, "--limit", 2).code == 0
    assert pairs("parts", *command).code == 0
    assert listed("parts") == listed("whole")
    assert all((Path("parts") / name).read_bytes() == (Path("whole") / name).read_bytes() for name in listed("whole"))
    assert pairs("parts", *command, "--min-parts", 0.5).code == 2


@pytest.mark.slow
def test_failures_of_a_command_are_counted_and_tried_again(pairs, here):
    command = ("--teacher-command", f"'{sys.executable}' copy.py {{in}} {{out}}", "--size", 16)
    Path("broken").touch()
    done = pairs("out", *command)
    assert (done.code, "0 pairs" in done.out) == (4, True)
    failed = [json.loads(line) for line in Path("out/failed.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in failed} == {"teacher"} and "out of paint" in failed[0]["reason"]
    Path("broken").unlink()
    assert pairs("out", *command, "--retry-failed").code == 0
    assert len(listed("out/b")) == 3 and Path("out/a/000.png").read_bytes() == Path("out/b/000.png").read_bytes()


@pytest.mark.slow
def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path):
    late = tmp_path / "late"
    line = f"sh -c 'sleep 1.5 && touch {late} && cp {{in}} {{out}}'"
    (made,) = CommandTeacher(line, 16, timeout=0.2).draw(["a.png"], [toy.picture()])
    assert isinstance(made, Exception) and "0.2 seconds" in str(made)
    time.sleep(1.6)
    assert not late.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("copy {in}", 2, "{out}"),
        ("copy '{in} {out}", 2, "quotes"),
        ("no-such-program {in} {out}", 5, "no-such-program"),
        ("true {in} {out}", 4, "wrote no {out}"),
    ],
)
def test_a_command_that_cannot_draw_is_said(pairs, line, code, said):
    done = pairs("out", "--teacher-command", line, "--size", 16)
    assert (done.code, said in done.err) == (code, True), done.err


def negative(path: str, shape: list) -> str:
    """An ONNX file that inverts colours."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negative", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("shape", [[1, 3, 16, 16], ["n", "h", "w", 3], [2, "h", "w", 3]])
def test_an_onnx_file_draws_in_either_layout(pairs, shape):
    done = pairs("out", "--teacher", negative("t.onnx", shape), "--size", 16)
    assert done.code == 0, done.err
    a, b = (np.asarray(Image.open(f"out/{side}/002.png"), int) for side in "ab")
    assert np.abs(a + b - 255).max() <= 1


def test_an_onnx_file_that_does_not_fit_is_refused(pairs):
    done = pairs("out", "--teacher", negative("t.onnx", [1, 3, 16, 16]), "--size", 32)
    assert (done.code, "--size 16" in done.err) == (2, True)
    assert pairs("out", "--teacher", negative("t.onnx", [1, 1, 16, 16])).code == 2
    Path("bad.onnx").write_bytes(b"no net")
    assert pairs("out", "--teacher", "bad.onnx").code == 5


@pytest.mark.slow
def test_finished_drawings_are_paired_by_name_and_missing_ones_counted(pairs):
    toy.fill(Path("drawn"), 2, 32, seed=5)
    done = pairs("out", "--teacher", "drawn", "--size", 32)
    assert (done.code, "2 pairs" in done.out) == (4, True)
    assert np.array_equal(np.asarray(Image.open("out/b/001.png")), np.asarray(Image.open("drawn/001.png")))


def test_flags_that_do_not_fit_are_refused(pairs, facekit):
    assert pairs("out").code == 2
    assert pairs("out", "--teacher", "anime", "--teacher-command", "a {in} {out}").code == 2
    assert pairs("out", "--teacher", "anime", "--prompt", "draw").code == 2
    assert pairs("out", "--teacher", "in", "--keep", "wrong").code == 2
    assert pairs("out", "--from", "runs/faces").code == 2
    assert facekit("pairs", "in", "--teacher", "anime").code == 2


def generator(path: str, seed: int, width: int = 8, base: str | None = None, size: int = 16) -> str:
    """Save a random generator, with the latents of the one in `base`; returns its path."""
    torch.manual_seed(seed)
    params = {"style_width": width, "mapping_layers": 1, "multiplier": 0.01, "width": 8}
    nets = nn.ModuleDict({"g": StyleGAN2(params, size).nets()["g"]})
    if base:
        nets["g"].mapping.load_state_dict(checkpoint.load_model(base).nets["g"].mapping.state_dict())
    checkpoint.save_model(Path(path), nets, {"recipe": "stylegan2", "params": params, "data": {"size": size}})
    return path


@pytest.mark.slow
def test_two_generators_draw_the_same_latents(facekit, here):
    two = ("--from", generator("a.safetensors", 0), "--and", generator("b.safetensors", 1, base="a.safetensors"))
    done = facekit("pairs", "out", *two, "-n", 3, *ANYTHING, "--keep", "near-duplicate")
    assert (done.code, "3 pairs" in done.out) == (0, True), done.err
    assert facekit("sample", "b.safetensors", "drawn", "-n", 3).code == 0
    for name in ("seed000000.png", "seed000002.png"):
        assert np.array_equal(np.asarray(Image.open(f"out/b/{name}")), np.asarray(Image.open(f"drawn/{name}")))
    assert facekit("pairs", "--card", "out/card.yaml").code == 0
    other = ("--from", "a.safetensors", "--and", generator("wide.safetensors", 2, 12))
    assert facekit("pairs", "no", *other).code == 2
    apart = facekit("pairs", "no", "--from", "a.safetensors", "--and", generator("c.safetensors", 3))
    assert (apart.code, "trained apart" in apart.err, "fine-tuned from a.safetensors" in apart.err) == (2, True, True)
    larger = generator("large.safetensors", 4, base="a.safetensors", size=32)
    other_size = facekit("pairs", "no", "--from", "a.safetensors", "--and", larger)
    assert (other_size.code, "16 px" in other_size.err, "32 px" in other_size.err) == (2, True, True)
    assert facekit("pairs", "in", "no", *two).code == 2


@pytest.mark.slow
def test_pairs_are_dropped_for_what_is_wrong_with_them():
    filters = PairFilters(FilterOptions(face="facefeat", min_identity=0.5), "cpu", find_detector("cascade"))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    first, again, empty = filters.judge_faces(["a", "b", "c"], [FACE, FACE.resize((96, 96)), noise])
    assert (first.reason, again.reason, empty.reason) == (None, "near-duplicate", "no-face")
    white, moved = Image.new("RGB", (128, 128), "white"), Image.new("RGB", (128, 128), "white")
    moved.paste(FACE.resize((72, 72)), (56, 56))
    same, lost, shifted = filters.judge_drawings([FACE] * 3, [FACE, white, moved])
    assert same.reason is None and same.measures["parts"] == 1 and same.measures["identity"] == pytest.approx(1)
    assert lost.reason == "face-lost" and shifted.reason in ("parts", "face-lost")
    strict = FilterOptions(face="facefeat", min_identity=0.99, keep=("face-lost", "parts"))
    blind = PairFilters(strict, "cpu", filters.detector)
    assert [verdict.reason for verdict in blind.judge_drawings([FACE] * 2, [FACE, noise])] == [None, "identity"]


@pytest.fixture
def pipeline(tmp_path):
    """An image-editing pipeline of diffusers with random weights."""
    diffusers = pytest.importorskip("diffusers")
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(code) + end for end in ("", "</w>") for code in range(ord("a"), ord("z") + 1)]
    words = {word: index for index, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    size = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    ends = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53, "max_position_embeddings": 16}
    few = {"layers_per_block": 1, "norm_num_groups": 2}
    whole = diffusers.StableDiffusionInstructPix2PixPipeline(
        vae=diffusers.AutoencoderKL(block_out_channels=(4,), latent_channels=4, sample_size=32, **few),
        text_encoder=CLIPTextModel(CLIPTextConfig(vocab_size=len(words), **size, **ends)),
        tokenizer=CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=16),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=8,
            out_channels=4,
            block_out_channels=(4, 8),
            cross_attention_dim=8,
            attention_head_dim=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            **few,
        ),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    whole.save_pretrained(tmp_path / "pipeline")
    return f"diffusers:{tmp_path / 'pipeline'}"


@pytest.mark.slow
def test_a_pipeline_draws_each_face_from_its_own_seed(pairs, pipeline):
    teacher = ("--teacher", pipeline, "--size", 32, "--set", "num_inference_steps=1")
    assert "--prompt" in pairs("no", *teacher).err
    told = (*teacher, "--prompt", "draw")
    assert "guidance_scale" in pairs("no", *told, "--set", "speed=1").err
    assert pairs("whole", *told).code == 0
    assert pairs("parts", *told, "--limit", 1).code == 0
    assert pairs("parts", *told).code == 0
    assert all((Path("parts") / name).read_bytes() == (Path("whole") / name).read_bytes() for name in listed("whole"))
    assert Path("whole/a/002.png").read_bytes() != Path("whole/b/002.png").read_bytes()
    assert "prompt: draw" in Path("whole/card.yaml").read_text()
    assert pairs("other", *told, "--seed", 1).code == 0
    assert Path("other/b/002.png").read_bytes() != Path("whole/b/002.png").read_bytes()
    assert pairs("no", "--teacher", "diffusers:no/such", "--prompt", "draw").code == 5


@pytest.mark.slow
def test_a_folder_in_which_no_pair_is_left_is_a_failure_that_says_where_to_look(facekit, here):
    command = ("--teacher-command", f"{sys.executable} copy.py {{in}} {{out}}", "--detector", "cascade", "--size", 32)
    done = facekit("pairs", "in", "out", "--no-align", *command)  # pictures that are no faces
    assert done.code == 4 and "no pair is left: 4 no-face" in done.err and "dropped" in done.err
    assert [name for name in listed("out") if not name.startswith("dropped/")] == []
    again = facekit("pairs", "in", "out", "--no-align", *command)
    assert again.code == 4 and "no pair is left" in again.err
