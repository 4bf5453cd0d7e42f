"""What a request's head alone says: who asks, and whether it is refused; the same on the hot path and elsewhere.

Without keys whoever reaches the loopback port is served. A web page reaches it too, from across origins or, once its
own name is made to resolve to this machine, under that name. `Host` and `Origin` tell such callers apart, as a browser
lets no page choose them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from upstack.application.gateway.auth import Caller, Keys
from upstack.core.errors import RequestError
from upstack.foundation.upstream.origin import is_loopback

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]+))(?::\d*)?", re.IGNORECASE)
_SETTING = "server.max_body_bytes"


def admit(headers: Mapping[bytes, bytes], keys: Keys | None, now: float) -> Caller | None:
    """Say who asks; None where there are no keys. RequestError where a request is refused whatever it asks for.

    Names of `headers` are in lower case, `now` is in Unix seconds.
    """
    if b"transfer-encoding" in headers and headers[b"transfer-encoding"].strip().lower() != b"chunked":
        message = "Send the body with a content-length, or with transfer-encoding: chunked and no other"
        raise RequestError(message, status=501, code="unsupported_encoding")
    if keys is not None:
        return keys.caller(headers, now)
    host = headers.get(b"host")
    if host is not None and not _is_here(host):  # HTTP/1.0 knows none, and browsers always send it
        message = "Host: without keys only localhost, names under .localhost and IP addresses are served"
        raise RequestError(message, status=403, code="host_not_allowed")
    if b"origin" in headers and not _is_near(headers[b"origin"]):
        message = "Origin: without keys only web pages of this machine are served"
        raise RequestError(message, status=403, code="origin_not_allowed")
    return None


def admit_chat(headers: Mapping[bytes, bytes], keys: Keys | None, now: float, limit: int) -> Caller | None:
    """Say who asks for a chat completion, before its body, of at most `limit` bytes, is read; raises as `admit`."""
    caller = admit(headers, keys, now)
    check_body(headers, limit)
    return caller


def check_body(headers: Mapping[bytes, bytes], limit: int, name: str = _SETTING) -> None:
    """Raise RequestError where what comes is no JSON as it is, or above `limit` bytes; `name` says what sets it."""
    kind = headers.get(b"content-type", b"")
    if kind != b"application/json" and kind.partition(b";")[0].strip().lower() != b"application/json":
        message = "Send the request as content-type: application/json"
        raise RequestError(message, status=415, code="unsupported_content_type")
    if b"content-encoding" in headers and headers[b"content-encoding"].strip().lower() != b"identity":
        raise RequestError("Send the body without a content-encoding", status=415, code="unsupported_encoding")
    length = headers.get(b"content-length")
    if length is not None and int(length) > limit:
        raise too_large(limit, name)


def too_large(limit: int, name: str = _SETTING) -> RequestError:
    """Build the error for a body above `limit` bytes; `name` says what sets it."""
    message = f"The body is above {name} ({limit})"
    return RequestError(message, status=413, code="body_too_large")


@lru_cache(64)  # nearly every request names the same one
def _is_here(value: bytes) -> bool:
    """Whether a Host names this machine: a name no page can make its own, or an address, which is no name."""
    found = _HOST.fullmatch(value.decode("latin-1"))
    if found is None:
        return False
    host = (found[1] or found[2]).lower()
    return is_loopback(host) or _is_address(host)


def _is_near(value: bytes) -> bool:
    """Whether an Origin is of this machine; "null", which any page can make its own, is not."""
    try:
        return is_loopback(urlsplit(value.decode("latin-1")).hostname or "")
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
