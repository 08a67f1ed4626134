"""Where services and pages of this machine listen, and how long a page is shown."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import webbrowser
from collections.abc import Sequence

from ..errors import CardError
from ..runtime import console


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one. Raises CardError where that is not possible."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CardError(f"cannot listen on {host} port {port}: {reason}", "choose another --port or --host") from error


def address(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_private(host: str) -> bool:
    """Return whether only programs of this machine reach a host."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def show_until(received: Sequence[int], title: str, url: str, names: Sequence[str], in_browser: bool) -> None:
    """Say where a page is, open it where that is wanted, and wait until a signal is received."""
    console.result(f"{title}: {url} ({', '.join(names)}); ctrl-C ends it", url=url)
    if in_browser:
        webbrowser.open(url)
    wait = threading.Event()
    while not received:
        wait.wait(0.2)
