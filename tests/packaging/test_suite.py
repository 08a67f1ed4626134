"""The suite itself: which of its tests run, and which are read at all."""

import pytest

PAIR = "import pytest\n\n\ndef test_quick():\n    pass\n\n\n@pytest.mark.slow\ndef test_slow():\n    pass\n"


@pytest.fixture
def rule(request):
    """The conftest of all tests."""
    return next(known for known in request.config.pluginmanager.get_plugins() if hasattr(known, "slow_asked"))


@pytest.mark.parametrize(
    ("asked", "ran"),
    [
        ([], ["test_quick"]),
        (["-k", "slow"], []),
        (["--slow"], ["test_quick", "test_slow"]),
        (["-m", "slow"], ["test_slow"]),
        (["::test_slow"], ["test_slow"]),
    ],
)
def test_slow_tests_run_where_somebody_asks_for_them(rule, tmp_path, capsys, asked, ran):
    file = tmp_path / "test_pair.py"
    file.write_text(PAIR)
    seen = []

    class Watch:
        def pytest_runtest_call(self, item):
            seen.append(item.name)

    given = [f"{file}{asked[0]}"] if asked and asked[0].startswith("::") else [str(file), *asked]
    pytest.main(
        [*given, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "--import-mode=importlib"],
        [rule, Watch()],
    )
    assert seen == ran
    left_out = "were left out: --slow runs them" in capsys.readouterr().out
    assert left_out == (asked in ([], ["-k", "slow"]))


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        (["-k", "nets"], {"nets"}),
        (["-k", "nets or sky"], {"nets", "faces"}),
        (["-k", "sky"], {"nets", "faces"}),
        (["faces", "-k", "nets"], {"faces"}),
        ([], {"nets", "faces"}),
    ],
)
def test_only_the_room_that_is_asked_for_is_read(rule, tmp_path, monkeypatch, capsys, asked, read):
    monkeypatch.setattr(rule, "TESTS", tmp_path)
    monkeypatch.setattr(rule, "ROOT", tmp_path.parent)
    monkeypatch.chdir(tmp_path)
    for room in ("nets", "faces"):
        (tmp_path / room).mkdir()
        (tmp_path / room / f"test_{room}.py").write_text("def test_sky():\n    pass\n")
    seen = set()

    class Watch:
        def pytest_collect_file(self, file_path):
            seen.add(file_path.parent.name)

    given = asked if asked[:1] == ["faces"] else [".", *asked]
    pytest.main(
        [*given, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "--import-mode=importlib"], [rule, Watch()]
    )
    assert seen == read
    assert ("only tests/nets was looked at" in capsys.readouterr().out) == (asked == ["-k", "nets"])
