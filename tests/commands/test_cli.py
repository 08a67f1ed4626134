"""The command line itself: help, flags, cards, errors and exit codes, and that README tells the truth about them."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import facekit as package
import toy
from facekit import cli, errors
from facekit.commands import completion
from facekit.commands.table import COMMANDS
from facekit.recipe_api import checkpoint

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEAVY = ("torch", "torchvision", "numpy", "skimage", "matplotlib", "insightface")
LOADED = f"""
import sys
from facekit.cli import main
try:
    main()
finally:
    print("heavy:", [m for m in {HEAVY} if m in sys.modules], file=sys.stderr)
"""


@pytest.fixture
def light():
    """Runs the command line in a process of its own; returns its output, after checking that nothing heavy came in."""

    def run(*arguments, **env):
        around = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **env}
        command = [sys.executable, "-c", LOADED, *arguments]
        done = subprocess.run(command, env=around, capture_output=True, text=True, timeout=60)
        assert done.stderr.splitlines()[-1] == "heavy: []", done.stderr
        return done.stdout

    return run


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """Three pictures in in/ and a model of two domains, photo and anime, in the working folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    values = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(Path("model.safetensors"), nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)
    return toy.fill(Path("in"), 3)


TRANSLATE = ("translate", "in", "out", "--weights", "model.safetensors", "--recipe", toy.FILE, "--no-align")


@pytest.mark.slow
def test_help_and_version_import_nothing_heavy(light):
    shown = light("--help")
    assert all(name in shown and command.group in shown for name, command in COMMANDS.items())
    assert light() == shown
    assert light("--version") == f"facekit {package.__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "translate"])
def test_help_of_a_command_imports_nothing_heavy(light, name):
    assert "--card" in light(name, "--help")


def test_a_module_of_the_name_is_the_command(spawn):
    assert spawn("--version").out == f"facekit {package.__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_the_shared_flags(facekit, name):
    done = facekit(name, "--help")
    assert done.code == 0
    command = cli.load_command(name)
    shared = {"--json", "--quiet", "--debug"} | ({"--card"} if name != "ablate" else set())  # its argument is a card
    assert all(flag in done.out for flag in shared)
    assert command.help
    assert [p.name for p in command.params if p.name != "help" and not getattr(p, "help", None)] == []


@pytest.mark.parametrize(
    ("line", "word"), [("transalte in out", "'translate'"), ("translate in out --wieghts x", "--weights")]
)
def test_a_typo_is_refused_with_the_nearest_word(facekit, line, word):
    done = facekit(*line.split())
    assert done.code == 2 and word in done.err


