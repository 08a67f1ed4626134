"""Folders in servers of S3, Azure and Google Cloud, behind a proxy that is slow, busy or cuts connections."""

from pathlib import Path

import numpy as np
import pytest

import buckets
import toy
from facekit.storage import images
from facekit.storage.folder import Folder

NAMES = ("000.png", "001.png", "sub/é with space.png", "sub/plus+100%.png")


@pytest.fixture
def bucket(store, tmp_path, monkeypatch):
    """A folder on the disk, the same in a bucket, and the proxy that it is read through."""
    client, name = buckets.client(store, monkeypatch, tmp_path)
    here = tmp_path / "faces"
    for seed, each in enumerate(NAMES):
        (here / each).parent.mkdir(parents=True, exist_ok=True)
        toy.picture(16, seed).save(here / each)
    for path in here.rglob("*.png"):
        client.pipe_file(f"{name}/faces/{path.relative_to(here).as_posix()}", path.read_bytes())
    return here, f"{store.scheme}://{name}/faces", store


def pixels(folder):
    return {s.name: np.asarray(images.read(s.path)).tobytes() for s in Folder(folder).sources()}


@pytest.mark.slow
def test_a_bucket_holds_the_images_of_the_folder(bucket):
    here, url, _ = bucket
    assert sorted(pixels(url)) == sorted(NAMES) and pixels(url) == pixels(here)


@pytest.mark.slow
@pytest.mark.parametrize("faults", [["busy", "busy"], ["cut"], ["slow"], ["busy", "cut", "busy"]])
def test_a_server_that_is_busy_slow_or_cuts_the_connection_is_asked_again(bucket, faults):
    here, url, proxy = bucket
    buckets.skip_where_slow(proxy, faults)
    sources = Folder(url).sources()
    proxy.faults[:] = faults
    assert {s.name: np.asarray(images.read(s.path)).tobytes() for s in sources} == pixels(here)
    assert not proxy.faults


@pytest.mark.slow
def test_a_folder_command_makes_of_a_bucket_what_it_makes_of_the_folder_and_writes_no_secret(
    bucket, facekit, tmp_path, monkeypatch
):
    here, url, _ = bucket
    monkeypatch.chdir(tmp_path)
    first = facekit("smooth-edges", url, "out", "--workers", 1)
    assert first.code == 0, first.err
    assert facekit("smooth-edges", here, "local", "--workers", 1).code == 0
    names = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.png"))
    assert names == sorted(NAMES) and all(
        Path("out", name).read_bytes() == Path("local", name).read_bytes() for name in names
    )
    assert "nothing to do" in facekit("smooth-edges", url, "out", "--workers", 1).err
    written = b"".join(path.read_bytes() for path in Path("out").iterdir() if path.is_file())
    assert not any(secret.encode() in written for secret in buckets.SECRETS)


@pytest.mark.slow
def test_credentials_that_expire_on_the_way_are_said_and_the_same_command_goes_on(
    bucket, facekit, tmp_path, monkeypatch
):
    _, url, proxy = bucket
    monkeypatch.chdir(tmp_path)
    proxy.faults[:] = ["", ""] + ["denied"] * 50
    done = facekit("smooth-edges", url, "out", "--workers", 1)
    assert done.code in (3, 4) and not any(x in done.err + done.out for x in buckets.SECRETS)
    said = done.err + "".join(path.read_text() for path in Path("out").glob("failed.jsonl"))
    assert "permission" in said or "ExpiredToken" in said
    proxy.faults[:] = []
    assert facekit("smooth-edges", url, "out", "--workers", 1, "--retry-failed").code == 0
    assert len(list(Path("out").rglob("*.png"))) == len(NAMES)
