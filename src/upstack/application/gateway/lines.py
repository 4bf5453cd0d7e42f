"""Header lines of answers, each with its CRLF."""

from __future__ import annotations

import math
from collections.abc import Mapping

JSON = b"content-type: application/json\r\n"
EVENTS = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
# Of a provider's answer, the headers a caller may see.
_PASSED = frozenset(
    {
        b"x-request-id",
        b"openai-processing-ms",
        b"openai-version",
        b"openai-organization",
        b"x-ratelimit-limit-requests",
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-requests",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-requests",
        b"x-ratelimit-reset-tokens",
    }
)


def lines(kind: bytes, receipt: str | None, route: str | None, passed: Mapping[bytes, bytes]) -> bytes:
    """`kind`, what the provider said (`passed`) that the caller may see, and ours."""
    ours = kind
    if receipt is not None:
        ours += b"x-upstack-receipt: %b\r\n" % receipt.encode()
    if route is not None:
        ours += b"x-upstack-route: %b\r\n" % route.encode()
    if _PASSED.isdisjoint(passed):
        return ours
    return ours + b"".join(b"%b: %b\r\n" % pair for pair in passed.items() if pair[0] in _PASSED)


def retry_after(seconds: float | None) -> bytes:
    """The line that says when to come back; none where nobody knows."""
    return b"" if seconds is None else b"retry-after: %d\r\n" % max(1, math.ceil(seconds))
