"""Which images carry which labels: folders, CSV, JSON Lines, CelebA's list, what crawl leaves, and what is refused."""

import contextlib
import json
import shutil
import unicodedata

import pytest

import toy
from facekit.data.label_file import read_labels
from facekit.errors import CardError, InputError
from facekit.runtime import console
from facekit.storage import card
from facekit.storage.folder import Folder


class Told(console.Reporter):
    """Keeps what is warned of."""

    def __init__(self):
        self.said = []

    def warn(self, text):
        self.said.append(text)


@contextlib.contextmanager
def told():
    reporter = Told()
    token = console.current.set(reporter)
    try:
        yield reporter.said
    finally:
        console.current.reset(token)


def read(root, labels=None):
    """Return what is labelled, by the names of files below the root: training, test."""
    path = None if labels is None else str(labels)
    found = read_labels(card.Data(root=str(root), labels=path))
    return tuple({p.relative_to(root).as_posix(): has for p, has in part.items()} for part in (found.train, found.test))


@pytest.fixture
def faces(tmp_path):
    """Three images: 0.png, 1.png and more/2.png."""
    root = tmp_path / "faces"
    (root / "more").mkdir(parents=True)
    for index, name in enumerate(("0.png", "1.png", "more/2.png")):
        toy.picture(8, index).save(root / name)
    return root


@pytest.fixture
def listed(tmp_path, faces):
    """Reads the three images with a labels file of this text."""

    def read_with(text, name="labels.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(faces, path)[0]

    return read_with


def test_each_folder_is_a_label_with_its_sub_folders(tmp_path):
    toy.fill(tmp_path / "smile" / "2020", 1, 8)
    toy.fill(tmp_path / "smile", 1, 8, seed=1)
    toy.fill(tmp_path / "sad face", 1, 8, seed=2)
    toy.fill(tmp_path / ".cache", 1, 8)
    toy.picture(8).save(tmp_path / "loose.png")
    with told() as said:
        train, test = read(tmp_path)
    names = {"sad face/000.png": "sad face", "smile/000.png": "smile", "smile/2020/000.png": "smile"}
    assert train == {name: (label,) for name, label in names.items()}
    assert test == {}
    assert said == [f"1 images of {tmp_path} lie in no label's folder (the first: loose.png); left out"]


@pytest.mark.parametrize("apart", ["test", "val"])
def test_the_layout_of_stargan_keeps_its_test_images_apart(tmp_path, apart):
    for part in ("train", apart):
        for label in ("happy", "sad"):
            toy.fill(tmp_path / part / label, 2, 8)
    train, test = read(tmp_path)
    assert set(train) == {f"train/{label}/00{i}.png" for label in ("happy", "sad") for i in range(2)}
    assert test["test/sad/000.png" if apart == "test" else "val/sad/000.png"] == ("sad",)
    assert len(test) == 4


def test_val_is_left_out_where_there_is_a_test(tmp_path):
    for part in ("train", "val", "test"):
        for label in ("happy", "sad"):
            toy.fill(tmp_path / part / label, 1, 8)
    with told() as said:
        train, test = read(tmp_path)
    assert set(train) == {"train/happy/000.png", "train/sad/000.png"}
    assert set(test) == {"test/happy/000.png", "test/sad/000.png"}
    assert len(said) == 1 and said[0].startswith("2 images") and "val/happy/000.png" in said[0]


def test_train_may_be_a_label_of_its_own(tmp_path):
    for label in ("train", "car"):
        toy.fill(tmp_path / label, 1, 8)
    assert read(tmp_path)[0] == {"car/000.png": ("car",), "train/000.png": ("train",)}


def test_train_alone_has_no_test_images(tmp_path):
    for label in ("happy", "sad"):
        toy.fill(tmp_path / "train" / label, 1, 8)
    train, test = read(tmp_path)
    assert train == {"train/happy/000.png": ("happy",), "train/sad/000.png": ("sad",)} and test == {}


CELEBA = """3
Smiling Young Black_Hair
0.png  1 -1 -1
1.png -1 -1 -1
more/2.png  1  1 -1
"""
SEVERAL = {"0.png": ("Smiling",), "1.png": (), "more/2.png": ("Smiling", "Young")}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list_attr_celeba.txt", CELEBA),
        ("celeba-with-windows-ends.txt", CELEBA.replace("\n", "\r\n")),
        ("a.csv", "image_id,Smiling,Young,Black_Hair\n0.png,1,-1,-1\n1.png,-1,-1,-1\nmore/2.png,1,1,-1\n"),
        ("b.csv", "who,Smiling,Young\n0.png,1,0\n1.png,0,0\nmore/2.png,1,1\n"),
        ("c.csv", "Smiling,Young,FILE\nTrue,false,0.png\nFALSE,false,1.png\n\ntrue,true,./more/2.png\n"),
        ("d.csv", "\ufefffile;label;age\r\n0.png;Smiling;3\r\n1.png;;4\r\nmore/2.png;Smiling | Young|;5\r\n"),
        ("e.tsv", "file\tlabels\n0.png\tSmiling\n1.png\t\nmore/2.png\tSmiling|Young\n"),
        ("g.csv", "sep=;\r\nfile;label\r\n0.png;Smiling\r\n1.png;\r\nmore/2.png;Smiling|Young\r\n"),
        ("h.csv", 'file, label\n"0.png", "Smiling"\n"1.png", ""\n"more/2.png",  "Smiling|Young"\n'),
        ("i.csv", '"file";"a, b, c, d";"label"\n0.png;1;Smiling\n1.png;2;\nmore/2.png;3;Smiling|Young\n'),
        ("j.csv", "file,label\r0.png,Smiling\r1.png,\rmore/2.png,Smiling|Young\r"),
        (
            "f.jsonl",
            '{"file": "0.png", "label": "Smiling", "md5": "1"}\n\n{"file": "1.png", "labels": []}\n'
            '{"file": "more/2.png", "labels": ["Smiling", "Young"]}\n',
        ),
    ],
)
def test_every_format_says_the_same(listed, name, text):
    with told() as said:
        assert listed(text, name) == SEVERAL
    assert not said


