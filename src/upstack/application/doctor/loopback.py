"""Which addresses are this machine's own."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, by what it is called."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def through_proxy(url: str) -> bool:
    """Say whether the environment's proxies may be used for `url`: never for loopback."""
    return not is_loopback(urlsplit(url).hostname or "")
