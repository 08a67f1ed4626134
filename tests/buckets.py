"""Object stores for tests: one in memory, and an S3 server behind a proxy that is slow, busy or cuts connections."""

import contextlib
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from facekit.storage import packed, remote


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

    Only those fail whose method is in `failing`, and no listings.
    """

    daemon_threads = True

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", 0), Handler)
        self.port, self.faults, self.failing, self.asked = port, [], ("GET", "HEAD"), []
        self.guard = threading.Lock()

    def fault(self, command: str, path: str) -> str:
        """Take note of a request, and return the fault that it meets."""
        with self.guard:
            self.asked.append((command, path))
            may_fail = self.faults and command in self.failing and "list-type" not in path
            return self.faults.pop(0) if may_fail else ""

    def handle_error(self, request, client_address):
        """Say nothing: connections are cut on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        proxy: Proxy = self.server
        fault = proxy.fault(self.command, self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)) // (2 if fault == "cut" else 1))
        if fault == "cut" and self.command == "PUT":  # in the middle of an object
            self.close_connection = True
            return
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


@contextlib.contextmanager
def s3_server():
    """Run an S3 server (moto) and the proxy before it; yields the server's port and the proxy."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port()[1])
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield proxy
    proxy.shutdown()
    server.stop()


def s3_client(proxy, monkeypatch, tmp_path):
    """Set the environment of facekit to the proxy; returns a client of the server itself, and an empty bucket."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "key-of-a-test", "AWS_SECRET_ACCESS_KEY": "secret-of-a-test", "AWS_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setattr(remote, "_listed", {})
    monkeypatch.setattr(remote, "_stores", {})
    packed.forget_remote()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{proxy.port}", region_name="us-east-1")
    bucket = f"b{abs(hash(str(tmp_path))) % 10**9}"
    client.create_bucket(Bucket=bucket)
    proxy.faults[:], proxy.failing = [], ("GET", "HEAD")
    return client, bucket
