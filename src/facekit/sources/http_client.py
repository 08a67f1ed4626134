"""Rate-limited HTTP client with retries, limits on size and time, and a guard against inside addresses."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin

import requests
import urllib3
from requests import exceptions as broken

from ..runtime import console
from ..storage import files
from .deadline import Deadline
from .errors import AddressRefused, FetchError, Stopped
from .rate_limiter import RateLimiter
from .transport import adapter
from .url_guard import Hosts, redacted

AGAIN = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}
MEANINGS = {
    401: "the login is not accepted",
    403: "access is forbidden",
    404: "not found",
    410: "it is gone",
    422: "the request is not accepted",
    429: "too many requests",
    500: "the server failed",
    503: "the server is overloaded or under maintenance",
}
REDIRECTS = 5
WRONG = 3  # tries for an answer with the wrong content
CHUNK = 1 << 16  # bytes
CONNECT, READ = 10.0, 20.0  # s: until connected, between two pieces
LONGEST = 300.0  # s for one exchange, from its request to the end of its answer
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # s, of the back-off
LONGEST_RETRY_AFTER = 600.0  # s, of a server's Retry-After
NOTED = 5.0  # s; longer pauses are printed
T = TypeVar("T")


@dataclass
class Traffic:
    """How many requests were sent and bytes received."""

    requests: int = 0
    bytes: int = 0


def user_agent() -> str:
    """Return the User-Agent of all requests."""
    from .. import __version__

    return f"facekit/{__version__} (crawls images for research)"


def retry_after(value: str | None, now: datetime.datetime | None = None) -> float | None:
    """Return the seconds of a Retry-After header, which gives seconds or a date; None for anything else."""
    if not value:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        seconds = float(value[:9])
    else:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
        zone = datetime.timezone.utc
        when = when if when.tzinfo else when.replace(tzinfo=zone)
        seconds = (when - (now or datetime.datetime.now(zone))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


class HttpClient:
    """The HTTP of one crawl: `rate` requests a second and host, `tries` for each, exponential back-off with jitter.

    An exchange may take `longest` seconds. Cookies, the environment's proxies and netrc are not used. Every method
    raises FetchError, Stopped after `abort`, and OutputError if a file cannot be written.
    """

    def __init__(
        self,
        hosts: Hosts,
        rate: float = 1.0,
        tries: int = 6,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        chance: random.Random | None = None,
        longest: float = LONGEST,
    ):
        self.hosts, self.tries, self.clock, self.began = hosts, tries, clock, clock()
        self.longest, self.running = longest, set[Deadline]()
        self.reporter = console.current.get()  # threads do not inherit it
        self.stop = threading.Event()
        self.sleep = sleep or self._sleep
        self.limiter = RateLimiter(rate, clock, self.sleep)
        self.chance = chance or random.Random()
        self.traffic, self.lock = Traffic(), threading.Lock()
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.session.headers["User-Agent"] = user_agent()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, adapter(hosts.local))

    def abort(self) -> None:
        """Stop all requests of all threads, also those that wait for a server."""
        self.stop.set()
        with self.lock:
            running = list(self.running)
        for deadline in running:
            deadline.cut()

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Stopped

    def retry(self, work: Callable[[int], T]) -> T:
        """Return `work(attempt)`; retry while it raises a FetchError that may pass, and raise the last one."""
        attempt = 0
        while True:
            if self.stop.is_set():
                raise Stopped
            try:
                return work(attempt)
            except FetchError as error:
                attempt += 1
                if not error.again or attempt >= (min(self.tries, WRONG) if error.stage == "content" else self.tries):
                    raise
                pause = self.pause(attempt)
                if pause > NOTED:
                    self.reporter.note(f"{error.message}; next try in {pause:.0f} s")
                self.sleep(pause)

    def pause(self, attempt: int) -> float:
        """Return the seconds before retry number `attempt`: they double, and jitter keeps threads apart."""
        return min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * self.chance.uniform(0.5, 1.0)

    def get(self, url: str, limit: int, params: dict[str, Any] | None = None, auth: Any = None) -> bytes:
        """Return the body of one answer of at most `limit` bytes. One try; `auth` goes to this host only."""
        hint = "this is not the interface of such a board: check --address"
        with self._open("GET", url, params, auth) as response:
            return b"".join(self._pieces(response, limit, hint))

    def save(self, url: str, path: Path, limit: int) -> int:
        """Write the body of one answer of at most `limit` bytes to a file; return its length. One try."""
        with self._open("GET", url, headers={"Accept": "image/*,*/*;q=0.1"}) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind.startswith("text/") or kind in ("application/json", "application/xml", "application/xhtml+xml"):
                raise FetchError(
                    f"the server sent {kind} instead of an image", "it is retried later", stage="content", again=True
                )
            if kind.startswith(("video/", "audio/")) or kind in ("application/zip", "application/x-shockwave-flash"):
                raise FetchError(f"the file is {kind}, not an image", stage="content")
            return self._store(response, path, limit, "raise --max-mb")

    def download(self, url: str, path: Path, limit: int) -> int:
        """Write the body of one answer of any kind, of at most `limit` bytes, to a file; return its length. One try."""
        with self._open("GET", url) as response:
            return self._store(response, path, limit, "download it yourself, and give the file")

    def _store(self, response: requests.Response, path: Path, limit: int, hint: str) -> int:
        size = 0
        with _writing(path) as file:
            for piece in self._pieces(response, limit, hint):
                with _disk(path):
                    file.write(piece)
                size += len(piece)
        if size == 0:
            raise FetchError("the answer is empty", stage="content", again=True)
        return size

    def size(self, url: str) -> int | None:
        """Return the size of a file in bytes, if the server says."""
        with self._open("HEAD", url) as response:
            length = response.headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() and len(length) < 15 else None

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        url: str,
        params: dict[str, Any] | None = None,
        auth: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        """Send a request, follow redirects to allowed addresses, and give the answer if its status is 200."""
        for _ in range(REDIRECTS + 1):
            request = self._prepare(method, url, params, auth, headers)
            url = str(request.url)
            host = self.hosts.check(url)
            if auth and not (url.startswith("https:") or self.hosts.local):
                raise AddressRefused(f"the login is not sent over plain http to {host}", "give an https address")
            self.limiter.wait(host)
            with self.lock:
                self.traffic.requests += 1
            with self._bounded(), contextlib.ExitStack() as stack:
                with _translated():
                    # not session.send: that reads the body of a redirect, however long it is
                    response = self.session.get_adapter(url).send(
                        request, stream=True, timeout=(CONNECT, READ), verify=self.session.verify or True
                    )
                stack.enter_context(contextlib.closing(response))
                with _translated():
                    target = self.session.get_redirect_target(response)
                if target is None:
                    self._accept(host, response)
                    yield response
                    return
                url, params, auth = _joined(url, target), None, None
        raise FetchError(f"more than {REDIRECTS} redirects", stage="http")

    def _prepare(
        self, method: str, url: str, params: dict[str, Any] | None, auth: Any, headers: dict[str, str] | None
    ) -> requests.PreparedRequest:
        wanted = requests.Request(
            method, url, params=params, auth=auth, headers={"Accept-Encoding": "identity", **(headers or {})}
        )
        try:
            return self.session.prepare_request(wanted)
        except (broken.RequestException, ValueError) as error:
            raise AddressRefused(f"not an http(s) address: {redacted(url)}") from error

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        """Cut the exchange in the block off after `longest` seconds, and on `abort`; say so whatever that causes."""
        deadline = Deadline(self.longest)
        with self.lock:
            self.running.add(deadline)
        try:
            with deadline.running():
                if self.stop.is_set():
                    raise Stopped
                try:
                    yield
                except FetchError:
                    if not deadline.over:
                        raise
                if deadline.over:  # the end of the data may be the cut
                    if self.stop.is_set():
                        raise Stopped
                    raise FetchError(f"the answer takes longer than {self.longest:g} s", stage="http", again=True)
        finally:
            with self.lock:
                self.running.discard(deadline)

    def _accept(self, host: str, response: requests.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        seconds = retry_after(response.headers.get("retry-after"))
        if seconds and status in AGAIN:
            if seconds > NOTED:
                self.reporter.note(f"{host} answers {status} and requests a pause of {seconds:.0f} s")
            self.limiter.pause(host, seconds)
        meaning = MEANINGS.get(status, "unexpected")
        raise FetchError(f"{host} answers {status}: {meaning}", again=status in AGAIN, status=status)

    def _pieces(self, response: requests.Response, limit: int, hint: str) -> Iterator[bytes]:
        """Yield a body piece by piece; raises FetchError beyond `limit` bytes (with `hint`) and if it is cut off."""
        large = FetchError(f"the answer is larger than {limit / 1e6:g} MB", hint, stage="size")
        declared = response.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:15]) > limit:
            raise large
        size = 0
        pieces = response.iter_content(CHUNK)
        while True:
            with _translated():
                piece = next(pieces, b"")
            if not piece:
                return
            size += len(piece)
            with self.lock:
                self.traffic.bytes += len(piece)
            if size > limit:
                raise large
            yield piece


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise AddressRefused(f"redirect to a malformed address: {redacted(target)}") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Any]:
    with _disk(path):
        file = open(path, "wb")  # noqa: SIM115
    try:
        yield file
    finally:
        with _disk(path):
            file.close()


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn an OSError of the disk into OutputError; network errors must not pass through here."""
    try:
        yield
    except OSError as error:
        files.cannot_write(path, error)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn what `requests` raises into a FetchError that names no address."""
    try:
        yield
    except broken.SSLError as error:
        raise FetchError(
            "the TLS handshake failed", "check the clock and the certificates", stage="connect", again=True
        ) from error
    except (broken.ConnectTimeout, broken.ReadTimeout) as error:
        raise FetchError("no answer in time", stage="connect", again=True) from error
    except (broken.ChunkedEncodingError, broken.ContentDecodingError) as error:
        raise FetchError("the answer is cut off", stage="http", again=True) from error
    except broken.ConnectionError as error:
        text = str(error)
        if "Read timed out" in text:
            reason = "no answer in time"
        elif "NameResolutionError" in text or "resolve" in text:
            reason = "unknown host name"
        else:
            reason = "no connection, or it was cut off"
        raise FetchError(reason, "check the network", stage="connect", again=True) from error
    except (broken.RequestException, urllib3.exceptions.HTTPError, UnicodeError, ValueError) as error:
        raise FetchError(f"not HTTP: {type(error).__name__}", stage="http", again=True) from error
