"""`facekit watch`: what it says of runs that train, end, stop and start again, and the page in a real browser."""

import http.client
import json
import os
import platform
import shutil
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

import toy
from facekit.errors import CardError, InputError
from facekit.serving import watch
from facekit.serving.watched_run import GrowingLines, WatchedRun
from facekit.storage import jsonl

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = os.environ.get("FACEKIT_SCREENSHOTS")


def rows(first, last):
    return [{"step": step, "losses": {"match": 1 / step}} for step in range(first, last)]


@pytest.fixture
def run(tmp_path):
    """The folder of a run that has logged five steps and saved once."""
    folder = tmp_path / "mine"
    (folder / "previews").mkdir(parents=True)
    (folder / "card.unfinished.yaml").write_text("facekit: 1\ncommand: train\nrecipe: student\nrun: {steps: 20}\n")
    jsonl.write(folder / "log.jsonl", rows(1, 6))
    Image.new("RGB", (8, 8), "red").save(folder / "previews/00000005.png")
    return folder


def hold(folder, process, host=None):
    """Sign the lock of a run as a process of a host would."""
    who = {"command": "train", "host": host or platform.node(), "process": process, "since": "now"}
    (folder / ".facekit.lock").write_text(json.dumps(who))


def test_a_run_tells_its_step_its_losses_and_its_previews(run):
    found = WatchedRun(run).read((-1, 0))
    assert (found["name"], found["recipe"], found["step"], found["steps"]) == ("mine", "student", 5, 20)
    assert [row["step"] for row in found["losses"]] == [1, 2, 3, 4, 5] and found["previews"] == [5]
    assert found["state"] == "stopped" and found["memory"] is None and "student" in found["card"]


def test_only_new_lines_are_told_and_half_a_line_waits(run):
    watched = WatchedRun(run)
    first = watched.read((-1, 0))
    with (run / "log.jsonl").open("a") as file:
        file.write(jsonl.line(rows(6, 7)[0]) + '\n{"step": 7, "lo')
    more = watched.read((first["generation"], 5))
    assert more["start"] == 5 and [row["step"] for row in more["losses"]] == [6]
    with (run / "log.jsonl").open("a") as file:
        file.write('sses": {"match": 0.1}}\n')
    assert [row["step"] for row in watched.read((more["generation"], 6))["losses"]] == [7]


def test_a_log_that_was_written_anew_is_told_from_its_start(run):
    watched = WatchedRun(run)
    first = watched.read((-1, 0))
    jsonl.write(run / "log.jsonl", rows(1, 4))  # as a resume from step 3 does
    found = watched.read((first["generation"], 5))
    assert found["generation"] != first["generation"]
    assert found["start"] == 0 and [row["step"] for row in found["losses"]] == [1, 2, 3]


def test_a_log_is_read_once(run, monkeypatch):
    lines = GrowingLines(run / "log.jsonl")
    lines.update()
    seen = []
    monkeypatch.setattr(json, "loads", lambda text: seen.append(text))
    lines.update()
    assert len(lines.rows) == 5 and not seen


def test_a_run_is_running_while_its_process_lives(run):
    hold(run, os.getpid())
    found = WatchedRun(run).read((-1, 0))
    assert found["state"] == "running"
    if Path("/proc/self/statm").exists():
        assert 0.01 < found["memory"] < 100
        hold(run, 2**22 + 1)  # beyond the largest process id
        assert WatchedRun(run).read((-1, 0))["state"] == "stopped"
    hold(run, 1, "another-machine")
    assert WatchedRun(run).read((-1, 0))["state"] == "running"
    (run / "card.unfinished.yaml").rename(run / "card.yaml")
    assert WatchedRun(run).read((-1, 0))["state"] == "finished"


@pytest.mark.parametrize("broken", ["log.jsonl", "progress.json", ".facekit.lock", "card.unfinished.yaml"])
def test_what_is_broken_is_left_out(run, broken):
    watched = WatchedRun(run)
    (run / broken).write_bytes(b"\xff{[")
    found = watched.read((-1, 0))
    assert found["name"] == "mine" and (found["losses"] or broken == "log.jsonl")


