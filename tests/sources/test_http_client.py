"""HTTP that is polite and trusts nothing: pace, patience, limits, and which addresses may be asked."""

import datetime
import random
import socket
import threading

import pytest

from booru import Booru, Entry, SlowServer, picture
from facekit.errors import OutputError
from facekit.runtime import console
from facekit.sources import http_client, transport
from facekit.sources.errors import AddressRefused, FetchError, Stopped
from facekit.sources.http_client import HttpClient, retry_after
from facekit.sources.rate_limiter import RateLimiter
from facekit.sources.url_guard import Hosts, is_public, redacted


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board():
    with Booru([Entry(i) for i in range(1, 4)]) as server:
        yield server


def client(board, clock, local=True, hosts=("127.0.0.1",), **more):
    ports = [int(board.address.rpartition(":")[2])] if board else []
    return HttpClient(Hosts(hosts, ports, local), 1000.0, clock=clock, sleep=clock.sleep, **more)


# which addresses


PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1",
    "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "fec0::1",
    "192.0.2.1",
]  # fmt: skip


@pytest.mark.parametrize("ip", PRIVATE)
def test_an_address_that_is_not_public_is_known(ip):
    assert not is_public(ip)


@pytest.mark.parametrize("ip", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_known(ip):
    assert is_public(ip)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://safebooru.org/x", "gopher://safebooru.org/", "data:image/png;base64,AAAA", "//x",
        "http:///x", "", "safebooru.org/x.jpg", "http://user:word@safebooru.org/x", "http://safebooru.org:22/x",
        "http://evil.org/x", "http://safebooru.org.evil.org/x", "http://notsafebooru.org/",
        "http://evil.org#safebooru.org", "http://safebooru.org@evil.org/",
        "http://evil.org\\@safebooru.org/", "http://[::1/", "http://127.0.0.1/", "http://localhost/",
        "http://2130706433/", "http://0x7f.1/", "http://[::ffff:7f00:1]/",
    ],
)  # fmt: skip
def test_an_address_outside_the_site_is_refused(url):
    with pytest.raises(AddressRefused) as caught:
        Hosts(["safebooru.org"]).check(url)
    assert caught.value.stage == "address" and "word" not in caught.value.message


@pytest.mark.parametrize(
    "url", ["https://safebooru.org/x", "http://img2.safebooru.org:80/x", "HTTPS://SAFEBOORU.ORG./"]
)
def test_addresses_of_the_site_may_be_asked(url):
    assert Hosts(["safebooru.org"]).check(url).endswith("safebooru.org")


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "192.168.0.9", "::1", "fe80::1", "0.0.0.0"])
def test_a_host_that_resolves_to_a_private_address_is_not_connected_to(clock, monkeypatch, ip):
    connected = []
    monkeypatch.setattr(transport, "resolve", lambda host, port: [ip])
    monkeypatch.setattr(transport.connection, "create_connection", lambda *a, **k: connected.append(a))
    with pytest.raises(AddressRefused, match="not on the public internet") as caught:
        client(None, clock, local=False, hosts=["safebooru.org"]).get("https://safebooru.org/", 100)
    assert connected == [] and "--allow-local" in caught.value.hint


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "printer.local", "2130706433", "0x7f.1", "127.1"])
def test_a_local_host_that_is_named_is_refused_without_the_flag(board, clock, host):
    port = board.address.rpartition(":")[2]
    asking = client(board, clock, local=False, hosts=[host.strip("[]")], tries=1)
    with pytest.raises(FetchError):
        asking.get(f"http://{host}:{port}/images/1.jpg", 10_000)
    assert board.log == []


def test_the_address_that_was_checked_is_the_one_connected_to(clock, monkeypatch):
    answers, connected = iter([["93.184.216.34"], ["127.0.0.1"]]), []

    def connect(place, *more, **other):
        connected.append(place)
        raise OSError("no network in tests")

    monkeypatch.setattr(transport, "resolve", lambda host, port: next(answers))  # the second answer is another
    monkeypatch.setattr(transport.connection, "create_connection", connect)
    asking = client(None, clock, local=False, hosts=["safebooru.org"])
    with pytest.raises(FetchError, match="no connection"):
        asking.get("http://safebooru.org/", 100)
    assert connected == [("93.184.216.34", 80)]
    with pytest.raises(AddressRefused):
        asking.get("http://safebooru.org/", 100)
    assert len(connected) == 1


