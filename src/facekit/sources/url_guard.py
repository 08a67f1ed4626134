"""Which addresses may be requested: http and https, hosts of the site, on the public internet."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from .errors import AddressRefused
from .post import text

SECRET = re.compile(r"key|token|sig|auth|pass|login|secret|cred|session", re.I)
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Return whether an IP address, also one wrapped in IPv6, is on the public internet."""
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


def redacted(url: str) -> str:
    """Return a URL without user, password, fragment and the values of secret parameters, for logs and messages."""
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "a malformed address"
    query = parts.query
    if any(SECRET.search(name) for name, _ in pairs):
        query = "&".join(f"{quote(n)}={'...' if SECRET.search(n) else quote(v)}" for n, v in pairs)
    return text(urlunsplit((parts.scheme, host, parts.path, query, "")))


class Hosts:
    """The hosts that may be contacted: those named and their sub-domains; with `local` also those of this network."""

    def __init__(self, names: Iterable[str], ports: Iterable[int] = (), local: bool = False):
        self.names = sorted({name.lower().strip(".") for name in names if name})
        self.ports = {80, 443, *ports}
        self.local = local

    def check(self, url: str) -> str:
        """Return the host of a URL; raises AddressRefused if it may not be contacted."""
        try:
            parts = parse_url(url)
        except LocationParseError as error:
            raise AddressRefused(f"malformed address: {redacted(url)}") from error
        host = (parts.host or "").lower().strip("[]").rstrip(".")
        if parts.scheme not in ("http", "https") or not host:
            raise AddressRefused(f"not an http(s) address: {redacted(url)}")
        if parts.auth:
            raise AddressRefused(f"address with a user name: {redacted(url)}", "leave the user name out")
        if not self._is_named(host):
            raise AddressRefused(f"{host} is not a host of this site", f"--allow-host {host} if you trust it")
        if parts.port not in (None, *self.ports):
            raise AddressRefused(f"{host}: port {parts.port} is not one of this site's")
        if not self.local and host.rpartition(".")[2] in ("localhost", "local", "internal"):
            raise AddressRefused(f"{host} is not on the public internet", "--allow-local allows hosts of this network")
        return host

    def _is_named(self, host: str) -> bool:
        return any(host == name or host.endswith("." + name) for name in self.names)


class PublicHosts(Hosts):
    """Any host of the public internet; with `secure` over https only, also after redirects."""

    def __init__(self, ports: Iterable[int] = (), secure: bool = True):
        super().__init__((), ports)
        self.secure = secure

    def check(self, url: str) -> str:
        """Return the host of a URL; raises AddressRefused if it may not be contacted."""
        if self.secure and not url.lower().startswith("https://"):
            raise AddressRefused(f"not an https address: {redacted(url)}")
        return super().check(url)

    def _is_named(self, host: str) -> bool:
        return True
