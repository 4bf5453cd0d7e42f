"""Which proxy a request takes: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, read as urllib.request reads them.

Two things are added to urllib's rules: NO_PROXY may hold address blocks (`10.0.0.0/8`), and ALL_PROXY is understood.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from upstack.core.errors import Failure, SupplyError
from upstack.foundation.upstream.origin import Proxy, authority, is_loopback

_Block = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """The proxies an environment names, as they were when this was made."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read the variables; lower-case names win over upper-case ones, and an empty value means none."""
        self._urls = {kind: _variable(environ, f"{kind}_proxy") for kind in ("http", "https", "all")}
        if "REQUEST_METHOD" in environ:
            # In a CGI process HTTP_PROXY is the client's `Proxy:` header, so only the lower-case name counts.
            self._urls["http"] = environ.get("http_proxy", "")
        self._bypass = [entry.strip() for entry in _variable(environ, "no_proxy").split(",") if entry.strip()]
        self._blocks = [block for entry in self._bypass if (block := _block(entry)) is not None]

    def find(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Give the proxy for an origin, or None to go there directly.

        Raises `SupplyError` where the variable names a kind of proxy that is not supported.
        """
        url = self._urls[scheme] or self._urls["all"]
        if not url or self._is_bypassed(host, port):
            return None
        return _parse(url)

    def _is_bypassed(self, host: str, port: int) -> bool:
        if "*" in self._bypass:
            return True
        # urllib sends even loopback addresses to the proxy unless NO_PROXY names them. We never do: on the proxy's
        # machine "localhost" is another host, so a local model server would be missed, or a stranger asked.
        if is_loopback(host):
            return True
        address = _address(host)
        if address is not None and any(address in block for block in self._blocks):
            return True
        names = (host, authority(host, port))
        return any(_matches(name, entry.lower().lstrip(".")) for entry in self._bypass for name in names)


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, environ.get(name.upper(), ""))


def _matches(name: str, entry: str) -> bool:
    return name == entry or name.endswith("." + entry)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _block(entry: str) -> _Block | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _parse(url: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise SupplyError(Failure.REFUSED, "The proxy variable holds no usable URL; write http://host:port")
    if parts.scheme != "http":
        message = f"Proxy {host}: the scheme {parts.scheme}:// is not supported; use an http:// proxy"
        raise SupplyError(Failure.REFUSED, message)
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(host, port or 80, authorization)
