"""`export --hub` against a server that answers as the Hugging Face Hub does, and weights by hf://."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torch import nn

import toy
from facekit.inference import hub
from facekit.recipe_api import checkpoint, remote_weights
from facekit.sources.url_guard import Hosts

huggingface = pytest.importorskip("huggingface_hub")


class Hub(ThreadingHTTPServer):
    """Keeps the files of one commit; `refuse` is a status that it answers commits with."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.created, self.tokens, self.refuse = {}, [], set(), None


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, value):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(sent))
            self.answer(200, {"url": "http://127.0.0.1/me/faces"})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for one in json.loads(sent)["files"]]  # fmt: skip
            self.answer(200, {"files": files})
        elif "/commit/" in self.path and self.server.refuse:
            self.answer(self.server.refuse, {"error": "not allowed"})
        elif "/commit/" in self.path:
            for line in sent.decode().splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    self.server.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            url = f"http://127.0.0.1:{self.server.server_address[1]}/me/faces/commit/abc123"
            self.answer(200, {"commitUrl": url, "commitOid": "abc123", "success": True})
        else:
            self.answer(404, {"error": self.path})

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        known = self.path.startswith(("/me/faces/resolve/main/", "/me/faces/resolve/abc123/"))
        if self.path.startswith("/api/models/me/faces"):
            self.answer(200, {"id": "me/faces", "sha": "abc123", "siblings": []})
        elif known and name in self.server.files:
            self.answer(200, self.server.files[name])
        else:
            self.answer(404, {"error": "no such file"})

    def log_message(self, *given):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    with Hub() as opened:
        threading.Thread(target=opened.serve_forever, args=(0.02,), daemon=True).start()
        port = opened.server_address[1]
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
        real = huggingface.HfApi
        monkeypatch.setattr(huggingface, "HfApi", lambda **given: real(endpoint=url, token="hf_secret", **given))
        local = Hosts(["127.0.0.1"], [port], local=True)
        monkeypatch.setattr(remote_weights, "hosts_of", lambda address: local)
        yield opened
        opened.shutdown()


@pytest.fixture
def mine(tmp_path):
    """Weights whose card names places of this machine."""
    torch.manual_seed(0)
    values = {"recipe": str(toy.FILE), "data": {"size": 16, "root": str(tmp_path / "secret" / "faces")}}
    values["domains"] = {"a": "photo", "b": "anime"}
    path = tmp_path / "mine.safetensors"
    checkpoint.save_model(path, nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)
    return path


@pytest.mark.slow
def test_weights_go_up_with_their_card_and_come_down_by_name(facekit, server, tmp_path):
    done = facekit("export", "anime", "--hub", "me/faces", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["weights"] == "hf://me/faces@abc123"
    assert set(server.files) == {"model.safetensors", "README.md"}
    assert server.created[0]["name"] == "faces" and "private" not in str(server.created[0])
    readme = server.files["README.md"].decode()
    assert readme.startswith("---\nlibrary_name: facekit\n") and "--weights hf://me/faces" in readme
    assert "## Licence" in readme and "](../" not in readme  # the shipped card, without links to our files
    toy.picture(32).save(tmp_path / "in.png")
    digest = hashlib.sha256(server.files["model.safetensors"]).hexdigest()
    names = {"theirs.png": f"hf://me/faces@abc123#sha256={digest}", "ours.png": "anime"}
    for out, weights in names.items():
        assert facekit("translate", tmp_path / "in.png", tmp_path / out, "--no-align", "--weights", weights).code == 0
    assert (tmp_path / "theirs.png").read_bytes() == (tmp_path / "ours.png").read_bytes()


@pytest.mark.slow
def test_a_card_that_is_missing_is_asked_for_and_no_path_goes_up(facekit, server, mine, tmp_path):
    done = facekit("export", mine, "--hub", "me/faces", "--private", "--recipe", toy.FILE)
    assert done.code == 0, done.err
    made = server.created[0]
    assert made.get("private") is True or made.get("visibility") == "private"  # as old and as new clients say it
    readme = server.files["README.md"].decode()
    assert "Please do so here" in readme and "root: faces" in readme
    assert all(str(tmp_path).encode() not in data for data in server.files.values())


@pytest.mark.slow
def test_no_token_is_shown_or_kept(facekit, server, tmp_path):
    done = facekit("export", "anime", "--hub", "me/faces", "--debug")
    assert server.tokens == {"Bearer hf_secret"}
    assert "hf_secret" not in done.out + done.err
    assert all(b"hf_secret" not in data for data in server.files.values())


def test_a_dry_run_asks_nobody(facekit, server):
    done = facekit("export", "anime", "--hub", "me/faces", "--dry-run")
    assert done.code == 0 and "library_name: facekit" in done.out and not server.created


@pytest.mark.slow
@pytest.mark.parametrize(("status", "said"), [(403, "may this account write there"), (500, "try again")])
def test_a_hub_that_refuses_is_an_error_with_a_next_step(facekit, server, status, said, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub waits between its tries
    server.refuse = status
    done = facekit("export", "anime", "--hub", "me/faces")
    assert done.code == 1 and "did not take me/faces" in done.err and said in done.err, done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hub", "me"), "USER/NAME"),
        (("--hub", "me/../you"), "USER/NAME"),
        (("a.onnx", "--hub", "me/faces"), "leave out OUT"),
        (("--hub", "me/faces", "--web"), "leave out OUT"),
        ((), "there is no OUT"),
    ],
)
def test_what_makes_no_sense_is_refused(facekit, words, said):
    done = facekit("export", "anime", *words)
    assert done.code == 2 and said in done.err


def test_without_a_login_it_says_how_to_log_in(facekit, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface, "get_token", lambda: None)
    done = facekit("export", "anime", "--hub", "me/faces")
    assert done.code == 5 and "hf auth login" in done.err


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("hf://me/faces", "me/faces/resolve/main/model.safetensors"),
        ("hf://me/faces@v1", "me/faces/resolve/v1/model.safetensors"),
        ("hf://me/faces@v1/small/x.safetensors", "me/faces/resolve/v1/small/x.safetensors"),
    ],
)
def test_an_address_of_the_hub_is_a_file_there(monkeypatch, name, path):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert remote_weights.parse(name).url == f"https://huggingface.co/{path}"


@pytest.mark.parametrize("name", ["hf://me", "hf://me/faces/../x", "hf://", "hf://me/fa ces", "hf://@x/y"])
def test_an_address_that_is_none_is_refused(facekit, name, tmp_path):
    toy.picture(32).save(tmp_path / "in.png")
    done = facekit("translate", tmp_path / "in.png", tmp_path / "out.png", "--no-align", "--weights", name)
    assert done.code == 2 and "hf://USER/NAME" in done.err


def test_absolute_places_are_shortened_and_nothing_else():
    values = {"root": "/home/me/faces", "a": "~/x/y", "b": "faces/a", "n": [1, "/z/q"], "t": 2.5, "none": None}
    assert hub.without_places(values) == {
        "root": "faces", "a": "y", "b": "faces/a", "n": [1, "q"], "t": 2.5, "none": None,
    }  # fmt: skip
