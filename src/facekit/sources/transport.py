"""Connections of `requests` that go only to public addresses, and that a deadline can cut.

The address that is checked is the one that is connected to: a name is resolved once, so a name server that answers
differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import socket
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import connection

from . import deadline
from .errors import AddressRefused
from .url_guard import is_public

LOCAL_HINT = "--allow-local allows hosts of this machine and network"


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host, in the order to try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def adapter(local: bool, size: int = 16) -> HTTPAdapter:
    """Return a transport of `requests` that connects to public addresses only, unless `local`."""

    class Guarded:
        """Connects to an address that was checked, and puts every exchange under the thread's deadline."""

        wire: socket.socket | None = None  # a second handle of the connection, which TLS does not take over

        def _new_conn(self: Any) -> socket.socket:
            try:
                found = deadline.connected(self._resolve_and_connect)
            except (socket.gaierror, UnicodeError) as error:
                raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
            except TimeoutError as error:
                raise ConnectTimeoutError(self, "connecting took too long") from error
            except OSError as error:
                raise NewConnectionError(self, str(error)) from error
            self.wire = found.dup()
            deadline.watch(self.wire)
            return found

        def _resolve_and_connect(self: Any) -> socket.socket:
            addresses = resolve(self._dns_host, self.port)
            if not local:
                checked = [address for address in addresses if is_public(address)]
                if addresses and not checked:
                    raise AddressRefused(
                        f"{self.host} is at {addresses[0]}, which is not on the public internet", LOCAL_HINT
                    )
                addresses = checked
            return self._first_of(addresses)

        def _first_of(self: Any, addresses: list[str]) -> socket.socket:
            last: OSError = OSError("no address")
            for address in addresses:
                try:
                    return connection.create_connection(
                        (address, self.port),
                        self.timeout,
                        source_address=self.source_address,
                        socket_options=self.socket_options,
                    )
                except OSError as error:
                    last = error
            raise last

        def request(self: Any, *arguments: Any, **more: Any) -> None:
            if self.wire is not None:  # a connection that is used again
                deadline.watch(self.wire)
            super().request(*arguments, **more)  # type: ignore[misc]

        def close(self: Any) -> None:
            super().close()  # type: ignore[misc]
            if self.wire is not None:
                self.wire.close()
                self.wire = None

    class Plain(Guarded, HTTPConnection):
        """Over http."""

    class Secure(Guarded, HTTPSConnection):
        """Over https; the certificate is checked against the name."""

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    class Adapter(HTTPAdapter):
        """`requests` over guarded connections."""

        def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
            super().init_poolmanager(*arguments, **more)
            self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    return Adapter(pool_connections=size, pool_maxsize=size)
