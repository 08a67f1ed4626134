"""`facekit demo` in a real browser: upload, controls, errors, two users, a phone, no other host."""

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut
from torch import nn

from facekit.recipe_api import checkpoint, registry
from facekit.storage import card, images
from support import small, write_camera

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = os.environ.get("FACEKIT_SCREENSHOTS")
PORTRAIT = Image.fromarray(astronaut()[20:220, 110:340])


def test_a_missing_package_is_named_with_the_line_that_installs_it(facekit, monkeypatch):
    monkeypatch.delitem(sys.modules, "facekit.serving.demo", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = facekit("demo")
    assert done.code == 5 and "pip install 'facekit-anime[demo]'" in done.err


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A demo with the shipped weights, and with small ones that know several labels."""
    pytest.importorskip("gradio")
    pytest.importorskip("selenium")
    if not (BROWSER and DRIVER):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    from facekit.serving import demo
    from facekit.serving.studio import Studio

    labels = tmp_path_factory.mktemp("weights") / "labels.safetensors"
    values = small("expression")
    kind, _ = registry.find("expression")
    method = kind(values.params, values.data.size)
    nets = method.nets()
    checkpoint.save_model(labels, nn.ModuleDict({name: nets[name] for name in method.exports}), card.plain(values))
    with demo.opened(Studio(["anime", str(labels)], "cpu", None, "cascade")) as address:
        yield address


@pytest.fixture
def browse(url):
    """Opens the page in a browser of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    opened = []

    def start(width: int = 1280, height: int = 1000, more: Sequence[str] = ()) -> "Page":
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}", *more,
        ):  # fmt: skip
            options.add_argument(flag)
        if width < 500:
            options.add_experimental_option(
                "mobileEmulation", {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1}}
            )
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        driver = webdriver.Chrome(options, Service(DRIVER))
        driver.set_page_load_timeout(240)
        opened.append(driver)
        driver.get(url)
        return Page(driver)

    yield start
    for driver in opened:
        driver.quit()


