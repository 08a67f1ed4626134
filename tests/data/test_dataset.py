"""Where the two domains lie, what they are called, and which images are kept out of training."""

import pytest

import toy
from facekit.data.dataset import Layout, open_layout
from facekit.errors import CardError, InputError
from facekit.runtime import console
from facekit.storage import card


@pytest.fixture(autouse=True)
def told():
    """What is said while a test runs: notes, warnings and facts."""
    said: dict[str, list] = {"note": [], "warn": [], "fact": []}

    class Keep(console.Reporter):
        def note(self, text):
            said["note"].append(text)

        def warn(self, text):
            said["warn"].append(text)

        def fact(self, kind, **fields):
            said["fact"].append((kind, fields))

    token = console.current.set(Keep())
    yield said
    console.current.reset(token)


def layout(**data: object) -> Layout:
    return open_layout(card.Data(**{key: str(v) if hasattr(v, "joinpath") else v for key, v in data.items()}))


def counts(found: Layout) -> dict[str, tuple[int, int]]:
    return {side: (len(found.train[side]), len(found.previews[side])) for side in "ab"}


# finding


@pytest.mark.parametrize("pair", [("trainA", "trainB"), ("a", "b")])
def test_both_layouts_of_one_root_are_found_and_named_a_and_b(tmp_path, pair):
    for seed, name in enumerate(pair):
        toy.fill(tmp_path / name, 2 + seed, seed=seed)
    found = layout(root=tmp_path, holdout=0)
    assert found.names == {"a": "a", "b": "b"}
    assert [path.parent.name for path in found.train["a"]] == [pair[0]] * 2
    assert [path.parent.name for path in found.train["b"]] == [pair[1]] * 3


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ("photos", "my toons", {"a": "photos", "b": "my toons"}),
        ("x/train", "y/train", {"a": "a", "b": "b"}),
        ("x/../写真", "toons/.", {"a": "写真", "b": "toons"}),
    ],
)
def test_two_folders_give_the_domains_their_names(tmp_path, a, b, names):
    (tmp_path / "x").mkdir()
    for seed, name in enumerate((a, b)):
        toy.fill((tmp_path / name).resolve(), 1, seed=seed)
    assert layout(a=tmp_path / a, b=tmp_path / b).names == names


def test_sub_folders_of_a_domain_belong_to_it(tmp_path):
    toy.domains(tmp_path, 2)
    toy.fill(tmp_path / "trainA/more", 3)
    assert len(layout(root=tmp_path, holdout=0).train["a"]) == 5


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ({}, CardError, "no training data"),
        ({"a": "photos"}, CardError, "only one of the two domains"),
        ({"b": "photos"}, CardError, "only one of the two domains"),
        ({"root": "nowhere"}, InputError, "no such file or folder.*nowhere"),
        ({"root": "half"}, InputError, r"half has neither .*\(it has trainA\)"),
        ({"root": "photos"}, InputError, "photos has neither .*no folders"),
        ({"a": "photos", "b": "nowhere"}, InputError, "nowhere"),
        ({"a": "photos", "b": "empty"}, InputError, "no images in .*empty"),
        ({"a": "photos", "b": "broken"}, InputError, "no readable image in .*broken"),
    ],
)
def test_data_that_is_not_there_is_refused_by_name(tmp_path, data, error, says):
    toy.fill(tmp_path / "photos", 1)
    toy.fill(tmp_path / "half/trainA", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_bytes(b"")
    with pytest.raises(error, match=says) as caught:
        layout(**{key: tmp_path / name for key, name in data.items()})
    assert caught.value.hint


# held out


@pytest.mark.parametrize(
    ("holdout", "expected"), [(None, (30, 2)), (0, (32, 4)), (1, (31, 1)), (8, (24, 8)), (99, (1, 31))]
)
def test_images_for_previews_are_kept_out_of_training(tmp_path, holdout, expected):
    """With none kept out the preview shows training images; at least one image stays to train on."""
    toy.fill(tmp_path / "a", 32, seed=1)
    toy.fill(tmp_path / "b", 32, seed=2)
    found = layout(root=tmp_path, holdout=holdout)
    assert counts(found) == {"a": expected, "b": expected}
    assert holdout == 0 or not set(found.train["a"]) & set(found.previews["a"])
    assert {path.parent.name for path in found.previews["b"]} == {"b"}


def test_a_sixteenth_is_kept_out_and_at_most_sixteen(tmp_path):
    toy.fill(tmp_path / "a", 1)
    toy.fill(tmp_path / "b", 300, size=8)
    assert counts(layout(root=tmp_path)) == {"a": (1, 1), "b": (284, 16)}


def test_images_for_previews_are_spread_evenly(tmp_path):
    toy.fill(tmp_path / "a", 8)
    toy.fill(tmp_path / "b", 8)
    held = layout(root=tmp_path, holdout=4).previews["a"]
    assert [path.stem for path in held] == ["000", "002", "004", "006"]


@pytest.mark.parametrize("pair", [("valA", "valB"), ("testA", "testB")])
def test_a_held_out_part_of_the_data_leaves_training_whole(tmp_path, pair):
    toy.domains(tmp_path, 20)
    for name in pair:
        toy.fill(tmp_path / name, 20)
    found = layout(root=tmp_path)
    assert counts(found) == {"a": (20, 16), "b": (21, 16)}
    assert {path.parent.name for path in found.previews["a"]} == {pair[0]}
    assert counts(layout(root=tmp_path, holdout=3)) == {"a": (20, 3), "b": (21, 3)}


def test_val_goes_before_test_and_half_a_pair_is_none(tmp_path):
    toy.domains(tmp_path, 4)
    for name in ("valA", "testA", "testB"):
        toy.fill(tmp_path / name, 1)
    assert layout(root=tmp_path).previews["a"][0].parent.name == "testA"
    toy.fill(tmp_path / "valB", 1)
    assert layout(root=tmp_path).previews["a"][0].parent.name == "valA"


def test_a_limit_takes_the_first_images_of_each_domain(tmp_path):
    toy.domains(tmp_path, 6)
    found = layout(root=tmp_path, limit=3, holdout=0)
    assert [path.stem for path in found.train["a"]] == ["000", "001", "002"] and len(found.train["b"]) == 3


# what is said


def test_one_line_tells_counts_sizes_and_what_was_skipped(tmp_path, told):
    toy.fill(tmp_path / "photos", 4, size=16)
    toy.fill(tmp_path / "photos/large", 1, size=24)
    toy.fill(tmp_path / "toons", 5, size=20, seed=2)
    (tmp_path / "photos/empty.png").write_bytes(b"")
    (tmp_path / "photos/text.jpg").write_text("no image")
    (tmp_path / "photos/notes.txt").write_text("")
    found = layout(a=tmp_path / "photos", b=tmp_path / "toons", holdout=1)
    assert counts(found) == {"a": (4, 1), "b": (4, 1)}
    assert told["note"] == [
        "photos: 5 images of 16-24 px (skipped 2 unreadable, 1 other files); "
        "toons: 5 images of 20 px; previews of 1 + 1"
    ]
    assert len(told["warn"]) == 2 and "empty.png is empty" in told["warn"][0] and "text.jpg" in told["warn"][1]
    kind, fields = told["fact"][0]
    assert kind == "data" and fields["b"] == {"folder": str(tmp_path / "toons"), "images": 4, "held_out": 1}


def test_labels_are_not_for_two_domains(tmp_path):
    data = card.Data(root=str(toy.domains(tmp_path)), labels="labels.csv")
    with pytest.raises(CardError, match="does not use labels"):
        open_layout(data)
