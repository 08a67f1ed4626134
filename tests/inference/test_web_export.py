"""`export --web`: what it writes, the runtime it downloads, and what it refuses."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

import toy
from facekit.errors import InputError, MissingError
from facekit.faces import neural
from facekit.inference import web_export, web_nets, web_runtime
from facekit.nets.detector_file import load_detector
from facekit.sources.url_guard import Hosts
from facekit.storage import images
from support import npm_archive


@pytest.fixture
def runtime(tmp_path):
    return npm_archive(tmp_path / "runtime.tgz")


@pytest.mark.slow
def test_the_folder_holds_all_that_a_web_server_needs(facekit, tmp_path, runtime):
    done = facekit("export", "anime", tmp_path / "page", "--web", "--runtime", runtime)
    assert done.code == 0, done.err
    assert "python -m http.server" in done.out
    page = tmp_path / "page"
    wanted = {*web_export.NETS, "config.json", "card.yaml", "onnxruntime", *(x.name for x in web_export.PAGE.iterdir())}
    assert {path.name for path in page.iterdir()} == wanted
    assert (page / "onnxruntime" / web_runtime.FILES[0]).read_text() == f"// {web_runtime.FILES[0]}"
    html = (page / "index.html").read_text()
    assert "<title>Photo to anime</title>" in html and "$" not in html
    config = json.loads((page / "config.json").read_text())
    assert config["size"] == config["result"] == 256 and np.shape(config["template"]) == (5, 2)
    card = yaml.safe_load((page / "card.yaml").read_text())
    assert card["options"] == {"web": True, "to": "anime", "size": 256, "opset": 17}
    assert set(card["made"]["differences"]) == {"model", "detector", "points", "segnet", "upscaler"}


@pytest.mark.slow
def test_the_same_again_does_nothing_and_another_size_is_another_page(facekit, tmp_path, runtime):
    call = ("export", "anime", tmp_path / "page", "--web", "--runtime", runtime, "--size")
    facekit(*call, 64)
    stamp = (tmp_path / "page" / "model.onnx").stat().st_mtime_ns
    again = facekit(*call, 64)
    assert again.code == 0 and "nothing to do" in again.out + again.err
    assert (tmp_path / "page" / "model.onnx").stat().st_mtime_ns == stamp
    larger = facekit(*call, 512)
    assert larger.code == 2 and "options.size: 64 -> 512" in larger.err
    assert facekit(*call, 512, "--force").code == 0
    config = json.loads((tmp_path / "page" / "config.json").read_text())
    assert (config["size"], config["result"]) == (256, 512)  # the nets draw at 256 px, and their picture is enlarged


@pytest.mark.slow
def test_a_stopped_export_goes_on(facekit, tmp_path, runtime, monkeypatch):
    call = ("export", "anime", tmp_path / "page", "--web", "--runtime", runtime, "--size", 64)
    with monkeypatch.context() as patch:
        patch.setattr(web_nets, "write_parts", lambda path, model: 1 / 0)
        assert facekit(*call).code == 1
    assert not (tmp_path / "page" / "card.yaml").exists() and not (tmp_path / "page" / "segnet.onnx").exists()
    assert facekit(*call).code == 0
    assert (tmp_path / "page" / "card.yaml").exists() and (tmp_path / "page" / "segnet.onnx").exists()


def test_somebody_elses_page_is_not_replaced(facekit, tmp_path, runtime):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("mine")
    call = ("export", "anime", tmp_path / "page", "--web", "--runtime", runtime)
    done = facekit(*call)
    assert done.code == 2 and "was not created by facekit" in done.err
    assert (tmp_path / "page" / "index.html").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    assert facekit("export", "anime", tmp_path / "file", "--web", "--runtime", runtime).code == 3


def test_a_dry_run_downloads_and_writes_nothing(facekit, tmp_path, monkeypatch):
    monkeypatch.setattr(web_runtime, "find", None)
    done = facekit("export", "anime", tmp_path / "page", "--web", "--dry-run")
    assert done.code == 0 and "256 px" in done.out and not (tmp_path / "page").exists()


def test_a_runtime_without_a_page_is_refused(facekit, tmp_path, runtime):
    done = facekit("export", "anime", tmp_path / "a.onnx", "--runtime", runtime)
    assert done.code == 2 and "--web" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["missing", "no archive", "another package", "cut short"])
def test_a_file_that_is_not_the_runtime_is_refused_with_the_way_to_get_it(facekit, tmp_path, runtime, kind):
    path = tmp_path / "wrong.tgz"
    if kind == "no archive":
        path.write_text("no archive")
    if kind == "another package":
        npm_archive(path, ["index.js"])
    if kind == "cut short":
        path.write_bytes(runtime.read_bytes()[:200])
    done = facekit("export", "anime", tmp_path / "page", "--web", "--runtime", path)
    assert done.code == (InputError if kind == "missing" else MissingError).code
    assert "npm pack onnxruntime-web@" in done.err
    assert not (tmp_path / "page" / "card.yaml").exists()


@pytest.fixture
def registry(runtime, tmp_path, monkeypatch):
    """A local server that stands for the npm registry; what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if "lost" not in self.path else 404)
            self.end_headers()
            self.wfile.write(runtime.read_bytes())

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        port = server.server_address[1]
        monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(web_runtime, "URL", f"http://127.0.0.1:{port}/onnxruntime-web-1.tgz")
        monkeypatch.setattr(web_runtime, "SHA256", hashlib.sha256(runtime.read_bytes()).hexdigest())
        monkeypatch.setattr(web_runtime, "hosts", lambda: Hosts(["127.0.0.1"], [port], local=True))
        yield asked
        server.shutdown()


def test_the_runtime_is_downloaded_once(registry):
    path = web_runtime.find()
    assert set(web_runtime.unpack(path)) == {*web_runtime.FILES, "LICENSE.txt"}
    assert web_runtime.find() == path and len(registry) == 1
    path.write_bytes(b"damaged")
    web_runtime.find()
    assert len(registry) == 2


def test_a_download_of_another_file_is_not_kept(registry, monkeypatch, tmp_path):
    monkeypatch.setattr(web_runtime, "SHA256", "0" * 64)
    with pytest.raises(InputError, match="not the file that was meant"):
        web_runtime.find()
    assert not list((tmp_path / "cache").rglob("*.tgz"))


def test_a_download_that_fails_says_how_to_do_without(registry, monkeypatch):
    monkeypatch.setattr(web_runtime, "URL", web_runtime.URL.replace("onnxruntime-web-1", "lost"))
    with pytest.raises(InputError, match="cannot be downloaded") as told:
        web_runtime.find()
    assert "--runtime FILE" in told.value.hint


@pytest.mark.slow
def test_the_detectors_files_find_what_pytorch_finds_at_any_size(tmp_path):
    web_nets.write_detector(tmp_path / "detector.onnx")
    web_nets.write_points(tmp_path / "points.onnx")
    net, points = load_detector(neural.WEIGHTS)
    opened = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    x = images.to_tensor(toy.picture(96, 1))[None, :, :64]
    with torch.inference_mode():
        expected = net(x)
    for made, wanted in zip(opened.run(None, {"image": x.numpy()}), expected, strict=True):
        assert np.allclose(made, wanted.numpy(), atol=1e-3)
    opened = onnxruntime.InferenceSession(tmp_path / "points.onnx")
    squares = torch.stack([images.to_tensor(toy.picture(64, seed)) for seed in range(3)])
    (made,) = opened.run(None, {"image": squares.numpy()})
    with torch.inference_mode():
        assert np.allclose(made, points(squares).numpy(), atol=1e-3)
