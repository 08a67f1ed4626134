"""Folders in a real S3 server on this machine (moto), behind a proxy that is slow, busy or cuts connections."""

import contextlib
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import toy
from facekit.storage import images, remote
from facekit.storage.folder import Folder

moto = pytest.importorskip("moto.server", reason="moto is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed")
NAMES = ("000.png", "001.png", "sub/é with space.png", "sub/plus+100%.png")


class Proxy(ThreadingHTTPServer):
    """Passes requests on to `port`; the next ones fail as `faults` says: "busy", "cut", "slow" or "denied"."""

    daemon_threads = True

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", 0), Handler)
        self.port, self.faults, self.asked = port, [], 0

    def handle_error(self, request, client_address):
        """Say nothing: connections are cut on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        proxy: Proxy = self.server
        proxy.asked += 1
        fault = proxy.faults.pop(0) if proxy.faults and "list-type" not in self.path else ""
        if fault in ("busy", "denied"):
            code, name = (503, "SlowDown") if fault == "busy" else (403, "ExpiredToken")
            body = f"<Error><Code>{name}</Code><Message>not now</Message></Error>".encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.command != "HEAD" else b"")
            return
        if fault == "slow":
            time.sleep(1)
        server = HTTPConnection("127.0.0.1", proxy.port)
        server.request(self.command, self.path, headers=dict(self.headers))
        answer = server.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(key, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if fault == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def store():
    """An S3 server and the proxy before it."""
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port()[1])
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield server, proxy
    proxy.shutdown()
    server.stop()


@pytest.fixture
def bucket(store, tmp_path, monkeypatch):
    """A folder on the disk, the same in a bucket, and the proxy that it is read through."""
    import boto3
    import s3fs

    server, proxy = store
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "key-of-a-test", "AWS_SECRET_ACCESS_KEY": "secret-of-a-test", "AWS_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setattr(remote, "_listed", {})
    here = tmp_path / "faces"
    for seed, name in enumerate(NAMES):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        toy.picture(16, seed).save(here / name)
    port = server.get_host_and_port()[1]
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
    name = f"b{abs(hash(str(tmp_path))) % 10**9}"
    client.create_bucket(Bucket=name)
    for path in here.rglob("*.png"):
        client.put_object(Bucket=name, Key=f"faces/{path.relative_to(here).as_posix()}", Body=path.read_bytes())
    proxy.faults[:] = []
    return here, f"s3://{name}/faces", proxy


def pixels(folder):
    return {s.name: np.asarray(images.read(s.path)).tobytes() for s in Folder(folder).sources()}


def test_a_bucket_holds_the_images_of_the_folder(bucket):
    here, url, _ = bucket
    assert sorted(pixels(url)) == sorted(NAMES) and pixels(url) == pixels(here)


@pytest.mark.parametrize("faults", [["busy", "busy"], ["cut"], ["slow"], ["busy", "cut", "busy"]])
def test_a_server_that_is_busy_slow_or_cuts_the_connection_is_asked_again(bucket, faults):
    here, url, proxy = bucket
    sources = Folder(url).sources()
    proxy.faults[:] = faults
    assert {s.name: np.asarray(images.read(s.path)).tobytes() for s in sources} == pixels(here)
    assert not proxy.faults


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
    assert b"-of-a-test" not in written


def test_credentials_that_expire_on_the_way_are_said_and_the_same_command_goes_on(
    bucket, facekit, tmp_path, monkeypatch
):
    _, url, proxy = bucket
    monkeypatch.chdir(tmp_path)
    proxy.faults[:] = ["", ""] + ["denied"] * 50
    done = facekit("smooth-edges", url, "out", "--workers", 1)
    assert done.code in (3, 4) and "-of-a-test" not in done.err + done.out
    said = done.err + "".join(path.read_text() for path in Path("out").glob("failed.jsonl"))
    assert "permission" in said or "ExpiredToken" in said
    proxy.faults[:] = []
    assert facekit("smooth-edges", url, "out", "--workers", 1, "--retry-failed").code == 0
    assert len(list(Path("out").rglob("*.png"))) == len(NAMES)
