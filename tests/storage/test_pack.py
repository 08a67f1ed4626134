"""A packed folder is read as the folder that it was packed from; WebDataset reads it, and facekit what it wrote."""

import io
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

import toy
from facekit.data.dataset import open_layout
from facekit.data.label_file import read_labels
from facekit.data.loader import Batches
from facekit.errors import CardError, InputError
from facekit.storage import card, content, headers, images, packed
from facekit.storage.folder import Folder
from facekit.storage.pack_folder import index, pack

VALUES = {"facekit": 1, "command": "pack", "options": {}}


@pytest.fixture
def root(tmp_path):
    """Two domains: names with dots, spaces and accents, a sub-folder, two files of one stem, a manifest."""
    root = tmp_path / "root"
    toy.fill(root / "a", 6, size=8, seed=1)
    toy.fill(root / "b", 4, size=8, seed=2)
    toy.fill(root / "a" / "deep er", 2, size=12, seed=3)
    for seed, name in enumerate(("é.1.png", "é.2.png", "twin.png", "twin.jpg")):
        toy.picture(8, 10 + seed).save(root / "a" / name)
    (root / "a" / "manifest.jsonl").write_text('{"file": "000.png", "roll": 5}\n')
    (root / "labels.csv").write_text("file,label\na/000.png,x\n")
    return root


@pytest.fixture
def shards(root, tmp_path):
    """The two domains packed, two images or so in a shard."""
    pack(Folder(root), tmp_path / "shards", 2000, VALUES)
    return tmp_path / "shards"


def pixels(folder):
    return {s.name: np.asarray(images.read(s.path)).tobytes() for s in Folder(folder).sources()}


def test_names_pixels_stamps_and_notes_are_those_of_the_folder(root, shards):
    assert len(list(shards.glob("*.tar"))) > 3
    for part in ("", "a", "b", "a/deep er"):
        assert Folder(shards / part).names == Folder(root / part).names
        assert pixels(shards / part) == pixels(root / part)
    before, after = (Folder(top / "a") for top in (root, shards))
    assert after.entries == before.entries == {"000.png": {"file": "000.png", "roll": 5}}
    for one, two in zip(before.sources(), after.sources(), strict=True):
        assert {**one.stamp(), "source_ctime": 0} == {**two.stamp(), "source_ctime": 0}
    assert content.is_file(shards / "a" / "000.png") and not content.is_file(shards / "a" / "no.png")
    assert content.is_folder(shards / "b") and not content.is_folder(shards / "c")
    assert (shards / "labels.csv").read_text() == (root / "labels.csv").read_text()


def test_sizes_come_from_the_index(shards, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    sizes, errors = headers.read_sizes(shards, Folder(shards).sources())
    assert not errors and sorted({tuple(size) for size in sizes.tolist()}) == [(8, 8), (12, 12)]


def test_training_takes_shards_and_sees_the_same_batches(root, shards):
    def batches(top):
        layout = open_layout(card.Data(root=str(top), size=8, holdout=1))
        return Batches.of(layout.train, 8, layout.readers, seed=3, batch=2, size=8)

    one, two = batches(root), batches(shards)
    for step in range(5):
        (x,), (y,) = one(step), two(step)
        assert x.keys() == y.keys() == {"a", "b"} and all(x[name].equal(y[name]) for name in x)


def test_the_folders_of_shards_are_labels(root, shards):
    one, two = (read_labels(card.Data(root=str(top))).train for top in (root, shards))
    assert [p.relative_to(root) for p in one] == [p.relative_to(shards) for p in two]
    assert list(one.values()) == list(two.values())


def test_a_folder_command_makes_the_same_of_both(root, shards, facekit, tmp_path):
    for name, top in (("one", root), ("two", shards)):
        assert facekit("smooth-edges", top, tmp_path / name, "--workers", 1).code == 0
    one, two = (
        {p.relative_to(top): p.read_bytes() for p in top.rglob("*.[pj]*") if p.is_file()}  # images and manifests
        for top in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two and len(one) == 17
    again = facekit("smooth-edges", shards, tmp_path / "two")
    assert "nothing to do" in again.err


def test_a_stopped_run_goes_on_and_a_second_packs_what_has_changed(root, shards):
    first = pack(Folder(root), shards, 2000, VALUES)
    assert first.written == 0 and first.images == 16
    tars = sorted(shards.glob("*.tar"))
    (shards / packed.CARD).replace(shards / packed.UNFINISHED)
    packed.index_file(tars[-1]).unlink()
    with pytest.raises(InputError, match="not finished"):
        Folder(shards).sources()
    assert pack(Folder(root), shards, 2000, VALUES).written == 1
    toy.picture(8, 99).save(root / "b" / "000.png")
    assert pack(Folder(root), shards, 2000, VALUES).written >= 1
    assert pixels(shards) == pixels(root)
    for path in (root / "b").iterdir():
        path.unlink()
    pack(Folder(root), shards, 2000, VALUES)
    assert pixels(shards) == pixels(root) and len(list(shards.glob("*.tar"))) < len(tars)


def test_files_of_one_stem_are_in_one_shard_and_in_a_row(shards):
    for tar in shards.glob("*.tar"):
        with tarfile.open(tar) as archive:
            names = archive.getnames()
        if "a/twin.png" in names:
            assert abs(names.index("a/twin.png") - names.index("a/twin.jpg")) == 1
            return
    raise AssertionError("no shard holds both")


def cut(tar):
    tar.write_bytes(tar.read_bytes()[:-3000])


def other(tar):
    tar.write_bytes(tar.read_bytes() + bytes(10240))


def no_index(tar):
    packed.index_file(tar).unlink()


def bad_index(tar):
    packed.index_file(tar).write_bytes(b"no archive")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "000001.tar is cut short"),
        (other, "000001.tar is not the shard that its index is of"),
        (os.remove, "000001.tar is missing"),
        (no_index, "000001.tar has no index"),
        (bad_index, "000001.index.npz is damaged"),
    ],
)
def test_shards_that_are_not_whole_are_an_error_with_a_next_step(root, shards, damage, said):
    damage(shards / "000001.tar")
    packed._open.cache_clear()
    with pytest.raises(InputError, match=said) as caught:
        Folder(shards).sources()
    assert caught.value.hint
    pack(Folder(root), shards, 2000, VALUES)
    assert pixels(shards) == pixels(root)


