"""`facekit serve`: what it answers, how much it takes at a time, and what hostile requests get."""

import base64
import contextlib
import dataclasses
import http.client
import io
import json
import signal
import socket
import struct
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from torch import nn

import toy
from facekit.errors import CardError
from facekit.inference.translator import Translator
from facekit.recipe_api import checkpoint
from facekit.storage import images

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from facekit.serving import server as server_module
from facekit.serving.application import Limits
from facekit.serving.request import OWN, TranslateRequest
from facekit.serving.server import ServeOptions, address, opened
from facekit.serving.studio import Studio

PORTRAIT = Image.fromarray(astronaut()[20:220, 110:340])  # one face, about 95 px, in the middle
LIMITS = Limits(bytes=200_000, pixels=500_000, seconds=120)


def png(image: Image.Image) -> bytes:
    return images.encode(image)


PHOTO = png(PORTRAIT)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(100_000)))
    + chunk(b"IEND", b"")
)


@dataclasses.dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.body))


class Client:
    """Sends requests to a service on this machine."""

    def __init__(self, port: int, studio: Studio | None = None):
        self.port, self.studio = port, studio

    def __call__(self, path: str, body=None, method: str | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=240)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        answer = connection.getresponse()
        with contextlib.closing(connection):
            return Reply(answer.status, answer.headers, answer.read())

    def raw(self, *pieces: bytes, pause: float = 0.0) -> bytes:
        """Send bytes as they are; return all that comes back until the service closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while data := connection.recv(65536):
                    answer += data
        return answer


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    values = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(path, nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)
    return path


@pytest.fixture(scope="module")
def studio(weights) -> Studio:
    return Studio([str(weights)], "cpu", str(toy.FILE), "cascade")


@contextlib.contextmanager
def running(studio: Studio, **changed):
    options = ServeOptions(**{"port": 0, "workers": 1, "queue": 2, "limits": LIMITS, **changed})
    with opened(studio, options) as (server, listening):
        port = int(address(listening).rpartition(":")[2])
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Client(port, studio)
        finally:
            server.stop()
            thread.join(200)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def service(studio):
    with running(studio) as client:
        yield client


# What it answers


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and bool((np.asarray(one) == np.asarray(other)).all())


@pytest.mark.slow
def test_the_answer_is_what_the_translator_makes_of_the_photo(service, studio):
    translator = Translator(studio.models["tiny"], detector="cascade")
    reply = service("/translate", PHOTO, Content_Type="image/png")
    assert reply.status == 200 and reply.headers["content-type"] == "image/png" and reply.headers["x-faces"] == "1"
    assert same(reply.image, translator(PORTRAIT))
    assert same(service("/translate?paste=true", PHOTO).image, translator(PORTRAIT, paste=True))
    face = toy.picture(32)
    assert same(service("/translate?align=false", png(face)).image, translator(face, align=False))


@pytest.mark.parametrize(("name", "kind"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_format_and_size_are_as_asked(service, name, kind):
    reply = service(f"/translate?format={name}&size=24&align=false", PHOTO)
    assert reply.image.format == kind and min(reply.image.size) == 24


@pytest.mark.slow
def test_json_has_a_box_and_an_image_for_every_face(service):
    both = Image.new("RGB", (460, 200))
    for left in (0, 230):
        both.paste(PORTRAIT, (left, 0))
    found = service("/translate?faces=all&answer=json&paste=true", png(both)).json
    assert found["weights"] == "tiny" and found["to"] == "anime" and found["photo"] == {"width": 460, "height": 200}
    assert len(found["faces"]) == 2
    for face, left in zip(found["faces"], (0, 230), strict=True):
        x0, y0, x1, y1 = face["box"]
        assert left < x0 < x1 < left + 230 and 0 < y0 < y1 < 200
        assert len(face["landmarks"]) == 5 and 0 < face["score"] <= 1
        assert Image.open(io.BytesIO(base64.b64decode(face["image"]))).size == (64, 64)  # as it is pasted
    assert Image.open(io.BytesIO(base64.b64decode(found["image"]))).size == (460, 200)
    alone = service("/translate?answer=json&align=false", PHOTO).json
    assert alone["faces"][0]["box"] is None and alone["image"] is None


def test_health_and_weights_say_nothing_of_the_machine(service, weights):
    health = service("/health").json
    assert health["status"] == "ok" and health["seats"] == 3 and health["waiting"] == 0
    reply = service("/weights")
    (known,) = reply.json["weights"]
    assert (known["name"], known["to"], known["size"]) == ("tiny", ["anime"], 16)
    assert {control["name"] for control in known["controls"]} == {"strength", "keep", "background"}
    assert str(weights.parent).encode() not in reply.body and b"/" not in reply.body


def test_the_openapi_document_has_every_address_parameter_and_status(service):
    found = service("/openapi.json").json
    for path, methods in found["paths"].items():
        for method in methods:
            assert service(path, PHOTO if method == "post" else None).status == 200
    translate = found["paths"]["/translate"]["post"]
    given = {one["name"]: one for one in translate["parameters"]}
    assert list(given) == [*OWN, "strength", "keep", "background"]
    assert given["keep"]["schema"] == {"type": "string", "enum": ["nothing", "colours"]}
    assert given["strength"]["schema"] == {"type": "number", "minimum": 0, "maximum": 1}
    assert given["weights"]["schema"]["enum"] == ["tiny"] and given["align"]["schema"]["default"] is True
    named = json.dumps(found).split('"$ref": "#/components/schemas/')[1:]
    assert named and {one.partition('"')[0] for one in named} <= set(found["components"]["schemas"])


def test_the_page_needs_no_other_host(service):
    reply = service("/")
    text = reply.body.decode()
    assert reply.status == 200 and "//" not in text.replace("application/json", "")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert all(f"<code>{name}</code>" in text for name in (*OWN, "strength", "keep"))


# What hostile requests get

HOSTILE = {
    "nothing": (400, "/translate", b""),
    "text": (422, "/translate", b"hello"),
    "a web page": (422, "/translate", b"<html><script>alert(1)</script></html>"),
    "an SVG that names a file": (422, "/translate", b'<svg><image href="file:///etc/passwd"/></svg>'),
    "an address as body": (422, "/translate", b"http://169.254.169.254/latest/meta-data"),
    "a cut-short image": (422, "/translate", PHOTO[: len(PHOTO) // 2]),
    "a decompression bomb": (422, "/translate", BOMB),
    "too many pixels": (422, "/translate", png(Image.new("1", (1001, 500)))),
    "no face": (422, "/translate", png(Image.new("RGB", (64, 64), "teal"))),
    "too many bytes": (413, "/translate", bytes(200_001)),
    "too many bytes in pieces": (413, "/translate", iter([bytes(50_000)] * 5)),
    "an address as parameter": (400, "/translate?url=http://127.0.0.1/", PHOTO),
    "weights outside": (400, "/translate?weights=../../../etc/passwd", PHOTO),
    "weights by path": (400, "/translate?weights=/etc/passwd", PHOTO),
    "an unknown label": (400, "/translate?to=%00%1b[2J", PHOTO),
    "an unknown parameter": (400, "/translate?recipe=own.py", PHOTO),
    "a control that the weights lack": (400, "/translate?swap_at=16", PHOTO),
    "a dictionary of controls": (400, "/translate?controls=strength", PHOTO),
    "a choice that the weights lack": (400, "/translate?keep=everything", PHOTO),
    "a huge size": (400, "/translate?size=1000000000", PHOTO),
    "a size that is no number": (400, "/translate?size=1e400", PHOTO),
    "strength that is not finite": (400, "/translate?strength=nan", PHOTO),
    "strength out of range": (400, "/translate?strength=2", PHOTO),
    "a mask that the weights lack": (400, "/translate?mask=true", PHOTO),
    "a parameter twice": (400, "/translate?to=anime&to=anime", PHOTO),
    "several images as one": (400, "/translate?faces=all", PHOTO),
    "paste without finding": (400, "/translate?paste=true&align=false", PHOTO),
    "a rotation of what is pasted": (400, "/translate?paste=true&rotation=upright", PHOTO),
    "a rotation of all faces": (400, "/translate?faces=all&answer=json&rotation=upright", PHOTO),
    "an angle for weights that know none": (400, "/translate?rotation=condition", PHOTO),
    "bytes that are no UTF-8": (400, "/translate?to=%ff%fe", PHOTO),
    "a file of the machine": (404, "/../../../../etc/passwd", None),
    "the same, encoded": (404, "/%2e%2e/%2e%2e/etc/passwd", None),
    "below weights": (404, "/weights/../../pyproject.toml", None),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_request_gets_a_sentence(service, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, path, body = HOSTILE[what]
    reply = service(path, body)
    assert reply.status == status
    assert set(reply.json) == {"error", "hint"} and len(reply.json["error"]) > 10
    assert "Traceback" not in reply.body.decode() and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "method", "headers"),
    [
        (405, "PUT", {}),
        (405, "DELETE", {}),
        (405, "GET", {}),
        (415, "POST", {"Content_Type": "multipart/form-data; boundary=x"}),
        (415, "POST", {"Content_Type": "application/json"}),
        (415, "POST", {"Content_Encoding": "gzip"}),
    ],
)
def test_other_methods_and_kinds_of_body_are_refused(service, status, method, headers):
    assert service("/translate", PHOTO, method, **headers).status == status


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nhello",
    ],
    ids=["TLS", "negative length", "two lengths"],
)
def test_what_is_not_http_is_refused(service, request_):
    assert service.raw(request_).startswith(b"HTTP/1.1 4")
    assert service("/health").status == 200


def test_a_huge_head_is_cut_off(service):
    answer = service.raw(b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")  # the sender may not get to read it
    assert service("/health").status == 200


def test_after_all_that_it_still_works(service):
    assert service("/translate", PHOTO).status == 200
    assert service("/health").json["waiting"] == 0


# How much it takes at a time


@pytest.fixture
def blocked(studio, monkeypatch):
    """Translations wait until the event is set."""
    event, begun = threading.Event(), threading.Semaphore(0)
    translate = studio.translate

    def wait(*given):
        begun.release()
        assert event.wait(120)
        return translate(*given)

    monkeypatch.setattr(studio, "translate", wait)
    event.begun = begun
    yield event
    event.set()


def until(condition) -> bool:
    """Wait for a condition, a minute at most."""
    end = time.monotonic() + 60
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def test_a_full_queue_is_said_at_once_and_loses_nothing(studio, blocked):
    replies = []
    with running(studio, queue=2) as client:
        threads = [threading.Thread(target=lambda: replies.append(client("/translate", PHOTO))) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert until(lambda: client("/health").json["working"] == 1 and client("/health").json["waiting"] == 2)
        refused = client("/translate", PHOTO)
        assert (
            refused.status == 429 and int(refused.headers["retry-after"]) >= 1 and "3 places" in refused.json["error"]
        )
        blocked.set()
        for thread in threads:
            thread.join()
        assert [reply.status for reply in replies] == [200] * 3
        assert client("/translate", PHOTO).status == 200


def test_an_answer_that_takes_too_long_is_given_up_and_its_seat_is_free_again_afterwards(studio, blocked):
    with running(studio, queue=0, limits=dataclasses.replace(LIMITS, seconds=0.3)) as client:
        reply = client("/translate", PHOTO)
        assert reply.status == 503 and "0.3 s" in reply.json["error"]
        assert client("/translate", PHOTO).status == 429  # the work goes on
        blocked.set()
        assert until(lambda: client("/translate?align=false", PHOTO).status == 200)


@pytest.mark.slow
def test_a_body_that_comes_too_slowly_is_given_up(studio):
    with running(studio, limits=dataclasses.replace(LIMITS, seconds=0.3)) as client:
        head = b"POST /translate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\n"
        assert client.raw(head + PHOTO[:50], b"", b"x" * 50, pause=0.5).startswith(b"HTTP/1.1 408")
        assert client("/health").json["waiting"] == 0


def test_a_head_that_comes_too_slowly_is_cut_off(service, monkeypatch):
    monkeypatch.setattr(server_module, "HEAD", 0.2)
    began = time.monotonic()
    assert service.raw(b"GET /health HT") == b"" and time.monotonic() - began < 60
    assert service.raw() == b""


def test_a_client_that_leaves_is_forgotten(service):
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc")
        assert until(lambda: service("/health").json["waiting"] == 1)
    assert until(lambda: service("/health").json["waiting"] == 0)


def test_a_bug_is_no_secret_but_shows_nothing_of_the_code(service, studio, monkeypatch, caplog):
    def broken(*given):
        raise KeyError("/root/secret")

    monkeypatch.setattr(studio, "translate", broken)
    reply = service("/translate", PHOTO)
    assert reply.status == 500 and b"secret" not in reply.body
    assert until(lambda: "KeyError" in caplog.text)


# The command


@pytest.mark.slow
def test_sigterm_ends_it_once_the_requests_that_it_has_are_answered(spawn, weights):
    process = spawn.start("serve", weights, "--recipe", toy.FILE, "--port", 0, "--detector", "cascade", "--json")
    try:
        event = json.loads(process.stdout.readline())
        port = int(event["url"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=240) as connection:
            head = f"POST /translate?align=false HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PHOTO)}\r\n\r\n"
            connection.sendall(head.encode() + PHOTO[:100])
            assert until(lambda: Client(port)("/health").json["waiting"] == 1)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(PHOTO[100:])
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200 and Image.open(io.BytesIO(answer.read())).size == (20, 16)
        assert process.wait(240) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_port_that_is_taken_is_said(facekit, weights, service):
    done = facekit("serve", weights, "--recipe", toy.FILE, "--port", service.port)
    assert done.code == 2 and str(service.port) in done.err and "--port" in done.err


def test_a_missing_package_is_named_with_the_line_that_installs_it(facekit, monkeypatch):
    monkeypatch.delitem(sys.modules, "facekit.serving.server")
    monkeypatch.delitem(sys.modules, "facekit.serving.application")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = facekit("serve")
    assert done.code == 5 and "pip install 'facekit-anime[serve]'" in done.err


@pytest.mark.slow
def test_where_no_weights_are_named_those_that_can_are_taken():
    studio = Studio(["anime", "cartoon"], "cpu", None, "facekit")
    face = Image.fromarray(astronaut()[20:200, 130:310])
    for to, weights in (("cartoon", "cartoon"), ("anime", "anime"), (None, "anime")):
        assert studio.translate(face, TranslateRequest(to=to, align=False)).weights == weights
    with pytest.raises(CardError, match="anime does not translate to 'photo'"):
        studio.translate(face, TranslateRequest(to="photo", align=False))


def test_weights_need_names_of_their_own_and_a_domain(weights):
    with pytest.raises(CardError, match="two weights"):
        Studio([str(weights), str(weights)], "cpu", str(toy.FILE), "cascade")
    with pytest.raises(CardError, match="translates nothing"):
        Studio(["facefeat"], "cpu", None, "cascade")