def test_training_writes_what_the_page_shows(facekit, tmp_path):
    toy.domains(tmp_path / "data", 4)
    arguments = ("--data", tmp_path / "data", "--out", tmp_path / "run", "--steps", 4, "--device", "cpu")
    assert facekit("train", toy.FILE, *arguments).code == 0
    found = WatchedRun(tmp_path / "run").read((-1, 0))
    assert (found["state"], found["step"], found["steps"]) == ("finished", 4, 4)
    assert found["seconds_per_step"] > 0 and found["losses"] and found["previews"]
    progress = json.loads((tmp_path / "run" / "progress.json").read_text())
    assert progress["running"] is False and progress["step"] == 4


def test_a_folder_that_is_no_run_is_refused(facekit, tmp_path):
    done = facekit("watch", tmp_path)
    assert done.code == InputError.code and "runs/*" in done.err
    assert facekit("watch", tmp_path / "lost").code == InputError.code


def test_what_is_no_run_among_runs_is_left_out_with_a_warning(run, tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    with watch.open_server([tmp_path / "notes", run]) as opened:
        assert opened.server_address[1] > 0
    assert "notes is no run folder" in capsys.readouterr().err
    with pytest.raises(InputError, match="is no run folder"):
        watch.open_server([tmp_path / "notes", tmp_path])


@pytest.fixture
def server(run):
    with watch.open_server([run]) as opened:
        threading.Thread(target=opened.serve_forever, args=(0.02,), daemon=True).start()
        yield opened
        opened.shutdown()


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_page_its_data_and_its_pictures_are_served(server, run):
    assert ask(server, "/")[0] == 200 and b"<script>" in ask(server, "/")[1]
    status, body = ask(server, "/runs.json?have=1.3")
    assert status == 200 and [row["step"] for row in json.loads(body)[0]["losses"]] in ([4, 5], [1, 2, 3, 4, 5])
    assert ask(server, "/preview/0/5.png") == (200, (run / "previews/00000005.png").read_bytes())
    assert ask(server, "/", "HEAD") == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/preview/1/5.png",
        "/preview/0/6.png",
        "/preview/0/../../card.yaml",
        "/preview/0/%2e%2e/5.png",
        "/card.unfinished.yaml",
        "/etc/passwd",
        "//etc/passwd",
        "/runs.json/../log.jsonl",
    ],
)
def test_no_other_file_is_given(server, path):
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("have", ["", "x", "1.2,3.4,5.6", "-1.0", "9" * 50, "1.99999999", "%00"])
def test_whatever_a_browser_says_that_it_has_it_gets_an_answer(server, have):
    status, body = ask(server, f"/runs.json?have={have}")
    assert status == 200 and json.loads(body)[0]["name"] == "mine"


def test_other_names_of_this_machine_and_other_methods_are_refused(server):
    assert ask(server, "/runs.json", Host="evil.example")[0] == 403
    assert ask(server, "/", "POST")[0] == 501


def test_a_port_in_use_is_refused(server, run):
    with pytest.raises(CardError, match="cannot listen"):
        watch.open_server([run], "127.0.0.1", server.server_address[1])


@pytest.fixture
def browser(server):
    pytest.importorskip("selenium")
    if not (BROWSER and DRIVER):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,1400"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    driver.get(f"http://127.0.0.1:{server.server_address[1]}/")
    yield driver
    driver.quit()


def until(met):
    end = time.monotonic() + 30
    while not met():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_browser_shows_a_run_and_follows_it(browser, run):
    def text(selector):
        return browser.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    until(lambda: "5 of 20" in text("#runs"))
    assert browser.execute_script("return document.querySelectorAll('#losses svg polyline').length") == 1
    until(lambda: browser.execute_script("return document.querySelector('#previews img').naturalWidth") == 8)
    jsonl.append(run / "log.jsonl", rows(6, 12))
    Image.new("RGB", (12, 12), "blue").save(run / "previews/00000010.png")
    until(lambda: "11 of 20" in text("#runs"))
    until(lambda: "step 10" in text("#previews"))
    slide = "const s = document.querySelector('#previews input'); s.value = 0; s.oninput();"
    browser.execute_script(slide)
    assert "step 5" in text("#previews")
    jsonl.write(
        run / "scores.jsonl", [{"step": 5, "scores": {"kid-768": 0.1}}, {"step": 10, "scores": {"kid-768": 0.05}}]
    )
    until(lambda: "kid-768" in text("#scores"))
    assert "step 5" in text("#previews")  # who looks at an old preview is left there
    if SCREENSHOTS:
        browser.save_screenshot(f"{SCREENSHOTS}/watch.png")
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