def test_celebas_list_is_read_as_it_is_distributed(tmp_path):
    """Its header ends with a blank and its columns are padded; 1 and -1 take three places."""
    toy.fill(tmp_path / "img_align_celeba", 2, 8)
    rows = ["000.png -1  1  1 ", "001.png  1 -1 -1 "]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(["2", "Bald Male Smiling ", *rows]) + "\n")
    train, _ = read(tmp_path / "img_align_celeba", tmp_path / "list_attr_celeba.txt")
    assert train == {"000.png": ("Male", "Smiling"), "001.png": ("Bald",)}


def test_quoted_cells_may_hold_the_delimiter(faces, listed):
    toy.picture(8).save(faces / "a, b.png")
    assert listed('file,label\n"a, b.png",smile\n')["a, b.png"] == ("smile",)


def test_excels_text_in_utf_16_is_read(faces, tmp_path):
    rows = "file\tlabel\r\n0.png\tSmiling\r\n1.png\tsad\r\n"
    (tmp_path / "labels.txt").write_bytes(rows.encode("utf-16"))
    assert read(faces, tmp_path / "labels.txt")[0] == {"0.png": ("Smiling",), "1.png": ("sad",)}


@pytest.mark.parametrize("name", ["a\u2028b.png", "a\u0085b.png", "a\x1cb.png", "a\u00a0b.png"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "celeba"])
def test_only_a_line_feed_ends_a_line(faces, listed, name, kind):
    toy.picture(8).save(faces / name)
    rows = {
        "csv": f"file,label\n{name},Smiling\n",
        "jsonl": json.dumps({"file": name, "label": "Smiling"}, ensure_ascii=False),
        "celeba": f"1\nSmiling Young\n{name}  1 -1\n",
    }
    assert listed(rows[kind], f"labels.{kind}") == {name: ("Smiling",)}


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_file", ["NFC", "NFD"])
def test_accents_match_in_either_form(faces, listed, on_disk, in_file):
    name = unicodedata.normalize(on_disk, "é/ö.png")
    (faces / name).parent.mkdir()
    toy.picture(8).save(faces / name)
    assert listed(f"file,label\n{unicodedata.normalize(in_file, name)},sad\n") == {name: ("sad",)}