def test_of_several_addresses_only_public_ones_are_tried(clock, monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("10.0.0.1", "93.184.216.34", "127.0.0.1")]
    connected = []

    def connect(place, *more, **other):
        connected.append(place[0])
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)
    monkeypatch.setattr(transport.connection, "create_connection", connect)
    with pytest.raises(FetchError):
        client(None, clock, local=False, hosts=["safebooru.org"]).get("http://safebooru.org/", 100)
    assert connected == ["93.184.216.34"]


def test_an_unknown_host_and_a_closed_port_are_faults_that_may_pass(board, clock, monkeypatch):
    board.server.server_close()
    with pytest.raises(FetchError, match="no connection") as caught:
        client(board, clock).get(f"{board.address}/images/1.jpg", 1000)
    assert caught.value.again

    def unknown(host, port):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(transport, "resolve", unknown)
    with pytest.raises(FetchError, match="unknown host name"):
        client(None, clock, hosts=["nowhere.org"]).get("http://nowhere.org/", 1000)


# redirects


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd", "http://10.0.0.1/x.jpg", "http://169.254.169.254/latest", "http://[::1]/",
        "http://evil.org/", "http://localhost/", "http://127.0.0.1:1/", "ftp://127.0.0.1/x", "http://a:b@127.0.0.1/",
        "http://[",
        "//evil.org/x", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_a_redirect_is_checked_before_it_is_followed(board, clock, target, monkeypatch):
    board.always["/images/1.jpg"] = f"to:{target}"
    real, connected = transport.connection.create_connection, set()

    def connect(place, *more, **other):
        connected.add(place)
        return real(place, *more, **other)

    monkeypatch.setattr(transport.connection, "create_connection", connect)
    with pytest.raises(AddressRefused):
        client(board, clock).get(f"{board.address}/images/1.jpg", 10_000)
    assert connected == {("127.0.0.1", board.server.server_address[1])} and len(board.log) == 1


def test_a_redirect_within_the_site_is_followed(board, clock):
    board.always["/images/1.jpg"] = "to:/images/2.jpg"
    assert client(board, clock).get(f"{board.address}/images/1.jpg", 10_000) == board.by_id[2].data


def test_redirects_in_a_circle_end(board, clock):
    board.always["/images/1.jpg"] = "to:/images/1.jpg"
    with pytest.raises(FetchError, match="5 redirects"):
        client(board, clock).get(f"{board.address}/images/1.jpg", 10_000)
    assert len(board.log) == 6


def test_the_body_of_a_redirect_is_not_read(board, clock):
    board.always["/images/1.jpg"] = "endless redirect"
    assert client(board, clock).get(f"{board.address}/images/1.jpg", 10_000) == board.by_id[2].data
    assert board.poured < 1999


def test_a_login_goes_to_the_first_host_only_and_never_over_plain_http(board, clock, monkeypatch):
    board.always["/images/1.jpg"] = "to:/images/2.jpg"
    client(board, clock).get(f"{board.address}/images/1.jpg", 10_000, auth=("me", "word"))
    assert ["Authorization" in headers for headers in board.seen] == [True, False]
    monkeypatch.setattr(transport, "resolve", lambda host, port: pytest.fail("asked"))
    with pytest.raises(AddressRefused, match="plain http") as caught:
        client(None, clock, local=False, hosts=["donmai.us"]).get("http://donmai.us/", 100, auth=("me", "word"))
    assert "word" not in str(caught.value)


