"""Weights by URL: downloaded once, checked, kept; and what is refused."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest
from PIL import Image

import toy
from facekit.errors import CardError, InputError
from facekit.recipe_api import checkpoint, remote_weights, weights_list
from facekit.sources.url_guard import Hosts, PublicHosts

DATA = checkpoint.shipped()["anime"].read_bytes()
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A web server on this machine that may be contacted; `asked` lists the paths that were requested."""
    answers = {"/anime.safetensors": (200, DATA), "/moved": (302, b"/anime.safetensors"), "/empty": (200, b"")}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            status, body = answers.get(self.path.partition("?")[0], (404, b"no"))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body.decode())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *given):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    local = Hosts(["127.0.0.1"], [server.server_port], local=True)
    monkeypatch.setattr(remote_weights, "hosts_of", lambda address: local)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache").rglob("*") if path.is_file())


def test_a_url_is_downloaded_once_and_translates(site, facekit, tmp_path):
    toy.picture(32).save(tmp_path / "in.png")
    words = ["--no-align", "--weights", f"{site.url}/moved", "--sha256", DIGEST.upper()]
    done = facekit("translate", tmp_path / "in.png", tmp_path / "out.png", *words)
    assert done.code == 0, done.err
    assert Image.open(tmp_path / "out.png").size == (256, 256)
    assert site.asked == ["/moved", "/anime.safetensors"]
    assert checkpoint.find_weights(f"{site.url}/moved#sha256={DIGEST}").read_bytes() == DATA
    assert len(site.asked) == 2 and kept(tmp_path) == ["moved.safetensors", "source.json"]


def test_a_damaged_copy_is_downloaded_again(site):
    name = f"{site.url}/anime.safetensors#sha256={DIGEST}"
    path = checkpoint.find_weights(name)
    path.write_bytes(DATA[:1000])
    assert checkpoint.find_weights(name).read_bytes() == DATA and len(site.asked) == 2


@pytest.mark.parametrize(
    ("path", "digest", "says"),
    [("/anime.safetensors", "0" * 64, "SHA-256 is"), ("/missing", DIGEST, "404"), ("/empty", DIGEST, "empty")],
)
def test_what_is_not_the_file_is_refused_and_not_kept(site, tmp_path, monkeypatch, path, digest, says):
    monkeypatch.setattr("facekit.sources.http_client.FIRST_PAUSE", 0)
    with pytest.raises(InputError, match=says):
        checkpoint.find_weights(f"{site.url}{path}#sha256={digest}")
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("http://example.org/a.safetensors", "not https"),
        ("https://example.org/a.safetensors#sha256=abc", "not a SHA-256"),
        (f"http://127.0.0.1:9/a.safetensors#sha256={DIGEST}", "public internet"),
        (f"http://localhost/a.safetensors#sha256={DIGEST}", "public internet"),
        (f"https://user:word@example.org/a#sha256={DIGEST}", "user name"),
    ],
)
def test_addresses_that_are_not_contacted(name, says, monkeypatch, tmp_path):
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path))
    with pytest.raises((CardError, InputError), match=says):
        checkpoint.find_weights(name)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_without_a_digest_a_redirect_may_not_leave_https():
    hosts = PublicHosts()
    assert hosts.check("https://example.org/a") == "example.org"
    with pytest.raises(InputError, match="not an https"):
        hosts.check("http://example.org/a")
    assert remote_weights.hosts_of(remote_weights.parse(f"https://e.org/a#sha256={DIGEST}")).secure is False


def test_a_digest_is_for_urls(facekit, tmp_path):
    done = facekit("translate", tmp_path, tmp_path / "out", "--sha256", DIGEST)
    assert done.code == 2 and "by URL" in done.err


# the list


def test_the_list_has_shipped_downloaded_and_own_weights(site, facekit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.find_weights(f"{site.url}/anime.safetensors?token=secret#sha256={DIGEST}")
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/model.safetensors").write_bytes(DATA)
    Path("runs/broken").mkdir()
    Path("runs/broken/model.safetensors").write_bytes(b"x")
    rows = {(row["name"], row["where"]): row for row in weights_list.overview()}
    shipped = rows["anime", "shipped"]
    assert shipped["to"] == ["anime"] and shipped["size"] == 256 and shipped["licence"] == "Research only"
    assert shipped["bytes"] == len(DATA) and rows["facefeat", "shipped"]["to"] == []
    assert rows["anime", "downloaded"]["source"] == f"{site.url}/anime.safetensors?token=..."
    assert rows["runs/mine", "run"]["recipe"] == "projected-cut" and "problem" in rows["runs/broken", "run"]
    text = facekit("weights").out
    assert all(name in text for name, _ in rows)


def test_one_shows_its_model_card(facekit, tmp_path):
    assert "## What it does badly" in facekit("weights", "anime").out
    own = tmp_path / "own.safetensors"
    own.write_bytes(DATA)
    text = facekit("weights", own).out
    assert "projected-cut to anime, 256 px" in text and "recipe: projected-cut" in text
    missing = facekit("weights", "anme")
    assert missing.code == 5 and "anime" in missing.err
