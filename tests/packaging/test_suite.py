"""The suite itself: which of its tests run."""

import pytest

PAIR = "import pytest\n\n\ndef test_quick():\n    pass\n\n\n@pytest.mark.slow\ndef test_slow():\n    pass\n"


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
def test_slow_tests_run_where_somebody_asks_for_them(request, tmp_path, capsys, asked, ran):
    file = tmp_path / "test_pair.py"
    file.write_text(PAIR)
    seen = []

    class Watch:
        def pytest_runtest_call(self, item):
            seen.append(item.name)

    rule = next(known for known in request.config.pluginmanager.get_plugins() if hasattr(known, "slow_asked"))
    given = [f"{file}{asked[0]}"] if asked and asked[0].startswith("::") else [str(file), *asked]
    pytest.main(
        [*given, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "--import-mode=importlib"],
        [rule, Watch()],
    )
    assert seen == ran
    left_out = "were left out: --slow runs them" in capsys.readouterr().out
    assert left_out == (asked in ([], ["-k", "slow"]))
