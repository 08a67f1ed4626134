"""Which addresses may be asked: http and https, hosts of the site, and only such as lie in the public internet.

The address that is checked is the one that is connected to: a name is resolved once, so a server of names that answers
differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NameResolutionError, NewConnectionError
from urllib3.util import connection, parse_url

from .errors import Refused
from .post import text

SECRET = re.compile(r"key|token|sig|auth|pass|login|secret|cred|session", re.I)
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address, also one wrapped in IPv6, lies in the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner: Any = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def shown(url: str) -> str:
    """Return a URL fit to be written down: without user, password, fragment and the values of secret parameters."""
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "an address that cannot be read"
    query = parts.query
    if any(SECRET.search(name) for name, _ in pairs):
        query = "&".join(f"{quote(n)}={'...' if SECRET.search(n) else quote(v)}" for n, v in pairs)
    return text(urlunsplit((parts.scheme, host, parts.path, query, "")))


class Hosts:
    """The hosts that may be asked: those named and what lies below them; with `local` also those of this network."""

    def __init__(self, names: Iterable[str], ports: Iterable[int] = (), local: bool = False):
        self.names = sorted({name.lower().strip(".") for name in names if name})
        self.ports = {80, 443, *ports}
        self.local = local

    def check(self, url: str) -> str:
        """Return the host of a URL; raises Refused where it may not be asked."""
        try:
            parts = parse_url(url)
        except LocationParseError as error:
            raise Refused(f"not an address: {shown(url)}") from error
        host = (parts.host or "").lower().strip("[]").rstrip(".")
        if parts.scheme not in ("http", "https") or not host:
            raise Refused(f"not an http(s) address: {shown(url)}")
        if parts.auth:
            raise Refused(f"an address with a user name in it: {shown(url)}", "leave the user name out")
        if not self._is_named(host):
            raise Refused(f"{host} is no host of this site", f"--allow-host {host} if you trust it")
        if parts.port not in (None, *self.ports):
            raise Refused(f"{host}: port {parts.port} is none of this site's")
        if not self.local and host.rpartition(".")[2] in ("localhost", "local", "internal"):
            raise Refused(f"{host} is not in the public internet", "--allow-local lets hosts of this network be asked")
        return host

    def _is_named(self, host: str) -> bool:
        return any(host == name or host.endswith("." + name) for name in self.names)


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host, in the order to try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def adapter(local: bool, size: int = 16) -> HTTPAdapter:
    """Return a transport of `requests` that connects to public addresses only, unless `local`."""

    class Guarded:
        """Connects to an address that has been checked, not to a name."""

        def _new_conn(self: Any) -> socket.socket:
            try:
                addresses = resolve(self._dns_host, self.port)
                if not local:
                    checked = [address for address in addresses if is_public(address)]
                    if addresses and not checked:
                        raise Refused(
                            f"{self.host} is at {addresses[0]}, which is not in the public internet",
                            "--allow-local lets hosts of this network be asked",
                        )
                    addresses = checked
                return self._first_of(addresses)
            except (socket.gaierror, UnicodeError) as error:
                raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
            except TimeoutError as error:
                raise ConnectTimeoutError(self, "connecting took too long") from error
            except OSError as error:
                raise NewConnectionError(self, str(error)) from error

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
