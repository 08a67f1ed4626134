"""A board of pictures on this machine, for tests: both engines, and every fault that a server can have.

Use it as a context manager. `log` has every request as (what, key, fault): what is page, file or other.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import re
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

HTML = b"<!DOCTYPE html><html><body>Sorry, down for maintenance</body></html>"
ERROR = b'{"success": false, "message": "search timed out"}'
LIMITED = b'<?xml version="1.0"?><response success="false" reason="Search error: API limited due to abuse"/>'
PAGE_FAULTS = ("500", "503", "429", "html", "error", "empty", "cut", "truncated", "malformed", "repeated", "swapped")
FILE_FAULTS = ("500", "503", "429", "html", "error", "empty", "cut", "truncated", "wrong", "drop")


@dataclass
class Entry:
    """One post of the board."""

    id: int
    tags: str = "solo portrait"
    rating: str = "g"
    score: int = 5
    ext: str = "jpg"
    size: tuple[int, int] = (24, 32)
    data: bytes = b""
    hidden: bool = False
    more: dict[str, Any] = field(default_factory=dict)  # fields that the server tells otherwise

    def __post_init__(self) -> None:
        self.data = self.data or picture(self.id, self.size, "PNG" if self.ext == "png" else "JPEG")

    @property
    def md5(self) -> str:
        """The true md5."""
        return hashlib.md5(self.data).hexdigest()


def picture(seed: int, size: tuple[int, int] = (24, 32), kind: str = "JPEG") -> bytes:
    """Return a coloured picture, different for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()