def test_no_login_of_netrc_and_no_proxy_of_the_environment_is_used(board, clock, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client(board, clock).get(f"{board.address}/images/1.jpg", 10_000)
    assert "Authorization" not in board.seen[0] and board.seen[0]["User-Agent"].startswith("facekit/")


def test_cookies_are_not_kept(board, clock):
    board.headers["Set-Cookie"] = "track=1; Path=/"
    board.planned["file"].append("shuffled")  # a fault that a file does not have: only the header is added
    asking = client(board, clock)
    for _ in range(2):
        asking.get(f"{board.address}/images/1.jpg", 10_000)
    assert all("Cookie" not in headers for headers in board.seen)


# pace and patience


def test_requests_to_a_host_are_spread_evenly(clock):
    pace, times = RateLimiter(2.0, clock, clock.sleep), []
    for _ in range(4):
        pace.wait("a.org")
        times.append(clock())
    assert times == [1000.0, 1000.5, 1001.0, 1001.5]


def test_hosts_have_a_pace_of_their_own(clock):
    pace = RateLimiter(1.0, clock, clock.sleep)
    for host in ("a.org", "b.org", "c.org"):
        pace.wait(host)
    assert clock.slept == []


def test_threads_share_the_pace(clock):
    slept, lock = [], threading.Lock()

    def sleep(seconds):
        with lock:
            slept.append(round(seconds, 6))

    pace = RateLimiter(1.0, clock, sleep)
    threads = [threading.Thread(target=pace.wait, args=["a.org"]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slept) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


def test_a_host_that_requests_a_pause_gets_it_and_others_continue(clock):
    pace = RateLimiter(1.0, clock, clock.sleep)
    pace.pause("a.org", 30)
    pace.wait("b.org")
    assert clock() == 1000
    pace.wait("a.org")
    assert clock() == 1030


def test_back_off_doubles_with_jitter_up_to_a_limit():
    asking = HttpClient(Hosts([]), chance=random.Random(0))
    pauses = [asking.pause(n) for n in range(1, 12)]
    for attempt, pause in enumerate(pauses):
        top = min(http_client.FIRST_PAUSE * 2**attempt, http_client.LONGEST_PAUSE)
        assert top / 2 <= pause <= top
    assert len({round(pause / 2**n, 6) for n, pause in enumerate(pauses[:5])}) == 5


@pytest.mark.parametrize("status", ["429", "500", "502", "503", "504"])
def test_a_passing_fault_is_tried_again(board, clock, status):
    board.planned["file"].extend([status] * 3)
    asking = client(board, clock)
    data = asking.retry(lambda attempt: asking.get(f"{board.address}/images/1.jpg", 10_000))
    assert data == board.by_id[1].data and len(board.log) == 4
    assert sum(clock.slept) >= 0.5 + 1 + 2


@pytest.mark.parametrize("status", ["401", "403", "404", "410", "422"])
def test_a_final_answer_is_not_asked_for_again(board, clock, status):
    board.always["/images/1.jpg"] = status
    asking = client(board, clock)
    with pytest.raises(FetchError, match=status) as caught:
        asking.retry(lambda attempt: asking.get(f"{board.address}/images/1.jpg", 10_000))
    assert len(board.log) == 1 and caught.value.status == int(status)


def test_after_the_last_try_the_fault_is_raised(board, clock):
    board.always["/images/1.jpg"] = "500"
    asking = client(board, clock, tries=3)
    with pytest.raises(FetchError, match="the server failed"):
        asking.retry(lambda attempt: asking.get(f"{board.address}/images/1.jpg", 10_000))
    assert len(board.log) == 3


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7), ("0", 0), (" 12 ", 12), ("99999999", 600), ("9" * 400, 600), ("-5", None), ("soon", None), ("", None),
        (None, None), ("1.5", None), ("٣", None),
        ("Fri, 02 Jan 2026 00:00:30 GMT", 30), ("Thu, 01 Jan 2026 00:00:00 GMT", 0),
        ("Fri, 02 Jan 2099 00:00:00 GMT", 600), ("Fri, 99 Jan 2026 00:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_date_and_capped(value, seconds):
    assert retry_after(value, datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)) == seconds


def test_retry_after_is_honoured_and_reported(board, clock, capsys):
    board.planned["file"].append("429")
    board.headers["Retry-After"] = "77"
    token = console.current.set(console.Plain())
    asking = client(board, clock)
    console.current.reset(token)
    asking.retry(lambda attempt: asking.get(f"{board.address}/images/1.jpg", 10_000))
    assert clock() >= 1077 and "127.0.0.1 answers 429 and requests a pause of 77 s" in capsys.readouterr().err


def test_a_stop_ends_the_waiting(board):
    asking = HttpClient(Hosts(["127.0.0.1"], local=True))
    asking.stop.set()
    with pytest.raises(Stopped):
        asking.retry(lambda attempt: pytest.fail("worked"))
    with pytest.raises(Stopped):
        asking.sleep(1000)


# bodies


def save(board, clock, tmp_path, path="/images/1.jpg", limit=100_000):
    target = tmp_path / "part"
    return client(board, clock).save(board.address + path, target, limit), target


def test_a_file_is_saved_whole(board, clock, tmp_path):
    size, target = save(board, clock, tmp_path)
    assert target.read_bytes() == board.by_id[1].data and size == len(board.by_id[1].data)


def test_what_says_that_it_is_too_large_is_not_fetched(board, clock, tmp_path):
    asking = client(board, clock)
    with pytest.raises(FetchError, match="larger than") as caught:
        asking.save(f"{board.address}/images/1.jpg", tmp_path / "part", 100)
    assert caught.value.stage == "size" and not caught.value.again and asking.traffic.bytes == 0


def test_an_endless_answer_is_given_up_at_the_limit(board, clock, tmp_path):
    asking = client(board, clock)
    with pytest.raises(FetchError, match="larger than"):
        asking.save(f"{board.address}/endless", tmp_path / "part", 200_000)
    assert asking.traffic.bytes < 400_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["body", "headers", "continue", "silence"])
