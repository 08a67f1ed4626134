"""The service on a port of this machine, until SIGTERM or ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..runtime import console
from ..runtime.cores import usable_cores
from ..runtime.device import share_threads
from .application import Limits, Service
from .listening import address, is_private, listen
from .studio import Studio
from .work_queue import WorkQueue

SIDE_BY_SIDE = 4  # images at most on the processor, for their memory
HEAD = 10.0  # s for the head of a request to arrive
CONNECTIONS = 256  # open at once, beside those that have a seat


@dataclass(frozen=True)
class ServeOptions:
    """Where the service listens and what it takes; see the flags of `facekit serve`."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int | None = None
    queue: int = 32
    limits: Limits = field(default_factory=Limits)


class GuardedProtocol(H11Protocol):
    """HTTP that closes a connection whose request head does not arrive in time; uvicorn itself waits for ever."""

    late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the time of the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Start the time with the first piece of a head, stop it with the last."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self.late is None:
            self.late = self.loop.call_later(HEAD, self.transport.abort)

    def _stop(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None


class Server(uvicorn.Server):
    """A uvicorn server that ends in order at the first signal, and at once at the second."""

    def __init__(self, service: Service, connections: int):
        config = uvicorn.Config(
            service.application(),
            http=GuardedProtocol,
            ws="none",
            lifespan="on",
            loop="asyncio",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=connections,
            timeout_graceful_shutdown=round(service.limits.seconds) + 5,
        )
        super().__init__(config)
        self.service = service

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while the server runs; they are not raised again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take no more connections and finish what has been received; the second time, leave it."""
        self.force_exit = self.should_exit
        self.stop()

    def stop(self) -> None:
        """End in order; may be called from any thread."""
        self.service.stopping = True
        self.should_exit = True


@contextlib.contextmanager
def opened(studio: Studio, options: ServeOptions) -> Iterator[tuple[Server, socket.socket]]:
    """Give a server that is ready to run, and the socket that it listens on."""
    workers = options.workers or (min(usable_cores(), SIDE_BY_SIDE) if studio.device == "cpu" else 1)
    listening = listen(options.host, options.port)
    with listening, share_threads(workers):
        work = WorkQueue(workers, options.queue)
        try:
            server = Server(Service(studio, work, options.limits), CONNECTIONS + work.seats)
            yield server, listening
        finally:
            work.close()


def serve(studio: Studio, options: ServeOptions) -> None:
    """Answer requests until a signal ends the service; requests that were received are answered first."""
    if not is_private(options.host):
        console.warn(f"everyone who can reach {options.host} can use this service: there is no login")
    with opened(studio, options) as (server, listening):
        url = address(listening)
        console.result(f"serve: {url} ({', '.join(studio.models)}); ctrl-C ends it", url=url)
        server.run(sockets=[listening])
    console.note("serve: stopped")