class Booru:
    """The server. `planned["page"]` and `planned["file"]` hold the faults of the next requests, in order; an address in
    `always` has its fault every time; beyond these a `share` of the requests is broken by chance."""

    def __init__(self, entries: list[Entry], share: float = 0.0, seed: int = 0, page: int = 20):
        self.entries = sorted(entries, key=lambda entry: -entry.id)
        self.by_id = {entry.id: entry for entry in entries}
        self.share, self.chance, self.page = share, random.Random(seed), page
        self.planned: dict[str, deque[str]] = {"page": deque(), "file": deque(), "other": deque()}
        self.always: dict[str, str] = {}
        self.headers: dict[str, str] = {}  # added to answers with a fault
        self.log: list[tuple[str, str, str]] = []
        self.seen: list[dict[str, str]] = []  # headers of the requests
        self.poured = 0  # pieces of an endless redirect
        self.lock = threading.Lock()

    def __enter__(self) -> Booru:
        board = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                board.serve(self)

            do_HEAD = do_GET

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    # what tests ask

    def count(self, what: str) -> int:
        """Return how many requests of a kind have come."""
        return sum(row[0] == what for row in self.log)

    def served(self) -> Counter[str]:
        """Return how often each file was sent whole and unbroken."""
        return Counter(key for what, key, fault in self.log if what == "file" and not fault)

    # answers

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request, with a fault if one is due."""
        parts = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        found = re.fullmatch(r"/images/(?:\d+/)?(\d+)\.\w+", parts.path)
        what = "page" if parts.path in ("/index.php", "/posts.json") else "file" if found else "other"
        key = found[1] if found else request.path
        with self.lock:
            fault = self.always.get(parts.path) or self.always.get(what) or self._next(what)
            self.log.append((what, key, fault if request.command == "GET" else "head"))
            self.seen.append(dict(request.headers))
        if what == "page":
            self._page(request, parts.path, query, fault)
        elif found and int(found[1]) in self.by_id:
            self._file(request, self.by_id[int(found[1])], fault)
        elif parts.path == "/endless":
            self._endless(request)
        else:
            self._send(request, b"", 404, fault=fault)

    def _next(self, what: str) -> str:
        if self.planned[what]:
            return self.planned[what].popleft()
        if self.chance.random() < self.share and what != "other":
            return self.chance.choice(PAGE_FAULTS if what == "page" else FILE_FAULTS)
        return ""

    def _send(
        self, request: BaseHTTPRequestHandler, body: bytes, status: int = 200, kind: str = "text/html", fault: str = ""
    ) -> None:
        sent = body[: len(body) // 2] if fault in ("cut", "truncated") else body
        if fault == "drop":
            request.close_connection = True
            request.connection.close()
            return
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(sent if fault != "cut" else body)))
        if fault:
            for name, value in self.headers.items():
                request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(sent)
        if fault == "cut":
            request.close_connection = True

    def _fault(self, request: BaseHTTPRequestHandler, fault: str) -> bool:
        """Send what needs no content; return whether that was it."""
        if fault.isdigit():
            self._send(request, HTML, int(fault), fault=fault)
        elif fault == "html":
            self._send(request, HTML, fault=fault)
        elif fault == "error":
            self._send(request, ERROR, kind="application/json", fault=fault)
        elif fault == "limited":
            self._send(request, LIMITED, kind="text/xml", fault=fault)
        elif fault == "empty":
            self._send(request, b"", kind="text/xml", fault=fault)
        elif fault == "hang":
            time.sleep(2)
            request.close_connection = True
        elif fault.startswith("to:"):
            request.send_response(302)
            request.send_header("Location", fault[3:])
            request.send_header("Content-Length", "0")
            request.end_headers()
        elif fault == "endless redirect":
            request.send_response(302)
            request.send_header("Location", "/images/2.jpg")
            request.end_headers()
            with contextlib.suppress(OSError):
                for self.poured in range(1, 2000):
                    request.wfile.write(b"\0" * 65536)
            request.close_connection = True
        else:
            return False
        return True

    def _file(self, request: BaseHTTPRequestHandler, entry: Entry, fault: str) -> None:
        if not self._fault(request, fault):
            data = picture(entry.id + 1_000_000) if fault == "wrong" else entry.data
            self._send(request, data, kind=f"image/{entry.ext}", fault=fault)

    def _endless(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "image/png")
        request.end_headers()
        for _ in range(400):
            request.wfile.write(b"\0" * 65536)
        request.close_connection = True

    def _page(self, request: BaseHTTPRequestHandler, path: str, query: dict[str, str], fault: str) -> None:
        if self._fault(request, fault):
            return
        words = query.get("tags", "").split()
        danbooru = path == "/posts.json"
        if danbooru and sum(":" not in word for word in words) > 2:
            self._send(request, b'{"success":false,"message":"You cannot search for more than 2 tags"}', 422)
            return
        below = next((int(word[4:]) for word in words if word.startswith("id:<")), 10**9)
        if query.get("page", "").startswith("b"):
            below = int(query["page"][1:])
        matching = [entry for entry in self.entries if all(fits(entry, word) for word in words)]
        rest = [entry for entry in matching if entry.id < below]
        size = min(int(query["limit"]), self.page)
        shown = rest[:size]
        if fault == "repeated":  # the page before
            shown = [entry for entry in matching if entry.id >= below - 1][-size:]
        elif fault == "swapped" and below < 10**9:  # the page after; nobody could tell of the first
            shown = rest[size : 2 * size]
        elif fault == "shuffled":
            shown = random.Random(below).sample(shown, len(shown))
        if danbooru or query.get("json"):
            body = json.dumps([self.danbooru(e) if danbooru else self.dapi_json(e) for e in shown]).encode()
            kind = "application/json"
        else:
            body, kind = self.dapi_xml(shown, len(rest)), "text/xml"
        self._send(request, b"{[(" + body if fault == "malformed" else body, kind=kind, fault=fault)

    def url(self, entry: Entry) -> str:
        """Return the address of a post's file."""
        return f"{self.address}/images/{entry.id}.{entry.ext}"

    def danbooru(self, entry: Entry) -> dict[str, Any]:
        """Return a post as Danbooru tells it."""
        row = {
            "id": entry.id,
            "created_at": "2024-01-02T03:04:05.678-05:00",
            "md5": entry.md5,
            "rating": entry.rating,
            "image_width": entry.size[0],
            "image_height": entry.size[1],
            "file_ext": entry.ext,
            "file_size": len(entry.data),
            "file_url": self.url(entry),
            "tag_string": entry.tags,
            "tag_string_artist": "some_artist",
            "score": entry.score,
            "source": f"https://example.org/art/{entry.id}",
        }
        if entry.hidden:
            del row["md5"], row["file_url"]
        return {**row, **entry.more}

    def dapi_json(self, entry: Entry) -> dict[str, Any]:
        """Return a post as an older Gelbooru 0.2 tells it: without the address of its file."""
        row = {
            "directory": "7",
            "hash": entry.md5,
            "image": f"{entry.id}.{entry.ext}",
            "id": entry.id,
            "width": entry.size[0],
            "height": entry.size[1],
            "rating": {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}[entry.rating],
            "score": entry.score,
            "tags": entry.tags,
        }
        return {**row, **entry.more}

    def dapi_xml(self, shown: list[Entry], count: int) -> bytes:
        """Return posts as the XML of Gelbooru 0.2."""
        rows = []
        for entry in shown:
            row = {
                "id": entry.id,
                "md5": entry.md5,
                "file_url": self.url(entry),
                "width": entry.size[0],
                "height": entry.size[1],
                "rating": {"g": "safe", "s": "sensitive"}.get(entry.rating, entry.rating),
                "score": entry.score,
                "tags": f" {entry.tags} ",
                "source": f"https://example.org/art/{entry.id}",
                "created_at": "Tue Jan 02 03:04:05 -0500 2024",
            }
            if entry.hidden:
                del row["md5"], row["file_url"]
            pairs = {**row, **entry.more}.items()
            rows.append("<post " + " ".join(f"{k}={quoteattr(str(v))}" for k, v in pairs if v is not None) + "/>")
        text = f'<?xml version="1.0" encoding="UTF-8"?><posts count="{count}" offset="0">{"".join(rows)}</posts>'
        return text.encode()


class SlowServer:
    """A server whose answers never end: a byte every `pause` seconds of a body, of a header, or of 1xx answers."""

    STARTS = {
        "body": (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9999999\r\n\r\n", b" "),
        "headers": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        "many": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "silence": (b"", b""),
    }

    def __init__(self, pause: float = 0.05):
        self.pause = pause
        self.asked, self.done = threading.Event(), threading.Event()

    def __enter__(self) -> SlowServer:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=[self.socket.accept()[0]], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            kind = client.recv(65536).split()[1].decode().split("/")[1]
            start, piece = self.STARTS[kind]
            client.sendall(start)
            self.asked.set()
            while not self.done.wait(self.pause):
                client.sendall(piece)


def fits(entry: Entry, word: str) -> bool:
    """Whether a post has a tag, or fits a metatag."""
    if word.startswith("-"):
        return word[1:] not in entry.tags.split()
    name, colon, value = word.partition(":")
    if not colon:
        return word in entry.tags.split()
    if name == "rating":
        return entry.rating in value.split(",")
    if name == "filetype":
        return entry.ext in value.split(",")
    return name != "score" or entry.score >= int(value.removeprefix(">="))
