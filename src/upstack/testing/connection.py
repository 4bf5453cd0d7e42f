"""One client's connection to a fake provider: reads requests, plays answers step by step."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, cast

import httptools
import msgspec

from upstack.testing.wire import Move, Step, error_response

_FOREVER_S = 86_400.0
_MAX_PIPELINED = 64
_LINGER_ZERO = struct.pack("ii", 1, 0)  # close() then sends RST in place of FIN


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A request as it came: names of headers in lower case, in order, repeated ones kept."""

    method: str
    path: str  # with its query
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int  # which of the provider's connections it came on, from 1

    def header(self, name: str) -> str | None:
        """The first header of this name, in lower case, or None."""
        return next((value for found, value in self.headers if found == name), None)

    def all(self, name: str) -> list[str]:
        """Every value sent under this name, in lower case."""
        return [value for found, value in self.headers if found == name]

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


class Host(Protocol):
    """What a connection needs of its provider. All of it is called on the provider's loop."""

    def answer(self, request: Recorded) -> bytes | Iterable[Step]:
        """Choose the answer to a request: its bytes, or the steps it is played in."""
        ...

    def opened(self, connection: Connection) -> int:
        """Count a new connection and number it."""
        ...

    def closed(self, connection: Connection, hung_up: bool) -> None:
        """Forget a connection; `hung_up`: the client left before its answer was over."""
        ...


class Connection(asyncio.Protocol):
    """Answers the requests of one connection in their order.

    It keeps reading while it answers, so that a client that hangs up is seen at once. A client that only shuts down
    its sending side counts as one that hung up.
    """

    __slots__ = (
        "_body",
        "_headers",
        "_held",
        "_host",
        "_last",
        "_left",
        "_loop",
        "_parser",
        "_queue",
        "_steps",
        "_timer",
        "_transport",
        "_url",
        "number",
        "sent",
    )

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self._parser: Any = httptools.HttpRequestParser(self)
        self._queue: deque[Recorded] = deque()
        self._steps: Iterator[Step] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held = False  # the transport's buffer is full
        self._last = False  # no request comes after the one being answered
        self._left = False  # we ended it ourselves
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self.number = 0
        self.sent = 0  # bytes given to the transport in steps

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass
        self.number = self._host.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        """Stop playing."""
        if self._timer is not None:
            self._timer.cancel()
        hung_up = self._steps is not None and not self._left
        self._steps = None
        self._queue.clear()
        self._host.closed(self, hung_up)

    def eof_received(self) -> None:
        """Take a client that stops sending for gone."""
        if self._steps is not None and not self._left:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what came; what is not HTTP gets a 400 and the end."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._transport.is_closing():
                self._left = True
                self._transport.write(error_response(400, f"not HTTP: {error}", [("connection", "close")]))
                self._transport.close()

    def pause_writing(self) -> None:
        """The client does not read: play no further."""
        self._held = True

    def resume_writing(self) -> None:
        """Play on."""
        self._held = False
        if self._timer is None:
            self._advance()

    def on_message_begin(self) -> None:
        """Start a request (httptools)."""
        self._url = b""
        self._headers = []
        self._body = []

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target (httptools)."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header (httptools)."""
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Ask for the body where the client waits for that (httptools)."""
        if ("expect", "100-continue") in self._headers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body (httptools)."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Answer, or wait until those before are answered (httptools)."""
        if self._transport.is_closing():
            return
        request = Recorded(
            self._parser.get_method().decode("ascii"),
            self._url.decode("latin-1"),
            tuple(self._headers),
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
            self.number,
        )
        self._last = not self._parser.should_keep_alive()
        if self._steps is not None:
            self._queue.append(request)
            if len(self._queue) > _MAX_PIPELINED:
                self._transport.abort()
            return
        answer = self._host.answer(request)
        if isinstance(answer, bytes) and not self._last:
            self._transport.write(answer)
            return
        self._begin(answer)
        self._advance()

    def limit(self, size: int) -> None:
        """Let the transport hold at most about `size` bytes before an answer waits."""
        self._transport.set_write_buffer_limits(high=size)

    def unsent(self) -> int:
        """Bytes the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """End the connection at once, from our side."""
        self._left = True
        self._transport.abort()

    def _begin(self, answer: bytes | Iterable[Step]) -> None:
        self._steps = iter((answer,) if isinstance(answer, bytes) else answer)

    def _advance(self) -> None:
        """Play steps until one waits, or nothing is left to answer."""
        self._timer = None
        while self._steps is not None and not self._held and not self._transport.is_closing():
            step = next(self._steps, None)
            if isinstance(step, bytes):
                self.sent += len(step)
                self._transport.write(step)
            elif step is None:
                self._over()
            elif isinstance(step, Move):
                self._move(step)
                return
            else:
                self._timer = self._loop.call_later(step, self._advance)
                return

    def _over(self) -> None:
        self._steps = None
        if self._queue:
            self._begin(self._host.answer(self._queue.popleft()))
        elif self._last:
            self._left = True
            self._transport.close()

    def _move(self, move: Move) -> None:
        if move is Move.STALL:
            self._timer = self._loop.call_later(_FOREVER_S, self._advance)
            return
        self._left = True
        if move is Move.CLOSE:
            self._transport.close()
            return
        sock: socket.socket = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._transport.abort()
