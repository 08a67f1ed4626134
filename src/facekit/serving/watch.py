"""`facekit watch`: a page on this machine that follows runs while they train."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ..errors import InputError
from ..reports import html
from ..runtime import console, strict_json
from ..runtime.signals import collected
from .listening import address, is_private, listen, show_until
from .watched_run import WatchedRun

PREVIEW = re.compile(r"/preview/(\d{1,4})/(\d{1,8})\.png")
HAVE = re.compile(r"(\d{1,9})\.(\d{1,9})")


class Watch:
    """What the page asks for: the runs, guarded so that several browsers may ask at once."""

    def __init__(self, folders: Sequence[Path]):
        self.runs = _runs(folders)
        self.lock = threading.Lock()
        self.page = html.render("watch.html", title="Runs")

    def answer(self, target: str) -> tuple[int, str, bytes]:
        """Return status, content type and body of a request; only the page, the runs' state and previews are given."""
        asked = urlsplit(target)
        if asked.path == "/":
            return 200, "text/html; charset=utf-8", self.page.encode("utf-8", "replace")
        if asked.path == "/runs.json":
            return 200, "application/json", self._state(parse_qs(asked.query).get("have", [""])[0])
        found = PREVIEW.fullmatch(asked.path)
        if found and int(found[1]) < len(self.runs):
            run, step = self.runs[int(found[1])], int(found[2])
            if step in run.previews():
                try:
                    return 200, "image/png", run.preview(step).read_bytes()
                except OSError:
                    pass
        return 404, "text/plain", b"not here\n"

    def _state(self, have: str) -> bytes:
        """Return all runs as JSON; `have` is what the page has of each log: GENERATION.ROWS,..."""
        known = [HAVE.fullmatch(one) for one in have.split(",")]
        pairs = [(int(one[1]), int(one[2])) if one else (-1, 0) for one in known]
        pairs += [(-1, 0)] * len(self.runs)
        with self.lock:
            state = [run.read(pair) for run, pair in zip(self.runs, pairs, strict=False)]
        return strict_json.dumps(state).encode()


def _runs(folders: Sequence[Path]) -> list[WatchedRun]:
    """Return the folders that are runs, and warn of others, as `runs/*` may name; raises InputError for none."""
    found: list[WatchedRun] = []
    for folder in folders:
        try:
            found.append(WatchedRun(folder))
        except InputError as error:
            problem = error
            if len(folders) > 1:
                console.warn(f"{error.message}; left out")
    if not found:
        raise problem
    return found


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; whatever else is asked gets 501 by the base class."""

    timeout = 30

    def __init__(self, watch: Watch, private: bool, *arguments: object):
        self.watch, self.private = watch, private
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer a request; one that names another host gets 403, so that no foreign page can read along."""
        named = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if self.private and not is_private(named or ""):
            status, kind, body = 403, "text/plain", b"this page is for its own machine\n"
        else:
            status, kind, body = self.watch.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        """Stay quiet: a page that asks every two seconds would fill the terminal."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listening: socket.socket, handler: Callable[..., BaseHTTPRequestHandler]):
        super().__init__(listening.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet where a browser closes its connection early."""


def open_server(folders: Sequence[Path], host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """Return a server that is ready to run.

    Raises InputError where none of the folders is a run, CardError where it cannot listen.
    """
    watch = Watch(folders)
    return _Server(listen(host, port), partial(_Handler, watch, is_private(host)))


def serve(folders: Sequence[Path], host: str, port: int, in_browser: bool) -> None:
    """Show the page until ctrl-C or SIGTERM."""
    if not is_private(host):
        console.warn(f"everyone who can reach {host} can see these runs: there is no login")
    with collected() as received, open_server(folders, host, port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        names = [folder.name for folder in folders]
        show_until(received, "watch", address(server.socket), names, in_browser)
        server.shutdown()
    console.note("watch: stopped")
