"""The demo: a page on which people drop a photo and see their face translated."""

from __future__ import annotations

import contextlib
import html
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ..errors import FacekitError
from ..runtime import console
from . import demo_run
from .demo_controls import DemoControls
from .listening import address, is_private, listen, show_until
from .studio import Studio

HEAD = (  # whatever gradio's pages would like to load from elsewhere: they cannot
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'self' 'unsafe-inline' 'unsafe-eval' "
    "blob: data:; connect-src 'self' blob: data:\">"
)
CSS = """
.gradio-container { width: 100% !important; max-width: 76rem !important; margin: 0 auto !important }
#faces .grid-wrap { max-height: none !important; overflow: visible !important }
#note p { font-size: .95rem; opacity: .8 }
footer { display: none !important }
"""
ABOUT = """# facekit
Drop a photo of a face, or take one; the translation appears beside it.
Photos stay on the machine that runs this page."""
UPLOADS = "GRADIO_TEMP_DIR"
FONTS = ["system-ui", "sans-serif"]

LAUNCH: dict[str, Any] = {  # on this machine only, without what gradio offers beside the page
    "share": False, "quiet": True, "prevent_thread_lock": True, "ssr_mode": False, "run_history": False,
    "enable_monitoring": False, "mcp_server": False, "footer_links": [], "max_file_size": "50mb",
    "head": HEAD, "css": CSS,
}  # fmt: skip


def build(studio: Studio, folder: Path) -> gr.Blocks:
    """Return the page of a studio; results for download are written under `folder`."""
    known = DemoControls(studio.describe())
    first = next(iter(known.known))
    with gr.Blocks(title="facekit", analytics_enabled=False, delete_cache=(600, demo_run.KEPT)) as page:
        gr.Markdown(ABOUT)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = gr.Image(
                    label="Photo", type="filepath", image_mode=None, height=320, elem_id="photo",
                    sources=["upload", "webcam", "clipboard"], buttons=["fullscreen"],
                )  # fmt: skip
                _take_as_it_is(photo)
                weights = gr.Dropdown(
                    [*known.known], value=first, label="Weights", visible=len(known.known) > 1, elem_id="weights"
                )
                controls = known.components(first)
                go = gr.Button("Translate", variant="primary", elem_id="go")
            with gr.Column(scale=3, min_width=300):
                result = gr.Image(
                    label="Result",
                    format="png",
                    height=420,
                    interactive=False,
                    elem_id="result",
                    buttons=["fullscreen"],
                )
                note = gr.Markdown(elem_id="note")
                with gr.Row():
                    image_file = gr.DownloadButton("Download the result", interactive=False, elem_id="save-image")
                    card_file = gr.DownloadButton("Download its card", interactive=False, elem_id="save-card")
                faces = gr.Gallery(
                    label="Faces before and after", columns=4, height="auto", object_fit="contain", format="png",
                    elem_id="faces", buttons=["fullscreen"], interactive=False,
                )  # fmt: skip
        gr.Examples([[str(_example(folder))]], [photo], label="Or try this one", elem_id="examples")

        def change(name: str) -> list[Any]:
            return [gr.update(**changed) for changed in known.settings(name)]

        def translate(path: str | None, name: str, *values: Any) -> Any:
            if not path:
                raise gr.Error("There is no photo yet: drop one or take one.", title="", print_exception=False)
            try:
                shown = demo_run.run(studio, Path(path), known.read(name, values), folder)
            except FacekitError as error:
                raise gr.Error(_sentence(error), title="", print_exception=False) from error
            files = [gr.update(value=str(file), interactive=True) for file in (shown.result_file, shown.card_file)]
            return [shown.result, shown.text, *files, gr.update(value=shown.gallery, columns=shown.columns)]

        def follow(path: str | None, name: str, *values: Any) -> Any:
            return translate(path, name, *values) if path else gr.skip()  # it was removed, or the camera is open

        def translate_film(path: str | None, name: str, *values: Any) -> Any:
            if not path:
                raise gr.Error("There is no film yet: choose one.", title="", print_exception=False)
            try:
                made, text = demo_run.run_film(studio, Path(path), known.read(name, values), folder)
            except FacekitError as error:
                raise gr.Error(_sentence(error), title="", print_exception=False) from error
            return [str(made), text]

        weights.change(change, weights, controls, api_visibility="private")
        cut, rotation = controls[-2:]
        cut.change(lambda is_face: gr.update(visible=is_face), cut, rotation, api_visibility="private")
        with gr.Accordion("A film instead of a photo", open=False, elem_id="films"):
            gr.Markdown(
                f"Its first {demo_run.FILM_SECONDS} seconds, with the weights and controls above. "
                "Faces are looked for in every frame."
            )
            with gr.Row():
                film = gr.Video(label="Film", sources=["upload"], height=320, elem_id="film")
                film_result = gr.Video(label="Result", interactive=False, height=320, elem_id="film-result")
            film_go = gr.Button("Translate the film", elem_id="film-go")
            film_note = gr.Markdown(elem_id="film-note")
        inputs, outputs = [photo, weights, *controls], [result, note, image_file, card_file, faces]
        together: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "translate", "api_visibility": "private"}
        go.click(translate, inputs, outputs, **together)
        film_go.click(translate_film, [film, weights, *controls], [film_result, film_note], **together)
        photo.input(follow, inputs, outputs, **together)
    return page