def test_the_table_of_the_readme_lists_every_command():
    assert re.findall(r"^\| \[`facekit (\S+)[^|]*`\]", README, re.M) == list(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_ends_with_examples_that_parse(facekit, name):
    shown = facekit(name, "--help").out
    assert COMMANDS[name].examples
    for line, about in COMMANDS[name].examples:
        program, command, *rest = shlex.split(line)
        assert (program, command) == ("facekit", name)
        cli.load_command(name).make_context(name, rest)  # raises for what does not parse
        assert about in re.sub(r"[\s│]+", " ", shown)


def test_the_readme_is_a_front_page():
    assert len(README.splitlines()) < 150


@pytest.mark.parametrize("name", ["align", "train", "translate"])
def test_the_function_has_the_parameters_of_the_command(name):
    known = {p.name: p for p in cli.load_command(name).params}
    of_function = inspect.signature(getattr(package, name)).parameters
    assert set(of_function) == set(known) - ({"as_json", "quiet", "debug", "help", "card"} - set(of_function))
    for key, parameter in of_function.items():
        if not known[key].required:
            assert known[key].default == parameter.default, key


def test_every_exit_code_is_documented():
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    section = README.partition("## Exit codes")[2].partition("##")[0]
    for code in codes:
        assert re.search(rf"\b{code} \w", section), code
        assert re.search(rf"\b{code} \w", cli.EPILOG), code


def test_json_is_one_object_a_line(facekit, faces):
    done = facekit(*TRANSLATE, "--json")
    assert done.code == 0 and done.err == ""
    events = [json.loads(line)["event"] for line in done.out.splitlines()]
    assert "progress" in events and "note" in events


@pytest.mark.parametrize(
    ("line", "words"),
    [("translate --wieghts x", "--weights"), ("transalte", "translate"), ("align a b --size 1", "16")],
)
def test_json_reports_a_usage_error_as_an_event_with_a_next_step(facekit, line, words):
    done = facekit(*line.split(), "--json")
    (event,) = map(json.loads, done.out.splitlines())
    assert event["event"] == "error" and event["exit"] == done.code == 2
    assert words in event["message"] and event["hint"].endswith("--help")


def test_json_ends_with_one_result(facekit, faces):
    for _ in ("first", "nothing to do"):
        events = [json.loads(line) for line in facekit(*TRANSLATE, "--json").out.splitlines()]
        assert [event["event"] for event in events].count("result") == 1
        assert events[-1]["event"] == "result" and events[-1]["path"] == "out"


def test_json_tells_of_an_error_too(facekit, faces):
    done = facekit(*TRANSLATE, "--json", "--to", "pirate")
    *_, last = map(json.loads, done.out.splitlines())
    assert last["event"] == "error" and last["exit"] == done.code == 2 and "anime" in last["hint"]


def test_quiet_says_nothing_when_all_is_well(facekit, faces):
    done = facekit(*TRANSLATE, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_a_pipe_gets_plain_lines(facekit, faces):
    done = facekit(*TRANSLATE)
    assert done.out == "" and "translate 3/3" in done.err
    assert "\x1b" not in done.err and "\r" not in done.err


@pytest.fixture
def broken(monkeypatch):
    """Makes `facekit recipes NAME` raise."""

    def make(error):
        def describe(name):
            raise error

        monkeypatch.setattr("facekit.recipe_api.overview.describe", describe)

    return make


@pytest.mark.parametrize("error", [ValueError("odd"), FileNotFoundError(2, "gone"), KeyError("odd")])
def test_a_bug_is_one_line_and_exit_1(facekit, broken, error):
    broken(error)
    done = facekit("recipes", "cyclegan")
    assert done.code == 1 and type(error).__name__ in done.err and "bug" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] can't allocate memory: 99 bytes")])
def test_no_memory_is_no_bug(facekit, broken, error):
    broken(error)
    done = facekit("recipes", "cyclegan")
    assert (done.code, "out of memory" in done.err, "bug" in done.err) == (7, True, False)


@pytest.mark.parametrize("error", [ValueError("odd"), errors.InputError("none", "look")])
def test_debug_shows_the_traceback(facekit, broken, error):
    broken(error)
    done = facekit("recipes", "cyclegan", "--debug")
    assert "Traceback" in done.err and "in describe" in done.err
    assert done.err.splitlines()[-2].startswith("error: ")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(28, "no space"), 3, "disk is full"),
        (PermissionError(13, "no", "there"), 3, "there: no permission"),
        (KeyboardInterrupt(), 130, "same command again"),
        (errors.Diverged("term cycle at step 3", "a lower --lr"), 6, "next: a lower --lr"),
    ],
)
def test_what_a_user_can_fix_has_its_code_and_a_next_step(facekit, broken, error, code, words):
    broken(error)
    done = facekit("recipes", "cyclegan")
    assert done.code == code and words in done.err and "bug" not in done.err


def test_a_card_repeats_its_run_without_arguments(facekit, faces):
    assert facekit(*TRANSLATE, "--suffix", "webp").code == 0
    again = facekit("translate", "--card", "out/card.yaml")
    assert again.code == 0 and "nothing to do" in again.err
    made = Path("out/000.webp").read_bytes()
    Path("out/000.webp").unlink()
    assert facekit("translate", "--card", "out/card.yaml").code == 0
    assert Path("out/000.webp").read_bytes() == made


def test_arguments_and_flags_win_over_the_card(facekit, faces):
    facekit(*TRANSLATE, "--suffix", "webp")
    done = facekit("translate", "--card", "out/card.yaml", "in", "other", "--suffix", "jpg")
    assert done.code == 0, done.err
    assert sorted(p.name for p in Path("other").glob("0*")) == ["000.jpg", "001.jpg", "002.jpg"]


@pytest.mark.slow
def test_a_train_card_repeats_its_run(facekit, tmp_path):
    data = toy.domains(tmp_path / "data")
    assert facekit("train", toy.FILE, "--data", data, "--steps", 2, "--out", tmp_path / "run").code == 0
    done = facekit("train", "--card", tmp_path / "run" / "card.yaml", "--out", tmp_path / "run")
    assert done.code == 0 and "nothing to do" in done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("command: align\noptions: {size: 64}", "facekit align --card"),
        ("command: translate\noptions: {wieghts: x}", "did you mean 'weights'?"),
        ("command: translate\noption: {to: x}", "did you mean 'options'?"),
        ("command: translate\noptions: {size: large}", "--size"),
        ("command: translate\noptions: {suffix: gif}", "--format"),
        ("[1, 2]", "not a card"),
        (None, "cannot read card"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(facekit, tmp_path, text, words):
    path = tmp_path / "card.yaml"
    if text:
        path.write_text(text)
    done = facekit("translate", "--card", path, "in", "out")
    assert done.code == 2
    assert words in re.sub(r"[\s│]+", " ", done.err)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "count", "expected"), [("facekit ", 1, "translate"), ("facekit align --", 2, "--size")]
)
def test_the_shell_completes_commands_and_options(light, words, count, expected):
    found = light(_FACEKIT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(count))
    assert expected in found.split()


