"""The hot path: chat completions answered inside uvicorn's httptools protocol, without ASGI and without a task.

Everything else on the port goes on to the ordinary application, in order, also under pipelining. This file is the
transport's side alone: it frames bytes, minds limits and connection state, and hands requests to an `Exchange`.
"""

from __future__ import annotations

import select
import time
from collections import deque
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from upstack.application.gateway.auth import Caller
from upstack.application.gateway.dialects.chat import error_body
from upstack.application.gateway.exchange import Exchange
from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.head import admit_chat, too_large
from upstack.core.errors import RequestError

HOT_PATH = b"/v1/chat/completions"
LARGEST_HEAD = 64 * 1024  # bytes of request line and headers
READ_AHEAD = 64 * 1024  # bytes of requests read while earlier ones are answered
LINGER = 2.0  # seconds a caller whose request was cut short has to read why

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_VERSIONS = ("1.1", "1.0")
_HUNG_UP = getattr(select, "POLLRDHUP", 0)  # where it is unknown, only a reset is seen
_CLOSE = b"connection: close\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HotCycle:
    """One request on a connection, and the sink of its answer. Stands where uvicorn keeps its own cycle."""

    __slots__ = (
        "body",
        "caller",
        "chunked",
        "disconnected",
        "exchange",
        "headers",
        "keep_alive",
        "protocol",
        "refusal",
        "response_complete",
        "size",
    )

    def __init__(self, protocol: HotProtocol, headers: dict[bytes, bytes], *, keep_alive: bool, chunked: bool) -> None:
        self.protocol = protocol
        self.headers = headers
        self.keep_alive = keep_alive
        self.chunked = chunked  # the caller speaks HTTP/1.1
        self.body: list[bytes] = []
        self.size = 0
        self.refusal: RequestError | None = None
        self.caller: Caller | None = None
        self.exchange: Exchange | None = None
        self.response_complete = False
        self.disconnected = False

    @property
    def paused(self) -> bool:
        """Whether the connection holds more than its caller has read, from an earlier answer perhaps."""
        return self.protocol.flow.write_paused

    def start(self) -> None:
        """Hand the whole request over."""
        exchange = self.exchange = Exchange(self.protocol.gateway, self, self.caller)
        if self.refusal is not None:
            exchange.refuse(self.refusal)
            return
        body = self.body
        exchange.begin(body[0] if len(body) == 1 else b"".join(body), self.headers)

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Send a whole answer in one write."""
        if self.disconnected:
            return
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        closing = b"" if self.keep_alive else _CLOSE
        self.protocol.transport.write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (line, headers, closing, len(body), body))
        self._done()

    def open(self, headers: bytes, data: bytes) -> None:
        """Start a stream: chunked, or ended by closing where the caller knows no chunks."""
        if self.disconnected:
            return
        if not self.chunked:
            self.keep_alive = False
        closing = b"" if self.keep_alive else _CLOSE
        framing = b"transfer-encoding: chunked\r\n\r\n" if self.chunked else b"\r\n"
        first = b"%x\r\n%b\r\n" % (len(data), data) if data and self.chunked else data
        self.protocol.transport.write(b"".join((_STATUS_LINES[200], headers, closing, framing, first)))

    def write(self, data: bytes) -> None:
        """Send further events."""
        if not self.disconnected:
            self.protocol.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def close(self, data: bytes, *, clean: bool) -> None:
        """Send the last events and, if `clean`, the end of the body; else only close the connection."""
        if self.disconnected:
            return
        if self.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) + (b"0\r\n\r\n" if clean else b"")
        self.protocol.transport.write(data)
        if not clean:
            self.keep_alive = False
        self._done()

    def _done(self) -> None:
        self.response_complete = True
        self.exchange = None
        if not self.keep_alive:
            self.protocol.hang_up()
        self.protocol.on_response_complete()


class HotProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the hot path inside. Subclassed with a `gateway` by `hot_protocol`."""

    gateway: ClassVar[Gateway]
    open_protocols: ClassVar[set[HotProtocol]]

    cycle: Any  # uvicorn's latest, which may also be one of ours
    pipeline: deque[tuple[Any, Any]]  # the same, waiting for their turn; newest on the left

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False
        self.hot: HotCycle | None = None  # whose body is being read
        self.answering: HotCycle | None = None
        self.running: Any = None  # uvicorn's cycle whose answer is under way
        self.deaf = False  # taking no more
        self.lingering = False  # deaf, and only waiting for the caller to read our last words
        self.ahead = 0  # bytes read while requests wait for their turn
        self.unsent = 0  # bytes of answers in our buffer when last looked at, and when that last changed
        self.moved = self.since = time.monotonic()  # since: when the connection last began to wait for its caller
        self.read_size = 0  # of the head and what came with it
        self.head_size = 0  # of the unfinished head, without the read it began in
        self.in_head = False
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    # -- connection --------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Take a new connection."""
        super().connection_made(transport)
        self.open_protocols.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what the caller no longer waits for."""
        self.open_protocols.discard(self)
        self.hot = None
        queued = [cycle for cycle, _ in self.pipeline if isinstance(cycle, HotCycle)]
        for cycle in [self.answering, *queued]:
            if cycle is not None:
                cycle.disconnected = True
                exchange, cycle.exchange = cycle.exchange, None  # else the two would keep the body until a collection
                if exchange is not None:
                    exchange.gone()
        self.answering = None
        self.pipeline.clear()
        if self.running is not None:  # uvicorn tells its latest alone, which may be one that waits
            self.running.disconnected = True
            self.running.message_event.set()
            self.running = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, within the limit for a request's head."""
        if self.deaf:
            return
        if self.in_head:
            self.head_size += len(data)
            self.read_size += len(data)
        else:
            self.read_size = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._feed_without_offers(memoryview(data)[stop.args[0] :])
        except httptools.HttpParserError:
            self._reject(RequestError("Invalid HTTP request", code="invalid_http"))
        if self.in_head and max(self.head_size, self._parsed_head()) > LARGEST_HEAD:
            self._reject_head()
        if self.pipeline:
            self._read_ahead(len(data))

    def _feed_without_offers(self, rest: memoryview) -> None:
        """Take a request as if it had not offered another protocol, and those in `rest` behind it.

        The parser stops behind the head of such a request, before its body: it is given the head again, without.
        """
        offer = {b"upgrade", b"connection", b"http2-settings"}
        try:
            while not self.deaf:
                method = self.parser.get_method()
                if method == b"CONNECT":  # upgrades by itself, and this is no proxy
                    self._reject(RequestError("CONNECT is not served here", status=405, code="invalid_http"))
                    return
                lines = b"".join(b"%b: %b\r\n" % pair for pair in self.headers if pair[0] not in offer)
                version = self.parser.get_http_version().encode()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.feed_data(b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, lines))
                try:
                    self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as stop:
                    rest = rest[stop.args[0] :]
                else:
                    return
        except httptools.HttpParserError:
            self._reject(RequestError("Invalid HTTP request", code="invalid_http"))

    def _parsed_head(self) -> int:
        """How large the head is, as far as it is read."""
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _read_ahead(self, size: int) -> None:
        """Read on behind the answer under way, up to a limit: with reading off, a caller that leaves goes unnoticed."""
        if self.transport.is_closing():
            return
        self.ahead += size
        if self.ahead > READ_AHEAD:
            self.flow.pause_reading()
        else:
            self.flow.resume_reading()  # uvicorn stops at the first request that waits

    def pause_writing(self) -> None:
        """The caller does not read: stop reading from the provider."""
        super().pause_writing()
        if self.answering is not None and self.answering.exchange is not None:
            self.answering.exchange.pause()

    def resume_writing(self) -> None:
        """The caller reads again."""
        super().resume_writing()
        if self.answering is not None and self.answering.exchange is not None:
            self.answering.exchange.resume()

    def shutdown(self) -> None:
        """Close once the answer under way is out; uvicorn calls this when it stops."""
        if self.answering is not None:
            self.answering.keep_alive = False
        else:
            super().shutdown()

    # -- parser ------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request; uvicorn's own preparations wait until it is known to need them."""
        self.url = b""
        self.headers = []
        self.in_head = True
        self.head_size = 0
        self.since = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header, its name in lower case; trailers are dropped."""
        if self.in_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Decide whose request it is."""
        self.in_head = False
        parser = self.parser
        if self.deaf or parser.should_upgrade():
            return  # in the latter case the same request comes again at once, without the offer
        version = parser.get_http_version()
        if version not in _VERSIONS:
            self._reject(RequestError("Only HTTP/1.1 and HTTP/1.0 are spoken here", status=505, code="invalid_http"))
            return
        if self.read_size > LARGEST_HEAD and self._parsed_head() > LARGEST_HEAD:
            self._reject_head()
            return
        headers = dict(self.headers)
        modern = version != "1.0"
        if (modern and b"host" not in headers) or (len(headers) != len(self.headers) and self._has_two_hosts()):
            self._reject(RequestError("Send one Host header", code="invalid_http"))
            return
        if not self.url.startswith(HOT_PATH) or parser.get_method() != b"POST" or not self._is_hot_path():
            self._hand_over()
            return
        cycle = HotCycle(self, headers, keep_alive=modern and parser.should_keep_alive(), chunked=modern)
        self.hot = cycle
        gateway = self.gateway
        try:
            cycle.caller = admit_chat(headers, gateway.keys, gateway.clock.time(), gateway.limits.max_body_bytes)
        except RequestError as error:
            cycle.refusal = error
        if cycle.refusal is not None or b"expect" in headers:
            self._look_ahead(cycle)

    def on_body(self, body: bytes) -> None:
        """Collect the body of a hot request, up to the limit."""
        cycle = self.hot
        if cycle is None:
            if not self.deaf:
                super().on_body(body)
        elif cycle.refusal is None:
            cycle.size += len(body)
            cycle.body.append(body)
            limit = self.gateway.limits.max_body_bytes
            if cycle.size > limit:
                cycle.body.clear()
                cycle.refusal = too_large(limit)
                self._look_ahead(cycle)

    def on_message_complete(self) -> None:
        """Start a hot request, or queue it behind the one being answered."""
        cycle = self.hot
        if cycle is None:
            if not self.deaf and not self.parser.should_upgrade():
                super().on_message_complete()
            return
        self.hot = None
        if self.transport.is_closing() or self.deaf:
            return
        if self._is_free():
            self.answering = cycle
            cycle.start()
        else:
            self.pipeline.appendleft((cycle, self.app))

    # -- after a response --------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Go on with the next request of this connection, or wait for one."""
        self.answering = self.running = None
        self.server_state.total_requests += 1
        self.since = time.monotonic()
        if self.transport.is_closing():
            return
        if not self.pipeline:
            if self.ahead or self.flow.read_paused:
                self._read_on()
            if self.hot is not None:
                self._look_ahead(self.hot)  # its turn only now
            return
        cycle, app = self.pipeline.pop()
        if not self.pipeline:
            self._read_on()
        if isinstance(cycle, HotCycle):
            self.answering = cycle
            self.loop.call_soon(self._start, cycle)  # not from inside the last one: a long pipeline would nest
        else:
            self._start_asgi_task(cycle, app)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def _read_on(self) -> None:
        """Read as always: nothing waits any more."""
        self.ahead = 0
        self.flow.resume_reading()

    def _start(self, cycle: HotCycle) -> None:
        if not cycle.disconnected:
            cycle.start()

    def overdue(self, now: float) -> None:
        """Close the connection if its caller has been silent for too long. Called now and then for all of them."""
        silent = now - self.since
        limits = self.gateway.limits
        body_awaited = self.cycle is not None and not self.cycle.response_complete and self.cycle.more_body
        if self._is_stuck(now) or self._has_left():
            self.transport.abort()
        elif self.lingering:
            if silent > LINGER:
                self.transport.close()
        elif self.answering is not None or self.pipeline:
            return  # it is our turn, whatever else has come
        elif self.hot is not None or self.in_head or body_awaited:
            if silent > limits.request_timeout:
                self._reject(RequestError("The request did not arrive in time", status=408, code="request_timeout"))
        elif self._is_free() and silent > limits.keep_alive:
            self.transport.close()

    def _is_stuck(self, now: float) -> bool:
        """Whether no more is to be said, and the caller has taken none of what is left for `keep_alive` seconds."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self.unsent or not unsent:
            self.unsent, self.moved = unsent, now
            return False
        over = self.lingering or self.transport.is_closing() or self._is_free()
        return over and now - self.moved > self.gateway.limits.keep_alive

    def _has_left(self) -> bool:
        """Whether the caller hung up while we do not read: behind what it sent, its end is not told otherwise."""
        if not self.flow.read_paused or self.transport.is_closing():
            return False
        look = select.poll()
        look.register(self.transport.get_extra_info("socket"), _HUNG_UP)
        return bool(look.poll(0))

    def _has_two_hosts(self) -> bool:
        return sum(name == b"host" for name, _ in self.headers) > 1

    def _is_hot_path(self) -> bool:
        return len(self.url) == len(HOT_PATH) or self.url[len(HOT_PATH) : len(HOT_PATH) + 1] == b"?"

    def _is_free(self) -> bool:
        return self.answering is None and (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def _hand_over(self) -> None:
        """Give the request to the application, by uvicorn's own way."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        # uvicorn starts a request at once unless its latest cycle is unfinished. It knows nothing of a hot answer under
        # way: standing in for that cycle, the answer has the request queued behind itself, in order.
        if self.answering is not None and (self.cycle is None or self.cycle.response_complete):
            self.cycle = self.answering
        try:
            super().on_headers_complete()
        finally:
            # uvicorn has put its new cycle in the place of ours, unless the URL was none and it raised: from then on
            # it would give ours bodies and disconnects, which it is no taker for.
            if isinstance(self.cycle, HotCycle):
                self.cycle = None

    def _look_ahead(self, cycle: HotCycle) -> None:
        """Deal with a request whose body is still to come, once it is its turn.

        A caller that waits for leave gets it, or the refusal. One that sends too much is answered before the rest has
        come: no more is taken, and the connection ends when the caller has read that.
        """
        if not self._is_free():
            return
        waits = cycle.chunked and b"expect" in cycle.headers  # HTTP/1.0 does not know of it
        if cycle.refusal is None:
            if waits and not cycle.size:
                self.transport.write(_CONTINUE)
        elif waits or cycle.refusal.status == 413:
            self.hot = None
            self.answering = cycle
            cycle.keep_alive = False
            self.deaf = self.lingering = True  # before the answer, which must neither close at once nor be followed
            cycle.start()
            self._linger()

    def _reject(self, error: RequestError) -> None:
        """Take no more from this connection: what came is no request. Answer that, or what is still to be answered."""
        self.in_head = False
        self.hot = None
        if self.deaf or self.transport.is_closing():
            return
        self.deaf = True
        if not self._is_free():
            self._close_after_answers()
            return
        body = error_body(error)
        head = b"%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (_STATUS_LINES[error.status], len(body)) + body)
        self._linger()

    def _reject_head(self) -> None:
        self._reject(RequestError("The request's headers are too large", status=431, code="headers_too_large"))

    def _close_after_answers(self) -> None:
        """Let the last whole request be the last that is answered."""
        if self.pipeline and getattr(self.pipeline[0][0], "more_body", False):
            self.pipeline.popleft()  # an application's request, cut in its body
        last = self.pipeline[0][0] if self.pipeline else self.answering or self.cycle
        last.keep_alive = False
        if getattr(last, "more_body", False):
            self.transport.close()

    def hang_up(self) -> None:
        """The last answer is out."""
        if not self.deaf:
            self.transport.close()
        elif not self.lingering:
            self._linger()

    def _linger(self) -> None:
        """Send no more, read and drop: closing at once would reset the connection under our last words."""
        self.deaf = self.lingering = True
        self.since = time.monotonic()
        self._read_on()
        if not self.transport.is_closing():
            self.transport.write_eof()


def hot_protocol(gateway: Gateway) -> type[HotProtocol]:
    """Make the protocol class uvicorn instantiates for each connection."""
    return type("GatewayProtocol", (HotProtocol,), {"gateway": gateway, "open_protocols": set()})