def test_an_answer_that_takes_too_long_is_cut_off(clock, kind):
    with SlowServer() as server, pytest.raises(FetchError, match="takes longer than 0") as caught:
        client(server, clock, longest=0.3).get(f"{server.address}/{kind}", 10**7)
    assert caught.value.again


def test_many_headers_are_refused(clock):
    with SlowServer(pause=0) as server, pytest.raises(FetchError):
        client(server, clock).get(f"{server.address}/many", 10**7)


def test_a_connection_that_is_used_again_is_bounded_too(board, clock):
    asking = client(board, clock)
    asking.get(f"{board.address}/images/1.jpg", 10_000)
    asking.longest = 0.3
    board.always["/images/2.jpg"] = "hang"
    with pytest.raises(FetchError, match="takes longer"):
        asking.get(f"{board.address}/images/2.jpg", 10_000)


def test_abort_ends_requests_that_wait_for_a_server(clock):
    outcome = []

    def ask():
        try:
            asking.get(f"{server.address}/body", 10**7)
        except Stopped:
            outcome.append("stopped")

    with SlowServer() as server:
        asking = client(server, clock)
        thread = threading.Thread(target=ask)
        thread.start()
        assert server.asked.wait(30)
        asking.abort()
        thread.join(5)
    assert outcome == ["stopped"]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["resolve", "connect"])
@pytest.mark.parametrize("aborted", [True, False])
def test_a_name_server_or_host_that_does_not_answer_is_left_alone_in_time(clock, monkeypatch, step, aborted):
    begun, answer = threading.Event(), threading.Event()

    def block(*arguments, **more):
        begun.set()
        answer.wait(30)
        raise OSError("no answer")

    place = (transport, "resolve") if step == "resolve" else (transport.connection, "create_connection")
    monkeypatch.setattr(*place, block)
    asking, outcome = client(None, clock, longest=30.0 if aborted else 0.2), []

    def ask():
        try:
            asking.get("http://127.0.0.1/x", 1000)
        except FetchError as error:
            outcome.append(error.message)
        except Stopped:
            outcome.append("stopped")

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(10)
    if aborted:
        asking.abort()
    thread.join(5)
    answer.set()
    assert outcome == ["stopped" if aborted else "the answer takes longer than 0.2 s"]


def test_the_hint_for_a_page_that_is_too_large_is_not_about_files(board, clock):
    with pytest.raises(FetchError, match="larger than") as caught:
        client(board, clock).get(f"{board.address}/images/1.jpg", 100)
    assert "--address" in caught.value.hint


@pytest.mark.parametrize(
    ("fault", "words"),
    [("html", "text/html"), ("error", "application/json"), ("empty", "text/xml"), ("cut", "cut off"), ("drop", "cut")],
)
def test_an_incomplete_file_or_one_that_is_not_an_image_is_retried_later(board, clock, tmp_path, fault, words):
    board.always["/images/1.jpg"] = fault
    with pytest.raises(FetchError, match=words) as caught:
        save(board, clock, tmp_path)
    assert caught.value.again


def test_a_full_disk_is_reported_as_such(board, clock, tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        client(board, clock).save(f"{board.address}/images/1.jpg", tmp_path / "no" / "part", 100_000)


def test_the_size_of_a_file_is_asked_without_fetching_it(board, clock):
    asking = client(board, clock)
    assert asking.size(f"{board.address}/images/1.jpg") == len(picture(1)) and asking.traffic.bytes == 0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:word@a.org/x?b=1#c", "https://a.org/x?b=1"),
        ("https://a.org/x?id=7&api_key=word&Signature=word", "https://a.org/x?id=7&api_key=...&Signature=..."),
        ("https://a.org/x\n\x1b[31m", "https://a.org/x [31m"),
        ("http://[", "a malformed address"),
    ],
)
def test_what_is_written_down_of_an_address_holds_no_secret(url, expected):
    assert redacted(url) == expected
