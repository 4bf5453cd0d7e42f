"""How each fault of connections, timing, framing and status is played."""

from __future__ import annotations

import email.utils
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator

from upstack.testing.case import SETTLE_S, Case
from upstack.testing.faults import Fault
from upstack.testing.wire import (
    LAST_CHUNK,
    Headers,
    Move,
    Step,
    chunk,
    chunks,
    error_response,
    head,
    response,
)

MIB = 1024 * 1024
Player = Callable[[Case], bytes | Iterable[Step]]


def _mid_chunk(case: Case) -> bytes:
    piece = chunk(case.next_piece)
    return case.chunked_start + piece[: len(piece) // 2]


def _unframed(case: Case) -> bytes:
    return case.head_with(("connection", "close")) + case.before


def _role_only(case: Case) -> bytes:
    """Headers and roles; of a plain answer the headers alone."""
    if not case.stream:
        return case.head
    return case.head + chunks(case.events[0][: case.request.n or 1])


def _sized(case: Case, size: int, body: bytes) -> bytes:
    return case.head_with(("content-length", str(size))) + body


def _both_lengths(case: Case) -> bytes:
    body = chunk(case.body) + LAST_CHUNK
    return case.head_with(("content-length", str(len(body))), ("transfer-encoding", "chunked")) + body


def _drip(case: Case) -> Iterator[Step]:
    for byte in case.whole:
        yield bytes((byte,))
        yield case.pause_s


def _flood_headers(case: Case) -> Iterator[Step]:
    size = case.options.size_bytes or 64 * MIB
    line = b"x-flood-%06d: " + b"y" * 1000 + b"\r\n"
    yield head(200, [("content-type", "application/json")])[:-2]
    for first in range(0, size // 1024, 64):
        yield b"".join([line % number for number in range(first, first + 64)])
    yield b"content-length: 0\r\n\r\n"


def _gzip(case: Case) -> bytes:
    """Compress; each event of a stream can be unpacked when it is there."""
    packer = zlib.compressobj(wbits=31)
    if not case.stream:
        body = packer.compress(case.body) + packer.flush()
        return case.head_with(("content-encoding", "gzip"), ("content-length", str(len(body)))) + body
    before, after = case.events
    pieces = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in before + after]
    packed = chunks([*pieces, packer.flush()]) + LAST_CHUNK
    return case.head_with(("content-encoding", "gzip"), ("transfer-encoding", "chunked")) + packed


def _gzip_bomb(case: Case) -> Iterator[Step]:
    """Pack one value without end, a mebibyte at a time, and let others have a turn between."""
    size = case.options.size_bytes or 256 * MIB
    packer = zlib.compressobj(wbits=31)
    yield case.head_with(("content-encoding", "gzip"), ("transfer-encoding", "chunked"))
    opening = b'data: {"choices":[{"index":0,"delta":{"content":"' if case.stream else b'{"id":"'
    block = b"a" * MIB
    for index in range(max(1, size // MIB)):
        packed = packer.compress(opening + block if index == 0 else block)
        yield chunk(packed + packer.flush(zlib.Z_SYNC_FLUSH))
        yield 0.0
    yield chunk(packer.flush()) + LAST_CHUNK


def _status(status: int, message: str, code: str | None = None) -> Player:
    return lambda _case: error_response(status, message, code=code)


def _retry_later(status: int, code: str) -> Player:
    def play(case: Case) -> bytes:
        seconds = case.options.retry_after_s
        shown = str(int(seconds)) if seconds == int(seconds) else str(seconds)
        headers: Headers = [("retry-after", shown)]
        return error_response(status, "too many requests, try again later", headers, code)

    return play


def _retry_at(case: Case) -> bytes:
    """Name a date, which has whole seconds only: never sooner than was asked for."""
    at = email.utils.formatdate(math.ceil(time.time() + case.options.retry_after_s), usegmt=True)
    return error_response(429, "too many requests, try again later", [("retry-after", at)], "rate_limit_exceeded")


def _bad_gateway(_case: Case) -> bytes:
    return response(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", content_type="text/html")


HTTP_PLAYERS: dict[Fault, Player] = {
    Fault.RESET_BEFORE_HEADERS: lambda _: (Move.RESET,),
    Fault.RESET_AFTER_HEADERS: lambda case: (case.head, SETTLE_S, Move.RESET),
    Fault.RESET_MID_BODY: lambda case: (case.start, SETTLE_S, Move.RESET),
    Fault.RESET_MID_CHUNK: lambda case: (_mid_chunk(case), SETTLE_S, Move.RESET),
    Fault.CLOSE_BEFORE_HEADERS: lambda _: (Move.CLOSE,),
    Fault.CLOSE_MID_STREAM: lambda case: (case.chunked_start, Move.CLOSE),
    Fault.CLOSE_UNFRAMED: lambda case: (_unframed(case), Move.CLOSE),
    Fault.EARLY_CLOSE: lambda case: (case.whole, Move.CLOSE),
    Fault.STALL_BEFORE_HEADERS: lambda _: (Move.STALL,),
    Fault.STALL_BEFORE_FIRST_TOKEN: lambda case: (_role_only(case), Move.STALL),
    Fault.STALL_BETWEEN_TOKENS: lambda case: (case.start, Move.STALL),
    Fault.LATENCY: lambda case: (case.pause_s, case.whole),
    Fault.SLOW_DRIP: _drip,
    Fault.MALFORMED_HTTP: lambda _: (b"HTTP/x.y two hundred FINE\r\n\xff\xfe\r\n\r\n", Move.CLOSE),
    Fault.MALFORMED_CHUNK: lambda case: (case.chunked_start + b"many\r\n" + case.next_piece + b"\r\n", Move.CLOSE),
    Fault.SHORT_BODY: lambda case: (_sized(case, len(case.body), case.before), Move.CLOSE),
    Fault.LONG_BODY: lambda case: _sized(case, len(case.before), case.body),
    Fault.LENGTH_AND_CHUNKED: _both_lengths,
    Fault.HEADER_FLOOD: _flood_headers,
    Fault.GZIP_BODY: _gzip,
    Fault.GZIP_BOMB: _gzip_bomb,
    Fault.STATUS_400: _status(400, "the request is wrong", "invalid_value"),
    Fault.STATUS_401: _status(401, "incorrect API key provided", "invalid_api_key"),
    Fault.STATUS_404: _status(404, "the model does not exist", "model_not_found"),
    Fault.STATUS_429: _retry_later(429, "rate_limit_exceeded"),
    Fault.STATUS_429_DATE: _retry_at,
    Fault.STATUS_500: _status(500, "the server had an error"),
    Fault.STATUS_502: _bad_gateway,
    Fault.STATUS_503: _retry_later(503, "overloaded"),
    Fault.STATUS_529: _status(529, "overloaded", "overloaded_error"),
}