def _sentence(error: FacekitError) -> str:
    """Return an error with its next step, for a page."""
    text = f"{error.message[:1].upper()}{error.message[1:]}."
    hint = (error.hint or "").replace(" (align=false)", "")  # the control has a label
    return html.escape(f"{text} Next: {hint}." if hint else text)


def _take_as_it_is(photo: gr.Image) -> None:
    """Give uploads to facekit as files: it reads more kinds, turns them upright, and says what is wrong with them."""
    usual = photo.preprocess

    def preprocess(payload: Any) -> Any:
        if payload is None or payload.path is None:
            return usual(payload)  # a picture of the webcam, within the message
        return payload.path

    photo.preprocess = preprocess  # type: ignore[method-assign]


def _example(folder: Path) -> Path:
    """Write the photo that scikit-image brings: an astronaut of NASA, in the public domain."""
    from skimage.data import astronaut

    path = folder / "astronaut.jpg"
    Image.fromarray(astronaut()).save(path, quality=92)
    return path


@contextlib.contextmanager
def opened(studio: Studio, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Run the demo while the block lasts; gives its URL. Raises CardError where the port is taken."""
    with listen(host, port) as free:
        url = address(free)
    with tempfile.TemporaryDirectory(prefix="facekit-demo-") as folder, _uploads_in(folder):
        page = build(studio, Path(folder))
        page.queue(max_size=32)
        page.launch(
            **LAUNCH,
            server_name=host,
            server_port=int(url.rpartition(":")[2]),
            allowed_paths=[folder],
            theme=gr.themes.Soft(primary_hue="pink", font=FONTS, font_mono=["monospace"]),
        )
        try:
            yield url
        finally:
            page.close(verbose=False)


@contextlib.contextmanager
def _uploads_in(folder: str) -> Iterator[None]:
    """Have gradio keep photos in a folder that is removed with the demo; by default they stay in /tmp/gradio."""
    before = os.environ.get(UPLOADS)
    os.environ[UPLOADS] = str(Path(folder) / "gradio")
    try:
        yield
    finally:
        os.environ.pop(UPLOADS)
        if before is not None:
            os.environ[UPLOADS] = before


def show(studio: Studio, host: str, port: int, in_browser: bool) -> None:
    """Run the demo until ctrl-C or SIGTERM."""
    from ..runtime.signals import collected

    if not is_private(host):
        console.warn(f"everyone who can reach {host} can use this page: there is no login")
    with collected() as received, opened(studio, host, port) as url:
        show_until(received, "demo", url, list(studio.models), in_browser)
    console.note("demo: stopped")
