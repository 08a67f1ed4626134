"""HTTP that is polite and trusts nothing: paced, patient, bounded in size and time, only to hosts that are allowed."""

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
from .errors import Fault, Refused, Stopped
from .rate_limiter import Pace
from .url_guard import Hosts, adapter, shown

AGAIN = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}
MEANINGS = {
    401: "the login is not accepted",
    403: "it is forbidden",
    404: "there is no such thing",
    410: "it is gone",
    422: "the request is not accepted",
    429: "too many requests",
    500: "the server failed",
    503: "the server is overloaded or being mended",
}
REDIRECTS = 5
WRONG = 3  # tries for what comes, but is not what it should be
CHUNK = 1 << 16  # bytes
CONNECT, READ = 10.0, 20.0  # s: until connected, between two pieces
LONGEST = 600.0  # s for one file
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # s, of the back-off
LONGEST_WISH = 600.0  # s that a server's Retry-After is followed
TOLD = 5.0  # s; of longer pauses the user is told
T = TypeVar("T")


@dataclass
class Tally:
    """What has gone over the wire."""

    requests: int = 0
    bytes: int = 0


def user_agent() -> str:
    """Return the name under which requests go out."""
    from .. import __version__

    return f"facekit/{__version__} (crawls images for research)"


def wish(value: str | None, now: datetime.datetime | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, given as seconds or as a date; None for anything else."""
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
    return min(max(seconds, 0.0), LONGEST_WISH)


class Polite:
    """One crawl's HTTP: `rate` requests a second and host, `tries` for each, back-off that doubles, with jitter.

    Cookies are not kept and the environment's proxies and netrc not used. Every method raises Fault, Stopped once
    `stop` is set, and OutputError where a file cannot be written.
    """

    def __init__(
        self,
        hosts: Hosts,
        rate: float = 1.0,
        tries: int = 6,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        chance: random.Random | None = None,
    ):
        self.hosts, self.tries, self.clock, self.began = hosts, tries, clock, clock()
        self.reporter = console.current.get()  # threads do not inherit it
        self.stop = threading.Event()
        self.sleep = sleep or self._sleep
        self.pace = Pace(rate, clock, self.sleep)
        self.chance = chance or random.Random()
        self.tally, self.lock = Tally(), threading.Lock()
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.session.headers["User-Agent"] = user_agent()
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, adapter(hosts.local))

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Stopped

    def retry(self, work: Callable[[int], T]) -> T:
        """Do `work(attempt)` until it raises no Fault that a further try may mend; the last one is raised."""
        attempt = 0
        while True:
            if self.stop.is_set():
                raise Stopped
            try:
                return work(attempt)
            except Fault as fault:
                attempt += 1
                if not fault.again or attempt >= (min(self.tries, WRONG) if fault.stage == "content" else self.tries):
                    raise
                pause = self.pause(attempt)
                if pause > TOLD:
                    self.reporter.note(f"{fault.message}; asked again in {pause:.0f} s")
                self.sleep(pause)

    def pause(self, attempt: int) -> float:
        """Return the seconds before the `attempt`-th further try: they double, and jitter keeps threads apart."""
        return min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * self.chance.uniform(0.5, 1.0)

    def get(self, url: str, limit: int, params: dict[str, Any] | None = None, auth: Any = None) -> bytes:
        """Return the body of one answer of at most `limit` bytes. One try; `auth` goes to this host only."""
        with self._open("GET", url, params, auth) as response:
            return b"".join(self._pieces(response, limit))

    def save(self, url: str, path: Path, limit: int) -> int:
        """Write the body of one answer of at most `limit` bytes to a file; return its length. One try."""
        size = 0
        with self._open("GET", url, headers={"Accept": "image/*,*/*;q=0.1"}) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind.startswith("text/") or kind in ("application/json", "application/xml", "application/xhtml+xml"):
                raise Fault(f"{kind} came instead of an image", "it is tried again later", stage="content", again=True)
            if kind.startswith(("video/", "audio/")) or kind in ("application/zip", "application/x-shockwave-flash"):
                raise Fault(f"it is {kind}, not an image", stage="content")
            with _writing(path) as file:
                for piece in self._pieces(response, limit):
                    with _disk(path):
                        file.write(piece)
                    size += len(piece)
        if size == 0:
            raise Fault("the answer is empty", stage="content", again=True)
        return size

    def size(self, url: str) -> int | None:
        """Return how many bytes a file has, if the server tells."""
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
        """Send a request, follow redirects that lead to allowed addresses, and give the answer if its status is 200."""
        for _ in range(REDIRECTS + 1):
            wanted = requests.Request(
                method, url, params=params, auth=auth, headers={"Accept-Encoding": "identity", **(headers or {})}
            )
            try:
                request = self.session.prepare_request(wanted)
            except (broken.RequestException, ValueError) as error:
                raise Refused(f"not an http(s) address: {shown(url)}") from error
            url = str(request.url)
            host = self.hosts.check(url)
            if auth and not (url.startswith("https:") or self.hosts.local):
                raise Refused(f"the login is not sent over plain http to {host}", "give an https address")
            self.pace.wait(host)
            with self.lock:
                self.tally.requests += 1
            with _faults():
                # not session.send: that reads the body of a redirect, however long it is
                response = self.session.get_adapter(url).send(
                    request, stream=True, timeout=(CONNECT, READ), verify=self.session.verify or True
                )
            with contextlib.closing(response):
                with _faults():
                    target = self.session.get_redirect_target(response)
                if target is None:
                    self._accept(host, response)
                    yield response
                    return
                url, params, auth = _joined(url, target), None, None
        raise Fault(f"more than {REDIRECTS} redirects", stage="http")

    def _accept(self, host: str, response: requests.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        seconds = wish(response.headers.get("retry-after"))
        if seconds and status in AGAIN:
            if seconds > TOLD:
                self.reporter.note(f"{host} answers {status} and asks for a pause of {seconds:.0f} s")
            self.pace.hold(host, seconds)
        meaning = MEANINGS.get(status, "not what was asked for")
        raise Fault(f"{host} answers {status}: {meaning}", again=status in AGAIN, status=status)

    def _pieces(self, response: requests.Response, limit: int) -> Iterator[bytes]:
        """Yield a body piece by piece; raises Fault beyond `limit` bytes, after LONGEST s, and for a cut."""
        told = response.headers.get("content-length", "")
        if told.isascii() and told.isdigit() and int(told[:15]) > limit:
            raise Fault(f"it is larger than {limit / 1e6:g} MB", "raise --max-mb", stage="size")
        size, until = 0, self.clock() + LONGEST
        pieces = response.iter_content(CHUNK)
        while True:
            with _faults():
                piece = next(pieces, b"")
            if not piece:
                return
            if self.stop.is_set():
                raise Stopped
            size += len(piece)
            with self.lock:
                self.tally.bytes += len(piece)
            if size > limit:
                raise Fault(f"it is larger than {limit / 1e6:g} MB", "raise --max-mb", stage="size")
            if self.clock() > until:
                raise Fault(f"it takes longer than {LONGEST:g} s", stage="http", again=True)
            yield piece


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise Refused(f"a redirect to what is not an address: {shown(target)}") from error


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
    """Turn an error of the disk into OutputError; errors of the network must not pass through here."""
    try:
        yield
    except OSError as error:
        files.cannot_write(path, error)


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """Turn what `requests` raises into a Fault without an address in it."""
    try:
        yield
    except broken.SSLError as error:
        raise Fault("TLS fails", "check the clock and the certificates", stage="connect", again=True) from error
    except (broken.ConnectTimeout, broken.ReadTimeout) as error:
        raise Fault("no answer in time", stage="connect", again=True) from error
    except (broken.ChunkedEncodingError, broken.ContentDecodingError) as error:
        raise Fault("the answer is cut off", stage="http", again=True) from error
    except broken.ConnectionError as error:
        text = str(error)
        if "Read timed out" in text:
            reason = "no answer in time"
        elif "NameResolutionError" in text or "resolve" in text:
            reason = "the name of the host is not known"
        else:
            reason = "no connection, or it was cut"
        raise Fault(reason, "check the network", stage="connect", again=True) from error
    except (broken.RequestException, urllib3.exceptions.HTTPError, UnicodeError, ValueError) as error:
        raise Fault(f"not HTTP: {type(error).__name__}", stage="http", again=True) from error