class Page:
    """The demo as a person uses it."""

    def __init__(self, driver):
        self.driver = driver
        self.until(lambda: self.all("#go"))

    def until(self, condition, seconds: float = 180):
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = None
            with contextlib.suppress(StaleElementReferenceException):  # the page is just drawing it anew
                found = condition()
            if found:
                return found
            time.sleep(0.2)
        self.shot("failed")
        raise AssertionError("the page did not get there")

    def all(self, selector: str) -> list:
        return [one for one in self.driver.find_elements("css selector", selector) if one.is_displayed()]

    def click(self, selector: str) -> None:
        target = self.until(lambda: self.all(selector))[0]
        self.driver.execute_script("arguments[0].click()", target)

    def upload(self, path: Path) -> None:
        self.driver.find_element("css selector", "#photo input[type=file]").send_keys(str(path))

    def result(self) -> str:
        """The address of the result's picture; empty where there is none."""
        found = self.all("#result img")
        return found[0].get_attribute("src") if found else ""

    def newer(self, than: str = "") -> str:
        return self.until(lambda: (self.result() != than and self.result()) or "")

    def size(self) -> tuple[int, int]:
        script = "const i = document.querySelector('#result img'); return [i.naturalWidth, i.naturalHeight]"
        return tuple(self.until(lambda: (found := self.driver.execute_script(script))[0] and found))

    def faces(self) -> int:
        return len(self.all("#faces .grid-container img"))

    def text(self) -> str:
        return self.driver.find_element("css selector", "body").text

    def choose(self, selector: str, value: str) -> None:
        """Choose an entry of a drop-down list."""
        box = self.until(lambda: self.all(f"{selector} input"))[0]
        box.click()
        self.until(lambda: [one for one in self.all("[role=option]") if one.text.strip().endswith(value)])[0].click()

    def shot(self, name: str) -> None:
        if SCREENSHOTS:
            self.driver.save_screenshot(str(Path(SCREENSHOTS) / f"{name}.png"))

    def hosts(self) -> set[str]:
        """Whom the page has asked for anything."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = message["params"]["request"]["url"]
                if address.startswith(("http", "ws")):
                    found.add(address.split("/")[2].partition(":")[0])
        return found


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "me.png"
    PORTRAIT.save(path)
    return path


@pytest.mark.slow
def test_upload_controls_grid_download_and_no_other_host(browse, photo, tmp_path):
    page = browse()
    page.shot("empty")
    page.upload(photo)
    first = page.newer()
    assert page.size() == PORTRAIT.size and page.until(lambda: page.faces() == 2)
    assert "1 face, " in page.text()
    page.shot("pasted")
    page.click("#paste input")
    page.click("#go")
    second = page.newer(first)
    assert page.size() == (256, 256)
    page.choose("#weights", "labels")
    page.until(lambda: page.all("#to"))
    page.choose("#to", "angry")
    page.click("#go")
    page.newer(second)
    assert page.until(lambda: page.faces() >= 3)
    page.shot("grid")
    link = page.until(lambda: page.all("#save-card, #save-card a"))
    assert link
    assert page.hosts() == {"127.0.0.1"}


@pytest.mark.slow
def test_a_tilted_face_is_turned_where_the_picture_is_a_face(browse, tmp_path):
    path = tmp_path / "tilted.png"
    PORTRAIT.rotate(-20, Image.Resampling.BICUBIC).save(path)
    page = browse()
    page.upload(path)
    first = page.newer()
    assert not page.all("#rotation")
    page.click("#cut input")
    page.until(lambda: page.all("#rotation"))
    page.choose("#rotation", "then back")
    page.click("#go")
    page.newer(first)
    assert page.size() != PORTRAIT.size and page.until(lambda: page.faces() == 2)  # a face alone, at the nets' size
    page.shot("rotation")
    page.click("#cut input")
    page.until(lambda: not page.all("#rotation"))


@pytest.mark.slow
def test_a_photo_is_taken_with_the_camera(browse, tmp_path):
    photo = Image.fromarray(astronaut()).crop((0, 0, 480, 360))
    page = browse(more=write_camera(tmp_path / "camera.y4m", photo))
    page.click("#photo button[aria-label='Capture from camera']")
    page.until(lambda: [one for one in page.all("#photo button") if "Access Webcam" in one.text])[0].click()
    page.click("#photo button[aria-label='capture photo']")
    page.newer()
    assert page.size() == photo.size and page.until(lambda: page.faces() == 2)
    page.shot("camera")


@pytest.mark.slow
def test_a_film_is_translated_and_plays(browse, tmp_path):
    clips = pytest.importorskip("clips")
    clips.write(tmp_path / "clip.mp4")
    page = browse()
    page.click("#films button")
    page.click("#film-go")
    page.until(lambda: "There is no film yet" in page.text())
    page.driver.find_element("css selector", "#film input[type=file]").send_keys(str(tmp_path / "clip.mp4"))
    page.until(lambda: page.all("#film video"))
    page.click("#film-go")
    video = page.until(lambda: page.all("#film-result video"))[0]
    size = "return [arguments[0].videoWidth, arguments[0].videoHeight]"
    page.until(lambda: page.driver.execute_script(size, video) == [160, 140])
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", video)
    page.shot("film")
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes()[:500])
    other = browse()
    other.click("#films button")
    other.driver.find_element("css selector", "#film input[type=file]").send_keys(str(tmp_path / "broken.mp4"))
    other.until(lambda: other.all("#film video"))
    other.click("#film-go")
    other.until(lambda: "Next:" in other.text())
    assert str(tmp_path) not in other.text() and "/tmp" not in other.text()


@pytest.mark.slow
def test_errors_are_sentences(browse, tmp_path):
    page = browse()
    page.click("#go")
    page.until(lambda: "There is no photo yet" in page.text())
    blank, broken = tmp_path / "blank.png", tmp_path / "broken.png"
    Image.new("RGB", (200, 200), "teal").save(blank)
    broken.write_bytes(images.encode(PORTRAIT)[:4000])
    page.upload(blank)
    page.until(lambda: "No face found" in page.text() and "Next:" in page.text())
    page.shot("error")
    assert "Traceback" not in page.text()
    other = browse()
    other.upload(broken)
    other.until(lambda: "cannot be decoded" in other.text())
    assert str(tmp_path) not in other.text() and "/tmp" not in other.text()


@pytest.mark.slow
def test_two_people_at_once_get_their_own(browse, tmp_path):
    sizes = {}
    whole = astronaut()
    for name, cut in (("one", whole[20:220, 110:340]), ("two", whole[0:300, 80:380])):
        Image.fromarray(np.ascontiguousarray(cut)).save(tmp_path / f"{name}.png")
    pages = {name: browse() for name in ("one", "two")}

    def use(name: str) -> None:
        pages[name].upload(tmp_path / f"{name}.png")
        pages[name].newer()
        sizes[name] = pages[name].size()

    threads = [threading.Thread(target=use, args=(name,)) for name in pages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == {"one": (230, 200), "two": (300, 300)}


@pytest.mark.slow
def test_a_phone_shows_it_without_scrolling_sideways(browse, photo):
    page = browse(390, 844)
    page.upload(photo)
    page.newer()
    page.shot("phone")
    page.click("#cut input")
    box = page.until(lambda: page.all("#rotation"))[0]
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
    page.shot("phone-rotation")
    width = page.driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= 390
