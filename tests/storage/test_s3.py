"""A real S3 server on this machine (moto's): runs where moto and s3fs are installed."""

import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import toy
from facekit.errors import InputError
from facekit.storage import images, packed, remote
from facekit.storage.folder import Folder
from facekit.storage.pack_folder import pack

pytest.importorskip("moto")
s3fs = pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def server():
    """The address of a server, with nothing in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])
    for _ in range(300):
        with socket.socket() as ask:
            if ask.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """A folder on the disk, and a function that copies a folder into a bucket."""
    for name, value in (("ENDPOINT_URL", server), ("ACCESS_KEY_ID", "k"), ("SECRET_ACCESS_KEY", "s"), ("REGION", "x")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(remote, "PAUSE", 0)
    monkeypatch.setattr(remote, "_listed", {})
    s3fs.S3FileSystem.clear_instance_cache()
    packed._open_remote.cache_clear()
    toy.fill(tmp_path / "here" / "a", 3, size=8, seed=1)
    toy.picture(8, 9).save(tmp_path / "here" / "a" / "é with space+plus.png")

    def put(folder, name):
        store = s3fs.S3FileSystem()
        store.makedirs(name.partition("/")[0], exist_ok=True)
        store.put(f"{folder}/", f"{name}/", recursive=True)
        return f"s3://{name}"

    return tmp_path / "here", put


def pixels(folder):
    return {s.name: np.asarray(images.read(s.path)).tobytes() for s in Folder(folder).sources()}


def test_a_bucket_is_read_as_a_folder_and_a_change_is_seen(bucket, tmp_path):
    here, put = bucket
    url = put(here, "faces/set 1")
    assert pixels(url) == pixels(here)
    before = {s.name: s.stamp() for s in Folder(url).sources()}
    time.sleep(1.1)  # S3's times are whole seconds
    toy.picture(8, 50).save(here / "a" / "000.png")
    s3fs.S3FileSystem().put_file(str(here / "a" / "000.png"), "faces/set 1/a/000.png")
    after = {s.name: s.stamp() for s in Folder(url).sources()}
    assert [name for name in before if before[name] != after[name]] == ["a/000.png"]


def test_shards_in_a_bucket_are_read_by_parts(bucket, tmp_path):
    here, put = bucket
    pack(Folder(here), tmp_path / "shards", 3000, {"facekit": 1, "command": "pack", "options": {}})
    assert pixels(put(tmp_path / "shards", "packed")) == pixels(here)


def test_a_bucket_that_is_not_there_is_an_error(bucket):
    with pytest.raises(InputError):
        Folder("s3://no-such-bucket/faces").sources()
