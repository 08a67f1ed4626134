"""Folders behind a URL are read as folders on the disk are: listed, trained on, packed; failures say what to do."""

from pathlib import Path

import fsspec
import numpy as np
import pytest

import buckets
import toy
from facekit.data.dataset import open_layout
from facekit.data.loader import Batches
from facekit.errors import CardError, InputError, MissingError, OutputError
from facekit.storage import card, content, images, packed, remote
from facekit.storage.folder import Folder, open_source
from facekit.storage.pack_folder import pack


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder on the disk, and a function that puts a folder into the store."""
    buckets.in_memory(monkeypatch)
    toy.fill(tmp_path / "here" / "a", 5, size=8, seed=1)
    toy.fill(tmp_path / "here" / "b", 4, size=8, seed=2)
    toy.picture(8, 9).save(tmp_path / "here" / "a" / "é with space.png")
    (tmp_path / "here" / "a" / "manifest.jsonl").write_text('{"file": "000.png", "roll": 5}\n')
    (tmp_path / "here" / "a" / "card.yaml").write_text("facekit: 1\ncommand: align\n")

    def put(folder, name):
        store = fsspec.filesystem("store")
        for path in folder.rglob("*"):
            if path.is_file():
                store.pipe_file(f"/{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"store://{name}"

    return tmp_path / "here", put


def pixels(folder):
    return {s.name: np.asarray(images.read(s.path)).tobytes() for s in Folder(folder).sources()}


def test_a_bucket_is_read_as_a_folder(bucket):
    here, put = bucket
    url = put(here, "bucket/faces")
    assert pixels(url) == pixels(here)
    assert pixels(f"{url}/a") == pixels(here / "a")
    assert Folder(f"{url}/a").entries == Folder(here / "a").entries and Folder(f"{url}/a").aligned
    one, two = (Folder(top).sources()[0].stamp() for top in (url, here))
    assert one["source_bytes"] == two["source_bytes"] and one["source_mtime"] > 0
    (single,) = open_source(f"{url}/a/000.png")
    assert single.name == "000.png" and images.size_of(single.path) == (8, 8)
    assert not content.is_file(Folder(url).path / "no.png")


def test_training_and_folder_commands_take_a_url(bucket, tmp_path, facekit):
    here, put = bucket
    url = put(here, "bucket")
    one, two = (open_layout(card.Data(root=str(top), size=8)) for top in (here, url))
    first, second = (Batches.of(x.train, 8, x.readers, seed=3, batch=2, size=8)(1)[0] for x in (one, two))
    assert all(first[name].equal(second[name]) for name in "ab")
    for name, top in (("one", here / "b"), ("two", f"{url}/b")):
        assert facekit("smooth-edges", top, tmp_path / name, "--workers", 1).code == 0
    made = [{p.name: p.read_bytes() for p in (tmp_path / name).glob("*.png")} for name in ("one", "two")]
    assert made[0] == made[1] and len(made[0]) == 4
    assert "nothing to do" in facekit("smooth-edges", f"{url}/b", tmp_path / "two").err
    toy.picture(8, 50).save(here / "b" / "000.png")
    fsspec.filesystem("store").pipe_file("/bucket/b/000.png", (here / "b" / "000.png").read_bytes())
    assert "1 images (1 changed)" in facekit("smooth-edges", f"{url}/b", tmp_path / "two").err


def test_shards_in_a_bucket_are_read_by_parts(bucket, tmp_path):
    here, put = bucket
    pack(Folder(here), tmp_path / "shards", 3000, {"facekit": 1, "command": "pack", "options": {}})
    url = put(tmp_path / "shards", "bucket/shards")
    assert pixels(url) == pixels(here)
    assert pixels(f"{url}/a") == pixels(here / "a") and Folder(f"{url}/a").aligned
    store = fsspec.filesystem("store")
    store.pipe_file("/bucket/shards/000000.tar", store.cat_file("/bucket/shards/000000.tar")[:-1024])
    packed.forget_remote()
    with pytest.raises(InputError, match="cut short"):
        Folder(url).sources()


def test_a_store_that_is_busy_is_asked_again(bucket):
    here, put = bucket
    url = put(here, "bucket")
    buckets.Store.failures = [OSError("503 Slow Down"), TimeoutError("no answer")]
    assert pixels(url) == pixels(here) and not buckets.Store.failures


class HttpError(Exception):
    """An error of a store's library with its HTTP status, and the server's answer below."""

    def __init__(self, name, value):
        super().__init__(f"denied\nSignature: SECRET, status {value}")
        setattr(self, name, value)


class RefreshError(Exception):
    """What google-auth raises for credentials that have ended."""


@pytest.mark.parametrize(
    ("failure", "said", "tries"),
    [
        (OSError("503"), "cannot be read: 503$", remote.TRIES),
        (HttpError("status_code", 503), "cannot be read: denied$", remote.TRIES),
        (PermissionError("expired token"), "no permission", 1),
        (HttpError("status_code", 403), "no permission .*: denied$", 1),  # Azure
        (HttpError("code", "401"), "no permission", 1),  # gcsfs
        (OSError("Forbidden: https://…/b/bucket\nmore"), "no permission", 1),  # gcsfs, too
        (RefreshError("invalid_grant"), "no permission", 1),
    ],
)
def test_a_store_that_does_not_answer_is_an_error_with_a_next_step(bucket, failure, said, tries):
    here, put = bucket
    source = Folder(put(here, "bucket")).sources()[0]
    buckets.Store.failures = [failure] * 9
    with pytest.raises(InputError, match=said) as caught:
        images.read(source.path)
    assert caught.value.hint and len(buckets.Store.failures) == 9 - tries


def test_an_error_that_says_404_means_that_the_object_is_not_there(bucket):
    url = bucket[1](bucket[0], "bucket")
    buckets.Store.failures = [HttpError("status_code", 404)]
    with pytest.raises(FileNotFoundError):
        remote.read(Path(f"{url}/b/000.png"))


def test_a_store_without_its_account_says_what_is_missing():
    class Needy(buckets.Store):
        def __init__(self, **more):
            raise ValueError("Must provide an account name")

    fsspec.register_implementation("needy", Needy, clobber=True)
    with pytest.raises(InputError, match="needy:// cannot be opened: Must provide an account name") as caught:
        Folder("needy://bucket/faces")
    assert "environment variables" in caught.value.hint


def test_what_a_url_cannot_be_is_refused(bucket, tmp_path, facekit):
    here, put = bucket
    url = put(here, "bucket")
    with pytest.raises(CardError, match="credentials") as caught:
        Folder("s3://KEY:SECRET@bucket/faces")
    assert "SECRET" not in str(caught.value) + caught.value.hint
    with pytest.raises(CardError, match="names the account mine") as caught:
        Folder("abfss://box@mine.dfs.core.windows.net/faces")
    assert "az://box/faces and set AZURE_STORAGE_ACCOUNT_NAME=mine" in caught.value.hint
    with pytest.raises(MissingError) as missing:
        Folder("nosuchscheme://bucket/faces").sources()
    assert "pip install" in missing.value.hint
    with pytest.raises(InputError, match="no such file or folder"):
        Folder(f"{url}/nothing")
    with pytest.raises(OutputError, match="this output lies on a disk"):
        pack(Folder(here), tmp_path.__class__("store://bucket/out"), 1000, {})
    assert facekit("train-segnet", "--data", here, "--out", f"{url}/out").code in (2, 3)
