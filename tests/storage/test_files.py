"""Files are there whole or not at all, and whoever cannot write says why and what next."""

import builtins
import errno
import os
import stat
import subprocess
import sys
import tracemalloc

import pytest

import toy
from facekit.errors import OutputError
from facekit.storage import files

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EIO)


@pytest.fixture(params=ERRORS, ids=lambda number: errno.errorcode[number])
def broken(request, monkeypatch):
    """Makes a function of a module raise an OSError, as a full or read-only disk does."""

    def break_(where: object, name: str) -> None:
        def fail(*arguments, **options):
            raise OSError(request.param, os.strerror(request.param), "somewhere")

        monkeypatch.setattr(where, name, fail)

    return break_


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_holds_what_was_written(tmp_path):
    files.write_bytes(tmp_path / "deep/er/a.bin", b"\x00\xff")
    files.write_text(tmp_path / "deep/er/b.txt", "ä\n")
    assert (tmp_path / "deep/er/a.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "deep/er/b.txt").read_bytes() == b"\xc3\xa4\n"
    assert names(tmp_path / "deep/er") == ["a.bin", "b.txt"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit()])
def test_an_exception_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, error):
    def write():
        with files.replacing(tmp_path / "a") as part:
            part.write_text("half of the n")
            raise error

    files.write_text(tmp_path / "a", "old")
    with pytest.raises(type(error)):
        write()
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    files.write_text(tmp_path / "a", "old")
    with files.replacing(tmp_path / "a") as part:
        part.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    code = f"import os; os.umask({umask}); from facekit.storage import files; files.write_text(files.Path('a'), '')"
    around = {**os.environ, "PYTHONPATH": str(files.__file__).removesuffix("/facekit/storage/files.py")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=around)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize(
    ("where", "name"),
    [(os, "replace"), (os, "open"), (files.Path, "write_bytes"), (files.Path, "mkdir")],
)
def test_a_disk_that_refuses_is_an_error_with_a_next_step(tmp_path, broken, where, name):
    files.write_text(tmp_path / "a", "old")
    broken(where, name)
    with pytest.raises(OutputError) as caught:
        files.write_bytes(tmp_path / "a", b"new")
    assert caught.value.code == 3 and caught.value.hint
    assert caught.value.message.startswith(f"cannot write {tmp_path}")
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_a_full_disk_is_found_behind_what_torch_raises_over_it(tmp_path):
    def save():
        with files.replacing(tmp_path / "a"):
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            finally:
                raise RuntimeError("unexpected pos 704 vs 598")

    with pytest.raises(OutputError, match="disk is full"):
        save()
    assert names(tmp_path) == []


def test_a_line_that_cannot_be_appended_is_an_error_with_a_next_step(tmp_path, broken):
    broken(builtins, "open")
    with pytest.raises(OutputError, match="cannot write") as caught:
        files.append_line(tmp_path / "log", "x")
    assert caught.value.hint


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_says_so():
    with pytest.raises(OutputError, match="disk is full") as caught:
        files.append_line(files.Path("/dev/full"), "x")
    assert "free some space" in caught.value.hint


def test_a_line_written_in_part_is_a_full_disk(tmp_path):
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, old[1]))
    try:
        with pytest.raises(OutputError, match="disk is full"):
            files.append_line(tmp_path / "log", "x" * 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("write", [files.write_text, files.append_line])
def test_names_that_are_not_utf_8_are_escaped(tmp_path, write):
    write(tmp_path / "a", '"é\udcff"')
    assert (tmp_path / "a").read_text(encoding="utf-8").rstrip() == '"é\\udcff"'


@pytest.mark.parametrize("path", ["file", "file/below", "file/below/it"])
def test_a_file_where_a_folder_should_be_is_named(tmp_path, path):
    (tmp_path / "file").write_text("I was here first")
    with pytest.raises(OutputError, match="file") as caught:
        files.make_folder(tmp_path / path)
    assert caught.value.code == 3 and "another output folder" in caught.value.hint
    assert (tmp_path / "file").read_text() == "I was here first"


def test_a_command_on_a_full_disk_exits_3_and_says_what_next(tmp_path, facekit, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    toy.fill(tmp_path / "in", 1)
    monkeypatch.setattr(os, "replace", full)
    done = facekit("align", tmp_path / "in", tmp_path / "out")
    assert done.code == 3
    assert "the disk is full" in done.err and "next: free some space" in done.err


@pytest.mark.slow
def test_what_fits_a_pattern_is_found_without_a_list_of_the_rest(tmp_path):
    assert files.matching(tmp_path / "gone", "*") == []
    names = ["b.jsonl", "a.1.jsonl", ".a.jsonl", "a.txt"]
    for name in (*names, *(f"{number:05d}.png" for number in range(3000))):
        (tmp_path / name).touch()
    assert [path.name for path in files.matching(tmp_path, "*.jsonl")] == [".a.jsonl", "a.1.jsonl", "b.jsonl"]
    assert files.matching(tmp_path, "a*.jsonl") == [tmp_path / "a.1.jsonl"]
    tracemalloc.start()
    files.matching(tmp_path, "*.jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 3000
