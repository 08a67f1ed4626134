"""Photos with masks: the plain layout, CelebAMask-HQ's, and what is wrong with them."""

import numpy as np
import pytest
from PIL import Image

from facekit.data import face_masks
from facekit.data.loader import Batches
from facekit.errors import CardError, InputError
from facekit.storage import card

CLASSES = ("background", "skin", "l_eye", "r_eye")


def photo(path, size=32, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def index_mask(path, size=32, top=None):
    """Left half skin, an l_eye in its upper corner; `top` is put into the last pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((size, size), np.uint8)
    labels[:, : size // 2] = 1
    labels[:4, :4] = 2
    if top is not None:
        labels[-1, -1] = top
    Image.fromarray(labels).save(path)


def plain(root, train=4, test=2):
    for part, count in (("train", train), ("test", test)):
        for i in range(count):
            photo(root / part / "images" / f"{i}.jpg", seed=i)
            index_mask(root / part / "masks" / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def opened(root, parts="face", **data):
    return face_masks.open_masks(card.Data(root=str(root), size=32, **data), parts)


def test_the_plain_layout_gives_photos_masks_and_class_names(tmp_path):
    layout = opened(plain(tmp_path))
    assert (len(layout.train["a"]), len(layout.test["a"])) == (4, 2)
    assert layout.params == {"classes": CLASSES}
    sample = layout.readers["a"].read(layout.train["a"][0], 16)
    assert sample["a"].shape == (16, 16, 3) and sample["a_mask"].shape == (16, 16)
    assert set(np.unique(sample["a_mask"])) == {0, 1, 2}  # nearest: no class in between


def test_images_and_masks_at_the_top_are_split(tmp_path):
    for i in range(20):
        photo(tmp_path / "images" / f"{i}.jpg", seed=i)
        index_mask(tmp_path / "masks" / f"{i}.png")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    layout = opened(tmp_path, split=(8, 1, 1))
    assert (len(layout.train["a"]), len(layout.test["a"])) == (16, 2)
    assert not set(layout.train["a"]) & (set(layout.test["a"]) | set(layout.previews["a"]))


def test_a_mirror_swaps_left_and_right():
    assert face_masks.mirrored(CLASSES).tolist() == [0, 1, 3, 2]
    assert face_masks.mirrored(("background", "l_eye", "skin")).tolist() == [0, 1, 2]  # no right one to become


def test_a_mirrored_sample_keeps_photo_and_mask_together(tmp_path):
    layout = opened(plain(tmp_path))
    reader = layout.readers["a"]
    sample = reader.read(layout.train["a"][0], 32)
    turned = reader.mirror(sample)
    assert np.array_equal(turned["a"], sample["a"][:, ::-1])
    assert (turned["a_mask"][:4, -4:] == 3).all() and (sample["a_mask"][:4, :4] == 2).all()


def test_batches_give_photos_and_label_maps(tmp_path):
    layout = opened(plain(tmp_path))
    batches = Batches.of(layout.train, 32, layout.readers, seed=0, batch=3, size=32)
    (batch,) = batches(0)
    assert batch["a"].shape == (3, 3, 32, 32) and batch["a"].abs().max() <= 1
    assert batch["a_mask"].shape == (3, 32, 32) and not batch["a_mask"].is_floating_point()
    for number in range(3):  # the eye is where the photo's corner went
        left = bool((batch["a_mask"][number, :4, :4] == 2).all())
        right = bool((batch["a_mask"][number, :4, -4:] == 3).all())
        assert left != right


# what is wrong


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / "classes.txt").unlink(), "classes.txt"),
        (lambda root: [p.unlink() for p in (root / "train/masks").iterdir()], "mask"),
        (lambda root: index_mask(root / "train/masks/1.png", top=9), "class 9"),
        (lambda root: photo(root / "train/masks/1.png"), "colour image"),
        (lambda root: (root / "train/masks/1.png").write_bytes(b""), "cannot be decoded|empty"),
    ],
)
def test_a_spoilt_layout_is_refused_or_reported(tmp_path, capsys, facekit, spoil, words):
    root = plain(tmp_path / "data")
    spoil(root)
    done = facekit("train-segnet", "--data", root, "--out", tmp_path / "run", "--size", 32, "--dry-run")
    assert (done.code == 3 and "next:" in done.err) or "left out" in done.err
    assert any(word in done.err for word in words.split("|")), done.err


def test_photos_without_masks_and_masks_without_photos_are_left_out_aloud(tmp_path, facekit):
    root = plain(tmp_path / "data")
    (root / "train/masks/1.png").unlink()
    index_mask(root / "train/masks/lonely.png")
    index_mask(root / "train/masks/2.png", size=16)
    done = facekit("train-segnet", "--data", root, "--out", tmp_path / "run", "--size", 32, "--dry-run")
    assert done.code == 0, done.err
    assert "1.jpg has no mask" in done.err and "lonely.png has no photo" in done.err
    assert "2.jpg is (32, 32) px and its mask (16, 16) px" in done.err
    assert len(opened(root).train["a"]) == 2


def test_no_root_is_a_usage_error():
    with pytest.raises(CardError, match="no photos"):
        face_masks.open_masks(card.Data(a="x", b="y"))


# CelebAMask-HQ


def part(root, number, name, box, size=64):
    path = root / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05d}_{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((size, size), np.uint8)
    labels[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(labels).convert("RGB").save(path)


@pytest.fixture
def celeba(tmp_path):
    """Five faces: two for training, one for validation, one for the test, one of folder 1; parts overlap."""
    originals = {0: 5, 1: 6, 2: 170000, 3: 190000, 2001: 7}
    for number in originals:
        photo(tmp_path / "CelebA-HQ-img" / f"{number}.jpg", size=128, seed=number)
        part(tmp_path, number, "skin", (0, 0, 64, 64))
        part(tmp_path, number, "l_eye", (0, 0, 16, 16))
        part(tmp_path, number, "hat", (0, 48, 64, 64))
    lines = [f"{k} {v} {v:06d}.jpg" for k, v in originals.items()]
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text("idx orig_idx orig_file\n" + "\n".join(lines) + "\n")
    return tmp_path


def test_celebamask_is_split_as_celeba_is(celeba):
    layout = opened(celeba)
    stems = {"train": layout.train["a"], "val": layout.previews["a"], "test": layout.test["a"]}
    assert {k: [p.stem for p in v] for k, v in stems.items()} == {
        "train": ["0", "1", "2001"],
        "val": ["2"],
        "test": ["3"],
    }


def test_celebamask_parts_cover_each_other_in_the_lists_order(celeba):
    layout = opened(celeba, "all")
    names = layout.params["classes"]
    assert len(names) == 19 and names[:2] == ("background", "skin")
    mask = layout.readers["a"].read(layout.train["a"][0], 64)["a_mask"]
    assert names[mask[4, 4]] == "l_eye" and names[mask[30, 30]] == "skin" and names[mask[60, 4]] == "hat"
    grouped = opened(celeba)
    mask = grouped.readers["a"].read(grouped.train["a"][0], 64)["a_mask"]
    assert [grouped.params["classes"][mask[y, x]] for y, x in ((4, 4), (30, 30), (60, 4))] == [
        "eyes",
        "skin",
        "background",
    ]


def test_celebamask_left_becomes_right_in_a_mirror(celeba):
    layout = opened(celeba, "all")
    reader, names = layout.readers["a"], layout.params["classes"]
    turned = reader.mirror(reader.read(layout.train["a"][0], 64))["a_mask"]
    assert names[turned[4, -4]] == "r_eye"


def test_celebamask_with_gaps_is_used_without_them_and_says_so(celeba, facekit, tmp_path):
    (celeba / "CelebA-HQ-img/1.jpg").unlink()
    for path in (celeba / "CelebAMask-HQ-mask-anno/1").iterdir():
        path.unlink()
    done = facekit("train-segnet", "--data", celeba, "--out", tmp_path / "run", "--size", 32, "--dry-run")
    assert done.code == 0 and "missing as an image (1)" in done.err and "missing with masks (2001)" in done.err


@pytest.mark.parametrize("gone", ["CelebA-HQ-to-CelebA-mapping.txt", "CelebA-HQ-img"])
def test_celebamask_that_is_not_whole_is_refused(celeba, gone):
    path = celeba / gone
    path.rename(celeba / "elsewhere")
    with pytest.raises(InputError, match=gone):
        opened(celeba)
