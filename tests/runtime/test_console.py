"""What a command says, to whom and how often."""

import json
import sys
from contextvars import Context
from types import ModuleType

import pytest

from facekit.runtime import console


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told to move."""

    class Clock:
        now = 1000.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(console.time, "monotonic", clock)
    return clock


@pytest.fixture
def using():
    """Makes a reporter the current one."""
    tokens = []
    yield lambda reporter: tokens.append(console.current.set(reporter))
    for token in reversed(tokens):
        console.current.reset(token)


def everything() -> None:
    console.note("a note")
    console.warn("a warning")
    console.fact("data", images=3)
    console.result("the result", answer=42)


def events(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize(
    ("reporter", "out", "err"),
    [
        (console.Reporter, "", ""),
        (console.Plain, "the result\n", "a note\nwarning: a warning\n"),
        (console.Rich, "the result\n", "a note\nwarning: a warning\n"),
        (console.QuietReporter, "the result\n", "warning: a warning\n"),
    ],
)
def test_results_go_to_stdout_and_all_else_to_stderr(using, capsys, reporter, out, err):
    using(reporter())
    everything()
    assert capsys.readouterr() == (out, err)


def test_json_lines_hold_everything_on_stdout(using, capsys):
    using(console.Json())
    everything()
    console.result("only words")
    out, err = capsys.readouterr()
    assert err == ""
    assert events(out) == [
        {"event": "note", "text": "a note"},
        {"event": "warning", "text": "a warning"},
        {"event": "data", "images": 3},
        {"event": "result", "answer": 42},
        {"event": "result", "text": "only words"},
    ]


@pytest.mark.parametrize("text", ["写真", "line\nbreak", "not utf-8: \udcff", 'a "quote"'])
def test_a_json_line_is_one_line_of_any_encoding(capsys, text):
    console.json_line("note", text=text)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.isascii() and json.loads(out)["text"] == text


@pytest.mark.parametrize(("pause", "reporter"), [(5, console.Plain), (1, console.Json)])
def test_a_long_job_says_a_line_now_and_then_and_one_at_the_end(using, clock, capsys, pause, reporter):
    using(reporter())
    with console.progress("work", 100) as bar:
        lines = []
        for _ in range(100):
            clock.now += pause / 8
            bar.advance(failed=2)
            lines.append(sum(map(len, map(str.splitlines, capsys.readouterr()))))
    assert [i for i, count in enumerate(lines) if count] == list(range(8, 100, 9)) and max(lines) == 1
    last = "".join(capsys.readouterr())
    assert last.count("\n") == 1 and "100" in last


def test_a_short_job_says_one_line(using, clock, capsys):
    using(console.Plain())
    with console.progress("work", 3) as bar:
        for _ in range(3):
            clock.now += 0.5
            bar.advance(loss=0.25, failed=0)
    assert capsys.readouterr() == ("", "work 3/3  2/s  loss 0.25\n")


def test_a_job_of_nothing_says_nothing(using, capsys):
    using(console.Plain())
    with console.progress("work", 0):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_job_that_continues_counts_from_where_it_was_but_times_what_it_did(using, clock, capsys):
    using(console.Json())
    with console.progress("work", 10, 6) as bar:
        clock.now += 2
        bar.advance(4)
    assert events(capsys.readouterr().out)[-1] == {
        "event": "progress",
        "title": "work",
        "done": 10,
        "total": 10,
        "rate": 2.0,
        "figures": {},
    }


def test_the_last_word_is_said_even_when_the_job_breaks(using, capsys):
    def work():
        with console.progress("work", 10) as bar:
            bar.advance(3)
            raise KeyError

    using(console.Plain())
    with pytest.raises(KeyError):
        work()
    assert "work 3/10" in capsys.readouterr().err


@pytest.mark.parametrize("reporter", [console.Reporter, console.QuietReporter])
def test_who_is_quiet_shows_no_progress(using, clock, capsys, reporter):
    using(reporter())
    with console.progress("work", 2) as bar:
        clock.now += 60
        bar.advance()
    assert capsys.readouterr() == ("", "") and bar.done == 1


def test_a_terminal_shows_a_bar_on_stderr(using, capsys):
    using(console.Rich())
    with console.progress("work", 2, 1) as bar:
        bar.advance(failed=1)
    out, err = capsys.readouterr()
    assert out == "" and "2/2" in err


@pytest.mark.parametrize(
    ("flags", "terminal", "kind"),
    [
        ({}, True, console.Rich),
        ({}, False, console.Plain),
        ({"quiet": True}, True, console.QuietReporter),
        ({"as_json": True}, True, console.Json),
        ({"as_json": True, "quiet": True}, False, console.Json),
    ],
)
def test_flags_and_the_terminal_choose_the_reporter(monkeypatch, flags, terminal, kind):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert type(console.choose(**flags)) is kind


class Shell:
    """What IPython gives in a notebook."""

    kernel = object()


def test_python_functions_show_progress_in_a_notebook_and_nothing_elsewhere(monkeypatch, capsys):
    shown: list[str] = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return Handle()

    def report():
        console.note("note")
        console.warn("careful\x1b[31m")
        with console.progress("train", 4) as bar:
            bar.advance(4, loss=0.5)

    def work():
        Context().run(report)  # as in a new process: nobody has chosen a reporter

    work()
    assert capsys.readouterr() == ("", "")
    ipython, shell = ModuleType("IPython"), [None]
    ipython.get_ipython = lambda: shell[0]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ModuleType("IPython.display"))
    sys.modules["IPython.display"].display = display
    work()  # IPython in a terminal
    assert capsys.readouterr() == ("", "") and not shown
    shell[0] = Shell()
    work()
    assert capsys.readouterr().out == "note\nwarning: careful\\x1b[31m\n"
    assert shown[0] == "train 0/4" and shown[-1].startswith("train 4/4") and "loss 0.5" in shown[-1]
