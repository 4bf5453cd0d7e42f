"""Where a connection goes: scheme, host and port, how TLS is checked there, and the proxy on the way."""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec

from upstack.core.types import Tls


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy. `authorization` is the *secret* value of its Proxy-Authorization header."""

    host: str
    port: int
    authorization: str | None = None

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Proxy({self.where!r})"

    @property
    def where(self) -> str:
        """`host:port`, for messages."""
        return authority(self.host, self.port)


class Origin(msgspec.Struct, frozen=True):
    """What connections may be shared for: two requests of the same origin may use the same connection."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    tls: Tls = Tls()
    proxy: Proxy | None = None

    @property
    def where(self) -> str:
        """`host:port`, for messages and CONNECT."""
        return authority(self.host, self.port)

    @property
    def host_header(self) -> str:
        """The value of the Host header: the port only where it is not the scheme's own."""
        standard = 443 if self.scheme == "https" else 80
        return authority(self.host, None if self.port == standard else self.port)

    @property
    def forwarding_proxy(self) -> Proxy | None:
        """The proxy that must be given whole URLs; None where requests go to the origin itself or through a tunnel."""
        return self.proxy if self.scheme == "http" else None


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, by what it is called; an IPv6 address comes without brackets."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def authority(host: str, port: int | None) -> str:
    """Host and port as a URL writes them; an IPv6 address gets its brackets."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"
