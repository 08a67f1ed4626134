"""The HTTP service: `POST /translate`, `GET /health`, `GET /weights`, and a page that explains them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from .. import __version__
from ..errors import CardError, FacekitError, InputError, OutOfMemory
from ..reports import html
from ..runtime import console
from ..storage import images
from . import request as requests
from .openapi import document
from .studio import Answer, Studio
from .work_queue import QueueFull, WorkQueue

TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{}'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DRAIN = 5.0  # s, at most, to take in the rest of a request that is refused, so that its sender reads the answer


@dataclass(frozen=True)
class Limits:
    """What one request may take: bytes, pixels, and seconds to arrive and to be answered."""

    bytes: int = 20_000_000
    pixels: int = 40_000_000
    seconds: float = 60.0


class Refused(Exception):
    """A request that is answered with a status, a sentence and a next step."""

    def __init__(self, status: int, message: str, hint: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.hint, self.headers = status, message, hint, headers or {}

    def response(self) -> JSONResponse:
        """Return the answer."""
        body = {"error": self.message, "hint": self.hint}
        return JSONResponse(body, self.status, headers={**HEADERS, **self.headers})


class Service:
    """Answers requests with a studio, on the threads of a queue."""

    def __init__(self, studio: Studio, work: WorkQueue, limits: Limits):
        self.studio, self.work, self.limits = studio, work, limits
        self.reporter = console.current.get()
        self.began, self.stopping = time.monotonic(), False

    def application(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/", self.page, methods=["GET"]),
            Route("/translate", self.translate, methods=["POST"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/weights", self.weights, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
        ]
        handlers: Any = {HTTPException: _refused_by_router, Exception: _bug}
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, application: Starlette) -> AsyncIterator[None]:
        yield
        self.work.close()

    async def page(self, request: Request) -> Response:
        """The page that explains the service, with a form to try it."""
        nonce = secrets.token_urlsafe(12)  # only this page's own script runs
        text = html.render("service.html", title="facekit", nonce=nonce, document=self._document())
        return HTMLResponse(text, headers={**HEADERS, "Content-Security-Policy": POLICY.format(nonce)})

    async def health(self, request: Request) -> Response:
        """Whether the service takes requests, and how full its queue is."""
        state = {
            "status": "stopping" if self.stopping else "ok",
            "version": __version__,
            "working": self.work.working,
            "waiting": self.work.waiting,
            "seats": self.work.seats,
            "seconds": round(time.monotonic() - self.began, 1),
        }
        return JSONResponse(state, 503 if self.stopping else 200, headers=HEADERS)

    async def weights(self, request: Request) -> Response:
        """The weights that are served."""
        return JSONResponse({"weights": self.studio.describe()}, headers=HEADERS)

    async def openapi(self, request: Request) -> Response:
        """This interface as an OpenAPI document."""
        return JSONResponse(self._document(), headers=HEADERS)

    def _document(self) -> dict[str, Any]:
        studio, limits = self.studio, self.limits
        return document(list(studio.models), studio.controls(), limits.bytes, limits.pixels)

    async def translate(self, request: Request) -> Response:
        """Translate the image in the body."""
        began = time.monotonic()
        try:
            response = await self._answer(request)
        except Refused as refused:
            await _drain(request, self.limits.bytes)
            response = refused.response()
        except ClientDisconnect:
            return Response(status_code=499)
        with contextlib.suppress(OSError):  # nobody reads the log any more: the answer goes out all the same
            self.reporter.note(f"serve: {response.status_code} in {time.monotonic() - began:.2f} s")
        return response

    async def _answer(self, request: Request) -> Response:
        wanted = _checked(request, self.studio.controls())
        try:
            with self.work.seat() as submit:
                data = await self._body(request)
                future = asyncio.wrap_future(submit(partial(self._work, data, wanted)))
                del data
                content, kind, faces = await asyncio.wait_for(future, self.limits.seconds)
        except QueueFull as error:
            message = f"all {self.work.seats} places are taken"
            raise Refused(429, message, "try again in a second", {"Retry-After": "1"}) from error
        except asyncio.TimeoutError as error:
            message = f"no answer within {self.limits.seconds:g} s"
            raise Refused(503, message, "try a smaller image, or later", {"Retry-After": "5"}) from error
        except FacekitError as error:
            status = 400 if isinstance(error, CardError) else 422 if isinstance(error, InputError) else 500
            status = 503 if isinstance(error, OutOfMemory) else status
            raise Refused(status, error.message, error.hint) from error
        return Response(content, media_type=kind, headers={**HEADERS, "X-Faces": str(faces)})

    async def _body(self, request: Request) -> bytes:
        """Read the body within the limits."""
        limit, length = self.limits.bytes, request.headers.get("content-length", "0")
        too_long = Refused(413, f"the image has more than {limit:,} bytes", "make it smaller")
        if not length.isdigit() or int(length[:16]) > limit:
            raise too_long
        body = bytearray()

        async def read() -> None:
            async for piece in request.stream():
                body.extend(piece)
                if len(body) > limit:
                    raise too_long

        try:
            await asyncio.wait_for(read(), self.limits.seconds)
        except asyncio.TimeoutError as error:
            raise Refused(408, f"the image did not arrive within {self.limits.seconds:g} s", "send it again") from error
        if not body:
            raise Refused(400, "the body is empty", "send the image as the body of the request")
        return bytes(body)

    def _work(self, data: bytes, wanted: requests.TranslateRequest) -> tuple[bytes, str, int]:
        """Decode, translate and encode; runs on a thread of the queue."""
        photo = images.decode(data, most=self.limits.pixels)
        answer = self.studio.translate(photo, wanted)
        if wanted.answer == "json":
            return JSONResponse(as_json(answer, wanted)).body, "application/json", len(answer.faces)  # type: ignore
        return images.encode(answer.picture, f".{wanted.format}"), TYPES[wanted.format], len(answer.faces)


def as_json(answer: Answer, wanted: requests.TranslateRequest) -> dict[str, Any]:
    """Return an answer as JSON: the boxes in px of the photo, images as base64."""

    def encoded(image: Any) -> str:
        return base64.b64encode(images.encode(image, f".{wanted.format}")).decode()

    faces: list[dict[str, Any]] = []
    for item in answer.faces:
        found = item.face
        where: dict[str, Any] = {"box": None, "landmarks": None, "score": None}
        if found is not None:
            where["box"] = [round(float(edge), 1) for edge in found.box]
            where["landmarks"] = [[round(float(x), 1), round(float(y), 1)] for x, y in found.landmarks]
            where["score"] = round(float(found.score), 3)
        faces.append({**where, "image": encoded(item.after)})
    return {
        "weights": answer.weights,
        "to": answer.to,
        "photo": {"width": answer.photo_size[0], "height": answer.photo_size[1]},
        "type": TYPES[wanted.format],
        "faces": faces,
        "image": encoded(answer.picture) if wanted.paste else None,
    }


def _checked(request: Request, controls: Collection[str]) -> requests.TranslateRequest:
    """Return the parameters of a request whose head is all right."""
    coding = request.headers.get("content-encoding", "identity").lower()
    if coding != "identity":
        raise Refused(415, "a body that is compressed is not read", "send the image file as it is")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not kind.startswith("image/") and kind not in ("application/octet-stream", CURL):
        hint = "send the image file itself as the body: curl --data-binary @me.jpg"
        raise Refused(415, "the body is not an image" if kind.isascii() else "no such type of content", hint)
    try:
        return requests.parse(request.query_params.multi_items(), controls)
    except CardError as error:
        raise Refused(400, error.message, error.hint) from error


CURL = "application/x-www-form-urlencoded"  # what curl --data-binary says of any file


async def _drain(request: Request, limit: int) -> None:
    """Take in what is still coming of a request that is refused, within limits."""

    async def read() -> None:
        size = 0
        async for piece in request.stream():
            size += len(piece)
            if size > limit:
                return

    with contextlib.suppress(asyncio.TimeoutError, ClientDisconnect, RuntimeError):  # it has been read already
        await asyncio.wait_for(read(), DRAIN)


async def _refused_by_router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = {404: "GET /, /health, /weights or /openapi.json, or POST /translate", 405: "see /openapi.json"}
    message = {404: "there is nothing at this address", 405: "this address does not take this method"}
    status = error.status_code
    headers = dict(error.headers or {})
    return Refused(status, message.get(status, str(error.detail)), allowed.get(status), headers).response()


async def _bug(request: Request, error: Exception) -> Response:
    return Refused(500, "the service failed: this is a bug", "look at the service's own output").response()