def test_an_image_that_is_not_what_the_index_says_is_an_error(shards):
    tar = shards / "000000.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    first = packed.PackedFolder(shards)
    with pytest.raises(InputError, match="not what its index says"):
        images.read(shards / first.names[0])


def test_other_tar_files_are_not_replaced_and_can_be_indexed(root, tmp_path, facekit):
    (tmp_path / "theirs").mkdir()
    with tarfile.open(tmp_path / "theirs" / "x.tar", "w") as archive:
        archive.add(root / "b" / "000.png", "./b/000.png")
        archive.add(root / "labels.csv", "notes.csv")
    with pytest.raises(InputError, match="without an index") as caught:
        Folder(tmp_path / "theirs").sources()
    assert "facekit pack" in caught.value.hint
    with pytest.raises(CardError, match="not packed by facekit"):
        pack(Folder(root), tmp_path / "theirs", 2000, VALUES)
    done = facekit("pack", tmp_path / "theirs", "--json")
    assert done.code == 0 and json.loads(done.out.splitlines()[-1])["images"] == 1
    assert pixels(tmp_path / "theirs") == {"b/000.png": pixels(root / "b")["000.png"]}
    assert index(tmp_path / "theirs").written == 0


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png"])
def test_a_shard_with_names_outside_its_folder_is_refused(tmp_path, root, name):
    data = (root / "b" / "000.png").read_bytes()
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    with pytest.raises(InputError, match="outside its folder"):
        index(tmp_path)


@pytest.mark.parametrize("name", ["../out.png", "/tmp/out.png", "a/../../out.png", ".", "http://x.org/a.png"])
def test_an_index_with_names_outside_its_folder_is_refused(shards, name):
    tar = next(iter(sorted(shards.glob("*.tar"))))
    _, columns = packed.read_index(tar)
    packed.write_index(tar, columns._replace(name=[name, *columns.name[1:]]), tar.stat().st_size)
    with pytest.raises(InputError, match="names images outside its folder"):
        packed.read_index(tar)


def test_a_tar_file_cut_in_the_middle_is_refused(shards, tmp_path):
    (tmp_path / "cut").mkdir()
    shutil.copy(shards / "000000.tar", tmp_path / "cut" / "x.tar")
    os.truncate(tmp_path / "cut" / "x.tar", 700)
    with pytest.raises(InputError, match="damaged or cut short"):
        index(tmp_path / "cut")


def test_webdataset_reads_what_pack_writes(root, shards):
    wds = pytest.importorskip("webdataset")
    found = {}
    for sample in wds.WebDataset([str(tar) for tar in sorted(shards.glob("*.tar"))], shardshuffle=False):
        for ending, data in sample.items():
            if not ending.startswith("__"):
                found[f"{sample['__key__']}.{ending}"] = data
    assert found == {s.name: s.read_bytes() for s in Folder(root).sources()}


def test_pack_indexes_what_webdataset_writes(root, tmp_path):
    wds = pytest.importorskip("webdataset")
    (tmp_path / "theirs").mkdir()
    for number in range(2):
        with wds.TarWriter(str(tmp_path / "theirs" / f"{number}.tar")) as writer:
            for k in range(2):
                png = (root / "b" / f"00{2 * number + k}.png").read_bytes()
                writer.write({"__key__": f"face{2 * number + k}", "png": png, "cls": k, "json": {"k": k}})
    assert index(tmp_path / "theirs").images == 4
    theirs = pixels(tmp_path / "theirs")
    assert {name.replace("face", "00"): data for name, data in theirs.items()} == pixels(root / "b")


def test_the_command_packs_once_and_then_has_nothing_to_do(root, tmp_path, facekit):
    dry = facekit("pack", root, tmp_path / "s", "--dry-run")
    assert dry.code == 0 and "16 images" in dry.out and not (tmp_path / "s").exists()
    first, again = (facekit("pack", root, tmp_path / "s").out for _ in range(2))
    assert "16 images" in first and "of 1 tar files 1 were written now" in first
    assert "of 1 tar files 0 were written now" in again
    assert facekit("pack", root, root).code == 2
    assert facekit("clean", tmp_path / "s", "--apply", "--report", tmp_path / "r").code == 2
