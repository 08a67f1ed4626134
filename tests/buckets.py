"""Object stores for tests: one in memory, and servers behind a proxy that is slow, busy or cuts connections.

The servers are moto (s3://), Azurite (az://) and gcp-storage-emulator (gs://).
"""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from facekit.storage import packed, remote

AZURE_KEY = base64.b64encode(b"the secret account key of a test").decode()
SECRETS = ("-of-a-test", AZURE_KEY)
LISTING = re.compile(r"list-type|comp=list|/o\?.*prefix=")


class Store(MemoryFileSystem):
    """Objects in memory; the first reads fail as `failures` says, writes as `refuse` raises. `log` has all changes."""

    protocol = "store"
    store = {}
    pseudo_dirs = [""]
    failures: list[Exception] = []
    log: list[tuple[str, str]] = []
    guard = threading.Lock()
    cachable = False

    @staticmethod
    def refuse(name: str) -> None:
        """Take every object."""

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("store://", "memory://"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        if Store.failures:
            raise Store.failures.pop(0)
        return super().cat_file(path, start, end, **kwargs)

    def get_file(self, rpath, lpath, **kwargs):
        Store.log.append(("get", self._strip_protocol(rpath)))
        return super().get_file(rpath, lpath, **kwargs)

    def put_file(self, lpath, rpath, **kwargs):
        self._change("put", rpath)
        return super().put_file(lpath, rpath, **kwargs)

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        self._change("put", path)
        return super().pipe_file(path, value, mode, **kwargs)

    def rm_file(self, path):
        self._change("remove", path)
        return super().rm_file(path)

    def _change(self, what, path):
        name = self._strip_protocol(path)
        with Store.guard:
            Store.refuse(name)
            Store.log.append((what, name))


def in_memory(monkeypatch):
    """Give an empty store://."""
    monkeypatch.setattr(remote, "PAUSE", 0)
    fsspec.register_implementation("store", Store, clobber=True)
    monkeypatch.setattr(Store, "store", {})
    monkeypatch.setattr(Store, "pseudo_dirs", [""])
    monkeypatch.setattr(Store, "failures", [])
    monkeypatch.setattr(Store, "log", [])
    monkeypatch.setattr(Store, "refuse", staticmethod(lambda name: None))
    monkeypatch.setattr(remote, "_listed", {})
    monkeypatch.setattr(remote, "_stores", {})
    packed.forget_remote()
    return fsspec.filesystem("store")


class Proxy(ThreadingHTTPServer):
    """Passes requests on to `port`; the next ones fail as `faults` says: "busy", "cut", "slow" or "denied".

    Only those fail whose method is in `failing`, and no listings. `put` is the method that writes objects.
    """

    daemon_threads = True

    def __init__(self, port: int, scheme: str = "s3"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme, self.put = scheme, "POST" if scheme == "gs" else "PUT"
        self.port, self.faults, self.failing, self.asked = port, [], ("GET", "HEAD"), []
        self.guard = threading.Lock()

    def fault(self, command: str, path: str) -> str:
        """Take note of a request, and return the fault that it meets."""
        with self.guard:
            self.asked.append((command, path))
            may_fail = self.faults and command in self.failing and not LISTING.search(path)
            return self.faults.pop(0) if may_fail else ""

    def exists_already(self, path: str, sent: bytes) -> bool:
        """Whether an upload must not be: the emulator of gs:// knows no ifGenerationMatch=0, which is "only if new"."""
        name = re.search(rb'"name": ?("(?:[^"\\]|\\.)*")', sent) if "ifGenerationMatch=0" in path else None
        if name is None:
            return False
        server = HTTPConnection("127.0.0.1", self.port)
        bucket = path.partition("/b/")[2].partition("/")[0]
        server.request("GET", f"/storage/v1/b/{bucket}/o/{quote(json.loads(name[1]), safe='')}")
        return server.getresponse().status == 200

    def handle_error(self, request, client_address):
        """Say nothing: connections are cut on purpose."""


ANSWERS = {"busy": (503, "SlowDown"), "denied": (403, "ExpiredToken"), "exists": (412, "PreconditionFailed")}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        proxy: Proxy = self.server
        fault = proxy.fault(self.command, self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)) // (2 if fault == "cut" else 1))
        if fault == "cut" and self.command == proxy.put:  # in the middle of an object
            self.close_connection = True
            return
        if proxy.exists_already(self.path, sent):
            fault = "exists"
        if fault in ANSWERS:
            code, name = ANSWERS[fault]
            body = f"<Error><Code>{name}</Code><Message>not now</Message></Error>".encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.command != "HEAD" else b"")
            return
        if fault == "slow":
            time.sleep(1)
        server = HTTPConnection("127.0.0.1", proxy.port)
        server.request(self.command, self.path, sent or None, headers=dict(self.headers))
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

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_):
        """Say nothing."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def server(scheme: str):
    """Run a server of s3://, az:// or gs:// and the proxy before it, which is yielded; skips where it is missing."""
    with {"s3": s3_port, "az": azure_port, "gs": google_port}[scheme]() as port:
        proxy = Proxy(port, scheme)
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        yield proxy
        proxy.shutdown()


