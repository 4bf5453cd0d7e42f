"""Bytes of HTTP/1.1 answers and event streams, and the steps a fake provider plays them in. No I/O here."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from http import HTTPStatus

import msgspec


class Move(enum.Enum):
    """What an answer may do besides sending and waiting."""

    CLOSE = "close"  # send what is pending, then FIN
    RESET = "reset"  # RST at once, what is pending is lost
    STALL = "stall"  # nothing more, until the client leaves or the provider stops


Step = bytes | float | Move  # bytes to send, seconds to wait, or a move
Headers = Sequence[tuple[str, str]]

DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"
JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
_REASONS = {529: "Overloaded"} | {status.value: status.phrase for status in HTTPStatus}


def head(status: int, headers: Headers) -> bytes:
    """Render a status line and headers, exactly these."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def response(status: int, body: bytes, headers: Headers = (), content_type: str = JSON) -> bytes:
    """Render a whole answer with its content-length."""
    fixed = [("content-type", content_type), ("content-length", str(len(body)))]
    return head(status, [*fixed, *headers]) + body


def error_body(message: str, kind: str = "server_error", code: str | None = None) -> bytes:
    """Render the OpenAI error shape."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def error_response(status: int, message: str, headers: Headers = (), code: str | None = None) -> bytes:
    """Render a whole error answer in the OpenAI shape."""
    kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
    return response(status, error_body(message, kind, code), headers)


def event(payload: bytes) -> bytes:
    """Frame one server-sent event."""
    return b"data: " + payload + b"\n\n"


def chunk(data: bytes) -> bytes:
    """Frame one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = head(
    200, [("content-type", EVENT_STREAM), ("cache-control", "no-cache"), ("transfer-encoding", "chunked")]
)


def chunks(events: Iterable[bytes]) -> bytes:
    """Frame each event as a chunk of its own, joined."""
    return b"".join([b"%x\r\n%b\r\n" % (len(data), data) for data in events])
