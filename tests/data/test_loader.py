"""Batches depend on seed, step and process, and on nothing that ran before."""

from collections import Counter

import numpy as np
import pytest
import torch

import toy
from facekit.data import loader
from facekit.data.loader import Batches, Domain
from facekit.data.reader import Reader
from facekit.data.sample_cache import SampleCache
from facekit.errors import InputError
from facekit.runtime import console, distributed
from facekit.storage import images


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Seven pictures of domain a, five of domain b."""
    root = tmp_path_factory.mktemp("pictures")
    toy.fill(root / "a", 7, size=12, seed=1)
    toy.fill(root / "b", 5, size=12, seed=2)
    return {name: sorted((root / name).glob("*.png")) for name in "ab"}


def make(paths, load_size=10, **options) -> Batches:
    return Batches.of(paths, load_size, **{"seed": 0, "batch": 2, "size": 8, **options})


def plain(paths, **options) -> Batches:
    """Batches neither cropped nor mirrored."""
    return make(paths, 8, flip=False, **options)


def equal(one: list[dict], two: list[dict]) -> bool:
    pairs = zip(one, two, strict=True)
    return all(x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in pairs)


def joined(batches: list[dict], name: str = "a") -> torch.Tensor:
    return torch.cat([batch[name] for batch in batches])


def which(paths, images_: torch.Tensor, name: str = "a") -> list[int]:
    """Say which pictures of a domain these are."""
    known = [images.to_tensor(images.resize(images.read(path), 8)) for path in paths[name]]
    return [next(i for i, k in enumerate(known) if torch.allclose(x, k, atol=1e-6)) for x in images_]


@pytest.fixture
def two_processes(monkeypatch):
    """Makes this process the one of `rank` among two."""

    monkeypatch.setattr(distributed, "from_first_here", lambda text: text)
    monkeypatch.setattr(distributed, "barrier", lambda: None)

    def become(rank: int) -> None:
        monkeypatch.setattr(distributed, "size", lambda: 2)
        monkeypatch.setattr(distributed, "rank", lambda: rank)

    return become


def test_a_batch_is_a_tensor_per_domain_in_range(paths):
    (batch,) = make(paths)(0)
    assert {name: tuple(x.shape) for name, x in batch.items()} == {"a": (2, 3, 8, 8), "b": (2, 3, 8, 8)}
    assert all(x.dtype == torch.float32 and x.min() >= -1 and x.max() <= 1 for x in batch.values())
    assert make(paths, dtype=torch.float64)(0)[0]["a"].dtype == torch.float64


def test_a_step_gives_the_same_whatever_ran_before(paths):
    one, two = make(paths), make(paths)
    first = [one(step) for step in range(12)]
    assert all(equal(two(step), first[step]) for step in (7, 0, 11, 7, 3))


def test_another_seed_or_step_gives_another_batch(paths):
    batches = make(paths)
    assert not equal(batches(0), batches(1))
    assert not equal(batches(0), make(paths, seed=1)(0))


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_every_image_comes_once_per_pass_and_passes_differ(paths, name, batch):
    batches, count = plain(paths, batch=batch), len(paths[name])
    seen = which(paths, torch.cat([joined(batches(step), name) for step in range(-(-3 * count // batch))]), name)
    passes = [seen[i * count : (i + 1) * count] for i in range(3)]
    assert all(sorted(one) == list(range(count)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1


def test_the_domains_have_orders_of_their_own(paths):
    both = {"a": paths["a"], "b": paths["a"]}
    batches = plain(both, batch=7)
    assert which(both, batches(0)[0]["a"]) != which(both, batches(0)[0]["b"], "b")


def test_a_pass_over_the_larger_domain_is_an_epoch(paths, two_processes):
    assert make(paths, batch=2).epoch_steps == 4
    assert make(paths, batch=2, accumulate=2).epoch_steps == 2
    two_processes(0)
    assert make(paths, batch=2).epoch_steps == 2


@pytest.mark.parametrize("step", [0, 1, 5])
def test_two_processes_together_see_what_one_sees(paths, two_processes, step):
    whole = make(paths, batch=4)(step)
    parts = []
    for rank in (0, 1):
        two_processes(rank)
        parts += make(paths, batch=2)(step)
    assert equal(whole, [{name: torch.cat([part[name] for part in parts]) for name in "ab"}])


@pytest.mark.parametrize("step", [0, 1, 5])
def test_accumulation_splits_the_same_images(paths, step):
    parts = make(paths, batch=2, accumulate=3)(step)
    assert len(parts) == 3
    assert all(torch.equal(joined(parts, name), make(paths, batch=6)(step)[0][name]) for name in "ab")


def test_two_processes_that_accumulate_see_what_one_sees(paths, two_processes):
    whole = Counter(which(paths, plain(paths, batch=4)(0)[0]["a"]))
    seen: Counter[int] = Counter()
    for rank in (0, 1):
        two_processes(rank)
        seen += Counter(which(paths, joined(plain(paths, batch=1, accumulate=2)(0))))
    assert seen == whole


def test_images_are_mirrored_only_if_asked(tmp_path):
    toy.picture(8).save(tmp_path / "one.png")
    one = {"a": [tmp_path / "one.png"]}
    upright = images.to_tensor(images.read(tmp_path / "one.png"))

    def kinds(flip: bool) -> set[str]:
        seen = torch.cat([make(one, 8, flip=flip)(step)[0]["a"] for step in range(10)])
        assert all(torch.equal(x, upright) or torch.equal(x, upright.flip(2)) for x in seen)
        return {"upright" if torch.equal(x, upright) else "mirrored" for x in seen}

    assert kinds(flip=False) == {"upright"}
    assert kinds(flip=True) == {"upright", "mirrored"}


def test_crops_are_parts_of_the_image_and_differ(tmp_path):
    grey = np.arange(100, dtype=np.uint8).reshape(10, 10)
    images.Image.fromarray(grey).save(tmp_path / "one.png")
    batches = make({"a": [tmp_path / "one.png"]}, flip=False)
    corners = {int(x[0, 0, 0].add(1).mul(127.5).round()) for step in range(30) for x in batches(step)[0]["a"]}
    assert corners <= {10 * y + x for y in range(3) for x in range(3)} and len(corners) == 9


@pytest.mark.parametrize("damage", ["no image", None], ids=["damaged", "gone"])
def test_in_place_of_a_broken_image_comes_the_next(tmp_path, damage):
    toy.fill(tmp_path, 4, size=8)
    found = {"a": sorted(tmp_path.glob("*.png"))}
    whole = plain(found, batch=4)
    expected = [(i + 1) % 4 if i == 1 else i for i in which(found, whole(0)[0]["a"])]
    found["a"][1].write_text(damage) if damage else found["a"][1].unlink()
    said = []
    token = console.current.set(type("Keep", (console.Reporter,), {"warn": lambda self, text: said.append(text)})())
    seen = plain(found, batch=4)(0)[0]["a"]
    console.current.reset(token)
    toy.picture(8, 1).save(found["a"][1])
    assert which(found, seen) == expected
    assert len(said) == 1 and "001.png" in said[0] and "next image" in said[0]


def test_a_broken_image_is_reported_once(tmp_path, capsys):
    toy.fill(tmp_path, 2, size=8)
    (tmp_path / "000.png").write_text("no image")
    token = console.current.set(console.Plain())
    batches = plain({"a": sorted(tmp_path.glob("*.png"))})
    for step in range(3):
        batches(step)
    console.current.reset(token)
    assert capsys.readouterr().err.count("warning") == 1


def test_a_domain_of_broken_images_is_an_input_error(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(InputError, match="domain a") as caught:
        plain({"a": [tmp_path / "a.png"]})(0)
    assert caught.value.hint


def test_images_of_any_shape_become_their_middle_square(tmp_path):
    wide = images.Image.new("RGB", (24, 8), "black")
    wide.paste("white", (8, 0, 16, 8))
    wide.save(tmp_path / "a.png")
    assert (plain({"a": [tmp_path / "a.png"]})(0)[0]["a"] == 1).all()


def test_the_stream_equals_the_calls(paths):
    batches = make(paths)
    for workers in (1, 4):
        streamed = list(make(paths).stream(3, 11, workers))
        assert len(streamed) == 8 and all(equal(x, batches(3 + i)) for i, x in enumerate(streamed))
    assert list(batches.stream(5, 5)) == []


def test_an_error_in_the_stream_reaches_who_reads_it(tmp_path):
    with pytest.raises(InputError):
        list(plain({"a": [tmp_path / "gone.png"]}).stream(0, 5))


@pytest.mark.parametrize("room", [0, 1, 3, 100])
def test_images_that_the_cache_has_no_room_for_are_decoded_again_and_equal(paths, room):
    bytes_each = 6 * 64  # 10 x 10 x 3 pixels, and what says so
    tight = Domain(Reader("a"), paths["a"], 10, SampleCache(7, room * bytes_each))
    loose = Domain(Reader("a"), paths["a"], 10)
    for index in [*range(7), *range(7)]:
        assert np.array_equal(tight.sample(index)["a"], loose.sample(index)["a"])
    assert len(tight.cache) == min(room, 7)


def test_with_and_without_a_cache_batches_are_the_same(paths):
    kept, plain = make(paths, 12), make(paths, 12)
    for domain in plain.domains:
        domain.cache = None
    assert all(equal(kept(step), plain(step)) for step in (3, 0, 1, 2, 3, 0, 7))
    assert len(kept.domains[0].cache) == 12


@pytest.mark.parametrize(("free", "room"), [(1000, 400), (0, 0), (None, 1.6e9)])
def test_decoded_images_take_a_share_of_the_memory_that_is_free(paths, monkeypatch, free, room):
    asked = []
    monkeypatch.setattr(loader, "SampleCache", lambda count, room: asked.append((count, room)))
    monkeypatch.setattr(loader, "available_memory", lambda: free)
    make(paths)
    assert asked == [(12, pytest.approx(room))]


def test_a_domain_that_a_step_does_not_look_at_is_not_decoded(paths):
    batches = make(paths, active=lambda step: "ab"[step % 2])
    assert [set(batches(step)[0]) for step in (0, 1, 0)] == [{"a"}, {"b"}, {"a"}]
    assert torch.equal(batches(3)[0]["b"], make(paths)(3)[0]["b"])
    assert sum(batches.domains[0].cache.get(number) is not None for number in range(7)) <= 2


def test_threads_that_meet_the_same_broken_image_report_it_once(tmp_path, capsys):
    toy.fill(tmp_path, 2, size=8)
    (tmp_path / "000.png").write_text("no image")
    token = console.current.set(console.Plain())
    list(plain({"a": sorted(tmp_path.glob("*.png"))}).stream(0, 12, workers=4))
    console.current.reset(token)
    assert capsys.readouterr().err.count("warning") == 1
