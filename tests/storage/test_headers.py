"""Headers are opened once: sizes come from the cache until a file changes."""

import numpy as np
import pytest

import toy
from facekit.errors import InputError
from facekit.storage import headers, images, remembered
from facekit.storage.folder import Folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Five images, and a cache for so few."""
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "FEWEST", 2)
    toy.fill(tmp_path / "in", 5, size=8)
    return tmp_path / "in"


@pytest.fixture
def opened(monkeypatch):
    """The names of the files whose headers are opened."""
    names = []
    size_of = images.size_of
    monkeypatch.setattr(images, "size_of", lambda path: names.append(path.name) or size_of(path))
    return names


def read(folder, limit=None):
    return headers.read_sizes(folder, Folder(folder).sources()[:limit])


def test_the_second_time_no_header_is_opened(folder, opened):
    first = read(folder)
    assert len(opened) == 5 and (first[0] == 8).all() and not first[1]
    opened.clear()
    assert np.array_equal(read(folder)[0], first[0]) and not opened


def test_only_what_has_changed_is_opened_again(folder, opened):
    read(folder)
    toy.picture(12).save(folder / "002.png")
    toy.picture(8).save(folder / "new.png")
    (folder / "003.png").unlink()
    opened.clear()
    sizes, _ = read(folder)
    assert sorted(opened) == ["002.png", "new.png"]
    assert sizes[:, 0].tolist() == [8, 8, 12, 8, 8]


def test_a_part_of_a_folder_keeps_what_is_known_of_the_rest(folder, opened):
    read(folder, 3)
    read(folder)
    opened.clear()
    read(folder, 2)
    read(folder)
    assert not opened


def test_a_broken_image_is_an_error_each_time(folder):
    (folder / "001.png").write_text("no image")
    for _ in range(2):
        sizes, errors = read(folder)
        assert list(errors) == [1] and isinstance(errors[1], InputError) and sizes[1].tolist() == [0, 0]


@pytest.mark.parametrize("damage", [b"", b"no archive", None], ids=["empty", "other", "cut"])
def test_a_damaged_cache_is_read_as_none(folder, tmp_path, damage, opened):
    first = read(folder)
    (cache,) = (tmp_path / "cache" / "headers").iterdir()
    cache.write_bytes(cache.read_bytes()[:-40] if damage is None else damage)
    opened.clear()
    assert np.array_equal(read(folder)[0], first[0]) and len(opened) == 5


def test_few_images_leave_no_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(remembered, "FEWEST", 6)
    read(folder)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_does_not_matter(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "file"))
    assert (read(folder)[0] == 8).all()
