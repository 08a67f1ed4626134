"""The page of `export --web` in a real browser: its pictures are those of `translate`, and nothing leaves the machine.

It needs Chromium, selenium and the npm package: FACEKIT_ONNXRUNTIME_WEB names the file that `npm pack` writes.
"""

import base64
import functools
import http.server
import io
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

import facekit as package
from facekit.inference import web_runtime
from facekit.storage.cache import cache_folder
from support import write_camera

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = os.environ.get("FACEKIT_SCREENSHOTS")
PHOTO = Image.fromarray(astronaut())
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--window-size=1100,1200",
)


def runtime_archive() -> Path | None:
    """The npm package, if it is here."""
    given = os.environ.get("FACEKIT_ONNXRUNTIME_WEB")
    path = Path(given) if given else cache_folder() / "onnxruntime-web" / web_runtime.URL.rpartition("/")[2]
    return path if path.is_file() else None


ARCHIVE = runtime_archive()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page of the shipped weights on a local server: its address, and the paths that were asked for."""
    pytest.importorskip("selenium")
    if not (BROWSER and DRIVER):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    if ARCHIVE is None:
        pytest.skip(
            f"needs onnxruntime-web: FACEKIT_ONNXRUNTIME_WEB=FILE of npm pack onnxruntime-web@{web_runtime.VERSION}"
        )
    folder = tmp_path_factory.mktemp("page") / "anime"
    package.export("anime", folder, web=True, runtime=ARCHIVE)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.requestline)

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", asked
        server.shutdown()


@pytest.fixture(scope="module")
def browser(site, tmp_path_factory):
    """The page, loaded, in a browser with a pretended camera."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    camera = write_camera(tmp_path_factory.mktemp("camera") / "camera.y4m", PHOTO.crop((0, 0, 480, 360)))
    for flag in (*FLAGS, *camera):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    driver.set_script_timeout(240)
    driver.get(f"{site[0]}?provider=wasm")
    wait(lambda: driver.execute_script("return document.body.dataset.ready") == "wasm", driver)
    yield driver
    driver.quit()


def wait(met, driver, seconds=120):
    """Wait until something is true; says what the page says where it never is."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, f"{status(driver)}: {driver.get_log('browser')}"
        time.sleep(0.1)


def status(driver):
    return driver.execute_script("return document.getElementById('status').textContent")


def translated(driver, image, **options):
    """What the page makes of an image: pixels, number of faces, seconds."""
    out = io.BytesIO()
    image.save(out, "PNG")
    script = """
        const [text, options, done] = arguments;
        (async () => {
            const { translate } = await import(new URL('page.js', location));
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const bitmap = await createImageBitmap(new Blob([bytes]));
            const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
            const context = canvas.getContext('2d');
            context.drawImage(bitmap, 0, 0);
            const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
            const rgb = new Uint8Array(data.length / 4 * 3);
            for (let i = 0; i < data.length / 4; i++) for (let k = 0; k < 3; k++) rgb[3 * i + k] = data[4 * i + k];
            const photo = { width: bitmap.width, height: bitmap.height, channels: 3, data: rgb };
            const { image, faces, seconds, error } = await translate(photo, options);
            if (error) return done({ error });
            let text2 = '';
            for (const value of image.data) text2 += String.fromCharCode(value);
            done({ width: image.width, height: image.height, data: btoa(text2), faces, seconds });
        })().catch((error) => done({ error: String(error) }));
    """
    found = driver.execute_async_script(script, base64.b64encode(out.getvalue()).decode(), options)
    assert "error" not in found, found
    pixels = np.frombuffer(base64.b64decode(found["data"]), np.uint8)
    return pixels.reshape(found["height"], found["width"], 3), found["faces"], found["seconds"]


PHOTOS = {
    "as it is": PHOTO,
    "large": PHOTO.resize((1300, 1300), Image.Resampling.LANCZOS),
    "small": PHOTO.crop((130, 0, 330, 190)),
    "turned": PHOTO.rotate(70, expand=True),
    "at the edge": PHOTO.crop((180, 30, 512, 400)),
    "dark and upside down": PHOTO.point(lambda value: value // 5).rotate(180),  # found in the turned photo only
}


@pytest.mark.parametrize("kind", PHOTOS)
@pytest.mark.parametrize("paste", [False, True])
def test_the_browser_draws_what_python_draws(browser, kind, paste):
    photo = PHOTOS[kind].convert("RGB")
    made, faces, seconds = translated(browser, photo, paste=paste)
    expected = np.asarray(package.load("anime", device="cpu", detector="facekit")(photo, paste=paste))
    apart = np.abs(made.astype(int) - expected.astype(int))
    print(f"{kind}, paste {paste}: {apart.max()} at most, {apart.mean():.4f} on average, {seconds:.2f} s")
    assert faces == 1 and made.shape == expected.shape
    assert apart.max() <= 2


def test_a_picture_without_a_face_is_said_to_have_none(browser):
    made, faces, _ = translated(browser, Image.new("RGB", (200, 150), "teal"), paste=True)
    assert faces == 0 and (made == (0, 128, 128)).all()


def test_a_picture_without_a_face_is_answered_in_a_sentence(browser, tmp_path):
    Image.new("RGB", (200, 150), "teal").save(tmp_path / "teal.png")
    browser.find_element("id", "file").send_keys(str(tmp_path / "teal.png"))
    wait(lambda: "No face was found" in status(browser), browser)


def test_several_faces_are_translated_when_asked(browser):
    two = Image.new("RGB", (700, 350), "grey")
    for left in (0, 350):
        two.paste(PHOTO.crop((100, 0, 350, 250)).resize((350, 350)), (left, 0))
    made, faces, _ = translated(browser, two, paste=True, every=True)
    assert faces == 2
    apart = np.abs(made.astype(int) - np.asarray(two, int)).max(2)
    assert apart[:, :350].max() > 40 and apart[:, 350:].max() > 40


def test_a_file_is_shown_beside_its_translation_and_can_be_saved(browser, tmp_path):
    PHOTO.save(tmp_path / "photo.jpg")
    browser.find_element("id", "file").send_keys(str(tmp_path / "photo.jpg"))
    wait(lambda: status(browser).startswith("One face in"), browser)
    wait(lambda: browser.find_element("id", "save").is_displayed(), browser)
    assert browser.execute_script("return document.getElementById('after').width") == 512
    if SCREENSHOTS:
        browser.save_screenshot(f"{SCREENSHOTS}/web.png")


def test_a_file_that_is_no_picture_is_answered_in_a_sentence(browser, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    browser.find_element("id", "file").send_keys(str(tmp_path / "notes.jpg"))
    wait(lambda: "not an image" in status(browser), browser)


def test_the_camera_takes_a_picture(browser):
    browser.find_element("id", "camera").click()
    wait(lambda: browser.execute_script("return document.getElementById('video').videoWidth") > 0, browser)
    browser.find_element("id", "shoot").click()
    wait(lambda: status(browser).startswith("One face in"), browser)
    assert browser.execute_script("return document.getElementById('after').width") == 480


def test_nothing_is_asked_of_any_other_host_and_nothing_is_sent(browser, site):
    entries = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert entries and all(name.startswith((site[0], "blob:", "data:")) for name in entries)
    assert all(line.startswith("GET ") for line in site[1])
    wrong = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not wrong, json.dumps(wrong)