@contextlib.contextmanager
def s3_port():
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    made = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    made.start()
    yield made.get_host_and_port()[1]
    made.stop()


@contextlib.contextmanager
def azure_port():
    pytest.importorskip("adlfs", reason="adlfs is not installed")
    azurite = shutil.which("azurite-blob")
    if azurite is None:
        pytest.skip("azurite is not installed (npm install -g azurite)")
    port = free_port()
    line = [azurite, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    line += ["--skipApiVersionCheck", "--disableTelemetry"]
    process = subprocess.Popen(line, env={**os.environ, "AZURITE_ACCOUNTS": f"tester:{AZURE_KEY}"})
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def google_port():
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # the emulator speaks no gRPC
        pytest.importorskip("gcsfs", reason="gcsfs is not installed")
        port = free_port()
        made = emulator.create_server("127.0.0.1", port, in_memory=True)
        made.start()
        yield port
        made.stop()


def client(proxy: Proxy, monkeypatch, tmp_path):
    """Set the environment of facekit to the proxy; returns a file system of the server itself, and an empty bucket."""
    import fsspec.config

    port = proxy.server_address[1]
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key-of-a-test", "AWS_SECRET_ACCESS_KEY": "secret-of-a-test", "AWS_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
        "AZURE_STORAGE_CONNECTION_STRING": azure_connection(port),
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "FSSPEC_GS_TOKEN": "anon",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setattr(remote, "_listed", {})
    monkeypatch.setattr(remote, "_stores", {})
    packed.forget_remote()
    proxy.faults[:], proxy.failing = [], ("GET", "HEAD")
    direct = {
        "s3": {"endpoint_url": f"http://127.0.0.1:{proxy.port}"},
        "az": {"connection_string": azure_connection(proxy.port)},
        "gs": {"endpoint_url": f"http://127.0.0.1:{proxy.port}", "project": "test"},
    }[proxy.scheme]
    made = fsspec.filesystem(proxy.scheme, skip_instance_cache=True, use_listings_cache=False, **direct)
    bucket = f"b{abs(hash(str(tmp_path))) % 10**9:09}"
    made.mkdir(bucket)
    return made, bucket


def skip_where_slow(proxy: Proxy, faults: list[str]) -> None:
    """Skip a test that would wait long: the client of az:// pauses 15 s and more before it asks again."""
    if proxy.scheme == "az" and {"busy", "cut"} & set(faults):
        pytest.skip("the client of az:// asks again by itself, after 15 s and more")


def azure_connection(port: int) -> str:
    at = f"http://127.0.0.1:{port}/tester"
    return f"DefaultEndpointsProtocol=http;AccountName=tester;AccountKey={AZURE_KEY};BlobEndpoint={at};"