def test_a_name_in_its_own_form_comes_first(faces, listed):
    for form in ("NFC", "NFD"):
        toy.picture(8).save(faces / unicodedata.normalize(form, "é.png"))
    rows = "".join(f"{unicodedata.normalize(form, 'é.png')},{form}\n" for form in ("NFC", "NFD"))
    found = listed(f"file,label\n{rows}")
    assert found == {unicodedata.normalize(form, "é.png"): (form,) for form in ("NFC", "NFD")}


def test_a_file_splits_into_train_and_test_by_its_folders(tmp_path):
    for part in ("train", "test"):
        toy.fill(tmp_path / "d" / part, 2, 8)
    rows = "train/000.png,sad\ntrain/001.png,glad\ntest/000.png,sad\ntest/001.png,glad\n"
    (tmp_path / "l.csv").write_text("file,label\n" + rows)
    train, test = read(tmp_path / "d", tmp_path / "l.csv")
    assert train == {"train/000.png": ("sad",), "train/001.png": ("glad",)}
    assert test == {"test/000.png": ("sad",), "test/001.png": ("glad",)}


def test_rows_without_image_and_images_without_row_are_counted(listed):
    with told() as said:
        assert listed("file,label\ngone.png,sad\nmore/gone.png,sad\n1.png,glad\n") == {"1.png": ("glad",)}
    assert "2 rows of" in said[0] and "the first: gone.png" in said[0]
    assert "2 images of" in said[1] and "the first: 0.png" in said[1]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("file,label\na/0.png,sad\na/1.png,glad\n", "none of the 2 rows.*the first: a/0.png"),
        ("file,label\n", "none of the 0 rows"),
        ("file,label\n../faces/0.png,sad\n", "line 2: '../faces/0.png' is not below"),
        ("file,label\n0.png,sad\nmore/../../faces/0.png,sad\n", "line 3.*not below"),
        ("file,label\n/etc/0.png,sad\n", "not below the root"),
        ("file,label\nC:\\0.png,sad\n", "not below the root"),
        ("file,label\n0.png,sad\n0.png,glad\n", "line 3: 0.png is labelled sad before and glad here"),
        ("file,label\n0.png,sad+old\n", r"label 'sad\+old'.*\+ or a comma"),
        ('file,label\n0.png,"sad,old"\n', r"a \+ or a comma"),
        ("file,sad,glad\n0.png,1,2\n", "line 2: glad is '2'"),
        ("file,sad,glad\n0.png,,1\n", "line 2: sad is ''"),
        ("file,sad,sad\n0.png,1,1\n", "two columns of the same name"),
        ("file,sad,glad\n0.png,1\n", "line 2 has 2 columns of 3"),
        ("file,label\n,sad\n", "line 2 names no file"),
        ("file,label\n0.png,\n1.png,\n", "no image in .* has a label"),
        ("0.png,sad\n1.png,glad\n", "has no header"),
        ("label,age\nsad,3\n", "no column of file names"),
        ("0.png\n1.png\n", "neither CSV nor JSON Lines nor CelebA"),
        ("", "neither CSV nor JSON Lines nor CelebA"),
        ('file,label\n"0.png,sad\n', "is not CSV"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "not text in UTF-8"),
        ('{"file": "0.png", "label": "sad"}\nnonsense\n', "line 2 is not JSON"),
        ('{"name": "0.png", "label": "sad"}\n', 'line 1 has no "file"'),
        ('{"file": "0.png"}\n', "line 1 has no label for 0.png"),
        ('{"file": "0.png", "label": 3}\n', "line 1 has no label"),
        ('{"file": "0.png", "labels": "sad"}\n', "line 1 has no label"),
        ("3\nSad Glad\n0.png 1 -1\n", "announces 3 images in its first line and has 1 rows"),
        ("1\nSad Glad\n0.png 1\n", "line 3 has 1 values for 2 attributes"),
        ("1\nSad Glad\n0.png 1 x\n", "line 3: Glad is 'x'"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused(listed, text, what):
    with pytest.raises(InputError, match=what) as error:
        listed(text)
    assert error.value.hint


def test_a_labels_file_that_is_not_there_is_named(faces):
    with pytest.raises(InputError, match=r"labels file none\.csv"):
        read(faces, "none.csv")


def test_two_domains_are_not_labels(tmp_path):
    toy.domains(tmp_path, 2, 8)
    with pytest.raises(InputError, match="two domains") as error:
        read(tmp_path)
    assert "one folder per label" in error.value.hint and "--labels" in error.value.hint
    with pytest.raises(CardError, match="two domains"):
        read_labels(card.Data(a=str(tmp_path / "trainA"), b=str(tmp_path / "trainB")))


def test_data_without_labels_are_refused(tmp_path, faces):
    with pytest.raises(CardError, match="no labelled images"):
        read_labels(card.Data())
    with pytest.raises(InputError, match=r"needs two folders of labels or more \(it has more\)"):
        read(faces)
    with pytest.raises(InputError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="no images"):
        read(tmp_path / "nothing")


def test_a_label_folder_without_images_is_left_out(tmp_path):
    for label in ("sad", "glad"):
        toy.fill(tmp_path / label, 1, 8)
    (tmp_path / "empty").mkdir()
    (tmp_path / "@eaDir").mkdir()
    with told() as said:
        assert set(read(tmp_path)[0].values()) == {("sad",), ("glad",)}
    assert any("1 folders" in text and "empty" in text for text in said)
    shutil.rmtree(tmp_path / "sad")
    with pytest.raises(InputError, match="glad"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["sad+glad", "sad,glad"])
def test_a_folder_that_could_not_be_asked_for_is_refused(tmp_path, name):
    for label in (name, "other"):
        toy.fill(tmp_path / label, 1, 8)
    with pytest.raises(InputError, match="a \\+ or a comma"):
        read(tmp_path)


@pytest.fixture(scope="module")
def crawled(tmp_path_factory):
    """What `facekit crawl --expression` leaves: two portraits of each of two expressions, and one more."""
    from PIL import Image
    from skimage.data import astronaut

    from booru import Booru, Entry
    from facekit.commands.crawl import crawl
    from facekit.storage import images

    def portrait(number):
        return images.encode(Image.fromarray(astronaut()[: 256 - 6 * number, 96:352]), ".jpg")

    tags = {1: "smile solo", 2: "smile solo", 3: "angry solo", 4: "angry solo"}
    out = tmp_path_factory.mktemp("crawl") / "raw"
    with Booru([Entry(number, tag, data=portrait(number)) for number, tag in tags.items()]) as board:
        options = {"rate": 1000, "allow_local": True, "address": board.address}
        crawl("safebooru", out, expression="smile,angry", tags="solo", limit=5, **options)
    return out


@pytest.mark.slow
def test_what_crawl_leaves_is_labelled_as_it_is(crawled):
    expected = {row["file"]: (row["label"],) for row in Folder(crawled).entries.values()}
    with told() as said:
        train, test = read(crawled)
    assert train == expected and len(train) == 4 and test == {} and not said
    assert {label for has in train.values() for label in has} == {"smile", "angry"}
    assert read(crawled, crawled / "manifest.jsonl")[0] == expected


def test_what_align_makes_of_it_is_labelled_too(crawled, tmp_path):
    from facekit.commands.align import align

    align(crawled, tmp_path / "faces", size=32, detector="cascade")
    train, _ = read(tmp_path / "faces")
    sources = {row["file"]: row["source"] for row in Folder(tmp_path / "faces").entries.values()}
    labels = {row["file"]: (row["label"],) for row in Folder(crawled).entries.values()}
    assert train == {name: labels[source] for name, source in sources.items()} and len(train) == 4


def test_rows_of_a_manifest_are_json_lines(listed):
    rows = [{"file": "0.png", "source": "x", "label": "sad"}, {"file": "1.png", "label": "glad"}]
    assert listed("\n".join(map(json.dumps, rows))) == {"0.png": ("sad",), "1.png": ("glad",)}


@pytest.mark.parametrize("label", ["..", "a/b", "a\\b"])
def test_a_label_that_cannot_name_a_folder_is_refused(tmp_path, label):
    toy.fill(tmp_path / "faces", 2)
    (tmp_path / "labels.csv").write_text(f"file,label\n000.png,{label}\n001.png,smile\n")
    with pytest.raises(InputError, match="cannot be the name of a folder"):
        read_labels(card.Data(root=str(tmp_path / "faces"), labels=str(tmp_path / "labels.csv")))