@pytest.mark.slow
def test_recipes_are_completed(light):
    found = light(_FACEKIT_COMPLETE="complete_bash", COMP_WORDS="facekit train ugatit-l", COMP_CWORD="2")
    assert found.split() == ["ugatit-light"]


def test_weights_are_completed_from_shipped_names_and_run_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("runs/animals", "runs/other", "runs/empty"):
        Path(run).mkdir(parents=True)
    for run in ("runs/animals", "runs/other"):
        Path(run, "model.safetensors").touch()
    assert completion.weights(None, "ani") == ["anime", "anime-small"]
    assert completion.weights(None, "runs/") == ["runs/animals", "runs/other"]


def test_domains_are_completed_from_the_card_of_the_weights(faces):
    class Context:
        params = {"weights": "model.safetensors"}

    assert completion.targets(Context, "") == ["photo", "anime"]
    assert completion.targets(Context, "an") == ["anime"]
    Context.params = {"weights": "missing"}
    assert completion.targets(Context, "") == []
    Context.params = {"weights": None}
    assert completion.targets(Context, "") == ["anime", "cartoon", "game"]


def test_names_from_weights_that_a_shell_would_run_are_not_completed(monkeypatch):
    class Context:
        params = {"weights": "x"}

    monkeypatch.setattr(completion, "_card", lambda name: {"params": {"labels": ["$(touch x)", "Black Hair", "a;b"]}})
    assert completion.targets(Context, "") == ["Black Hair", "all"]


@pytest.mark.slow
def test_a_reader_that_has_gone_ends_the_command_without_a_word(spawn):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        process = spawn.start("recipes", stdout=closed)
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 1


def test_recipes_lists_every_preset_with_a_line_about_it(facekit):
    done = facekit("recipes")
    assert done.code == 0
    for name in ("cyclegan", "ugatit", "ugatit-light", "projected-cut"):
        assert re.search(rf"^{name} +\d+ +[\d,]+ (steps|epochs)  .{{15}}", done.out, re.M), name
    rows = json.loads(facekit("recipes", "--json").out)["recipes"]
    assert len(rows) == len(done.out.splitlines()) - 4 and all(row["summary"] for row in rows)


def test_a_recipe_is_described_with_terms_weights_parameters_and_paper(facekit):
    done = facekit("recipes", "cyclegan")
    assert done.code == 0
    assert "ICCV 2017" in done.out
    assert re.search(r"^  cycle +G +10 +\w", done.out, re.M)
    assert re.search(r"^  width +64 +channels", done.out, re.M)
    assert "28,2" in done.out  # millions of parameters
    told = json.loads(facekit("recipes", "cyclegan", "--json").out)
    assert told["terms"]["identity"]["weight"] == 5 and told["translates_to"] == ["a", "b"]
    assert told["params"]["blocks"]["value"] == 9 and told["defaults"]["optim"]["lr"] == 2e-4


def test_a_recipe_file_is_described(facekit):
    done = facekit("recipes", toy.FILE)
    assert done.code == 0 and "A tiny method for tests." in done.out


def test_an_unknown_recipe_is_refused_with_the_nearest(facekit):
    done = facekit("recipes", "ugatit-lite")
    assert done.code == 2 and "did you mean 'ugatit-light'?" in done.err


def test_the_python_functions_take_plain_strings(faces):
    assert package.translate("in", "out", weights="model.safetensors", align=False) == Path("out")
    assert len(list(Path("out").glob("*.png"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_help_cuts_no_word_off_at_80_columns(name, facekit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = facekit(name, "--help")
    lines = done.out.splitlines()
    assert done.code == 0 and max(map(len, lines)) == 80 and "…" not in done.out


# The end of the process

PROGRAM = """
import atexit, os
from facekit import cli
class Kept:  # let go of when the interpreter is taken down
    def __del__(self, write=os.write): write(1, b"taken down ")
kept, app = Kept(), cli.app
def registers(**options):
    atexit.register(lambda: print("handlers ran"))
    app(**options)
cli.app = registers
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        (("weights", "anime"), 0, ["handlers ran"]),  # loads torch
        (("weights", "anme"), 5, ["handlers ran"]),
        (("--version",), 0, ["handlers ran", "taken down"]),
    ],
)
def test_a_process_with_torch_ends_without_its_clearing_up(arguments, code, shown, tmp_path):
    around = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, env=around, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == code
    assert [text for text in ("handlers ran", "taken down") if text in done.stdout] == shown


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_no_success_with_torch_either(tmp_path):
    around = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "facekit", "weights", "anime"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=around, stdout=full, stderr=subprocess.PIPE, timeout=120, cwd=tmp_path)
    assert done.returncode != 0 and done.stderr
