"""One keep-alive connection: bytes in, answer out. It serves one call at a time and knows nothing of pools."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from upstack.core.errors import Failure, SupplyError
from upstack.foundation.upstream.call import HttpCall
from upstack.foundation.upstream.decoding import Decoder, decoder

HEAD_LIMIT = 65_536  # bytes of an answer's head, and of chunk extensions and trailers in a row
_JOIN_LIMIT = 65_536  # a body up to this size is copied behind its head, so that one packet may hold both
_PIECES = 8  # decoded pieces handed out before other connections get their turn
_HEAD, _BODY, _WHOLE = range(3)  # how far the answer was read
_BODILESS = frozenset((204, 304))


class Owner(Protocol):
    """Whoever lends connections out."""

    def release(self, connection: Connection) -> None:
        """Take back a connection that may serve another call."""
        ...

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is closed. May come more than once."""
        ...


class _SurplusError(Exception):
    """Bytes after the end of the answer; raised to stop the parser."""


class Connection(asyncio.Protocol):
    """Reads all answers of a connection with one parser.

    The parser fills `_raw` (headers) and `_parts` (body) without running Python code. Receivers are told after it has
    seen a whole read, so a read full of small chunks is one `on_body`, and no receiver runs inside the parser.
    """

    __slots__ = (
        "_decoder",
        "_error",
        "_feed",
        "_headers",
        "_keep",
        "_loop",
        "_owner",
        "_parser",
        "_parts",
        "_raw",
        "_reading",
        "_reused",
        "_silent",
        "_stage",
        "_status",
        "_transport",
        "_until_close",
        "_unused",
        "call",
        "idle_since",
        "is_closed",
        "on_body",
        "on_header",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        """Stand ready for a transport."""
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport
        self._raw: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self.on_header = self._raw.__setitem__
        self.on_body = self._parts.append
        self._parser = HttpResponseParser(self)
        self._feed = self._parser.feed_data
        self._status = 0
        self._headers: dict[bytes, bytes] | None = None  # of a head the receiver was not told of yet
        self._stage = _HEAD
        self._unused = 0  # bytes read in a row that were no body
        self._keep = False  # the answer leaves the connection fit for another one
        self._until_close = False  # the body ends where the connection does
        self._silent = True  # not one byte of the answer came
        self._reused = False
        self._reading = True
        self._decoder: Decoder | None = None
        self._error: SupplyError | None = None  # to be told after what is still being decoded
        self.call: HttpCall | None = None
        self.idle_since = 0.0
        self.is_closed = False

    # --- for the owner and the call ---

    def start(self, call: HttpCall, head: bytes, body: bytes, now: float) -> None:
        """Send the request of a call."""
        self.call = call
        self._stage = _HEAD
        self._unused = 0
        self._silent = True
        call.link = self
        call.phase = Failure.FIRST_BYTE_TIMEOUT
        call.expires = now + call.timeouts.first_byte
        if len(body) <= _JOIN_LIMIT:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        if call.paused:
            self.pause()

    def is_usable(self) -> bool:
        """Whether a request may be sent, as far as one can know."""
        return not self.is_closed and not self._transport.is_closing()

    def close(self) -> None:
        """Close politely; for connections without a call."""
        self._leave()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; a call in progress is told nothing."""
        self.call = None
        self._decoder = None
        if not self.is_closed:
            self._leave()
            self._transport.abort()

    def drop(self, call: HttpCall) -> None:
        """Close, as the call that was going on ended before its answer."""
        if self.call is call:
            self.abort()

    def pause(self) -> None:
        """Stop reading."""
        self._reading = False
        if not self.is_closed:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on; but first hand out what was read and not decoded yet."""
        if self._decoder is not None:
            self._loop.call_soon(self._hand_out, self.call)
        else:
            self._read_on()

    # --- for the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what came, then tell the receiver."""
        call = self.call
        if call is None:  # nothing was asked: whatever this is, it must not be taken for the next answer
            if not self.is_closed:
                self.close()
            return
        self._silent = False
        error = None
        try:
            self._feed(data)
        except (HttpParserError, HttpParserUpgrade) as flaw:
            error = self._judge(call, flaw)
        if self._stage == _HEAD:
            self._wait_for_head(call, error, len(data))
            return
        headers = self._headers
        if headers is not None and not self._tell_head(call, headers, len(data)):
            return
        parts = self._parts
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._unused = 0
            if self._decoder is not None:
                self._decoder.feed(body)
            else:
                call.moved = True
                call.receiver.on_body(body)
                if self.call is not call:
                    return
        elif self._stage == _BODY:
            self._unused += len(data)
            if self._unused > HEAD_LIMIT:
                error = error or _malformed(call, "too much between two pieces of the body")
        if self._stage == _WHOLE or error is not None or self._decoder is not None:
            self._settle(call, error)

    def eof_received(self) -> None:
        """Give up an idle connection at once; for the others `connection_lost` follows."""
        if self.call is None and not self.is_closed:
            self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the call that was going on."""
        if not self.is_closed:
            self._leave()
        del self._parser, self._feed  # the parser holds methods of this object: a cycle
        call = self.call
        if call is None:
            return
        error = None
        if self._stage == _BODY and self._until_close and exc is None:
            self._stage = _WHOLE
        elif self._stage != _WHOLE:
            error = self._broken(call, exc)
        self._settle(call, error)

    # --- for the parser ---

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self._stage == _WHOLE:
            raise _SurplusError

    def on_headers_complete(self) -> None:
        """Keep the head for when the parser returns; informational ones (1xx) are passed over."""
        parser, raw = self._parser, self._raw
        self._status = status = parser.get_status_code()
        if status >= 200:
            self._keep = parser.should_keep_alive()
            self._headers = {name.lower(): value for name, value in raw.items()}
            self._stage = _BODY
        raw.clear()

    def on_message_complete(self) -> None:
        """Note the end; trailers are thrown away."""
        if self._stage == _BODY:
            self._stage = _WHOLE
        if self._raw:
            self._raw.clear()

    # --- inside ---

    def _judge(self, call: HttpCall, flaw: Exception) -> SupplyError | None:
        if self._stage == _WHOLE:  # the answer is good; only what follows it is not
            self._keep = False
            return None
        return _malformed(call, f"the answer is not HTTP/1.1 ({flaw})")

    def _wait_for_head(self, call: HttpCall, error: SupplyError | None, size: int) -> None:
        self._unused += size
        if self._unused > HEAD_LIMIT:
            error = _malformed(call, "the head of the answer is too large")
        if error is not None:
            call.fail(error)

    def _tell_head(self, call: HttpCall, headers: dict[bytes, bytes], size: int) -> bool:
        """Check what the parser lets pass, then tell the receiver. False: the call is over."""
        self._headers = None
        flaw = None
        transfer = headers.get(b"transfer-encoding")
        if transfer is not None and transfer.lower() != b"chunked":
            flaw = "unknown transfer encoding"
        elif self._unused + size > HEAD_LIMIT and sum(map(len, headers)) + sum(map(len, headers.values())) > HEAD_LIMIT:
            flaw = "the head of the answer is too large"
        else:
            try:
                self._decoder = decoder(headers.get(b"content-encoding"))
            except ValueError as unknown:
                flaw = str(unknown)
        if flaw is not None:
            call.fail(_malformed(call, flaw))
            return False
        self._until_close = transfer is None and b"content-length" not in headers and self._status not in _BODILESS
        self._unused = 0
        call.receiver.on_head(self._status, headers)
        return self.call is call

    def _settle(self, call: HttpCall, error: SupplyError | None) -> None:
        """Go on from what was just read: decode, end, fail, or wait for more."""
        if self._decoder is not None:
            self._error = error
            self._hand_out(call)
        elif self._stage == _WHOLE:
            self._finish(call)
        elif error is not None:
            call.fail(error)

    def _hand_out(self, call: HttpCall | None) -> None:
        """Tell the receiver what the decoder gives, a few pieces a turn, then go on as `_settle` does."""
        coder = self._decoder
        if call is None or self.call is not call or coder is None:
            return
        for _ in range(_PIECES):
            if call.paused:
                return  # `resume` comes back here
            try:
                piece = coder.take()
            except zlib.error:
                call.fail(_malformed(call, "the body is not what its content encoding says"))
                return
            if not piece:
                break
            call.moved = True
            call.receiver.on_body(piece)
            if self.call is not call:
                return
        else:
            self.pause()
            self._loop.call_soon(self._hand_out, call)
            return
        if self._stage == _WHOLE and coder.is_whole:
            self._finish(call)
        elif self._stage == _WHOLE or self._error is not None:
            call.fail(self._error or _truncated(call))
        else:
            self._read_on()

    def _finish(self, call: HttpCall) -> None:
        self.call = None
        self._decoder = None
        receiver = call.finish()
        # Unsent bytes of the request mean that the answer came too early to trust the connection any further.
        if self._keep and self.is_usable() and not self._transport.get_write_buffer_size():
            if not self._reading:
                self._read_on()
            self._reused = True
            self._owner.release(self)
        else:
            self.abort()
        receiver.on_end()

    def _read_on(self) -> None:
        if not self._reading:
            self._reading = True
            if not self.is_closed:
                self._transport.resume_reading()

    def _leave(self) -> None:
        self.is_closed = True
        self._owner.forget(self)

    def _broken(self, call: HttpCall, exc: Exception | None) -> SupplyError:
        if self._stage == _BODY:
            return _truncated(call)
        if self._silent and self._reused:
            return SupplyError(Failure.STALE, f"{call.where}: the kept connection had been closed meanwhile")
        if self._silent and isinstance(exc, ssl.SSLError):  # TLS 1.3 refuses a client certificate only now
            return SupplyError(Failure.REFUSED, f"{call.where}: TLS failed: {exc.reason}")
        return SupplyError(Failure.RESET, f"{call.where}: the connection was closed before the answer began")


def _malformed(call: HttpCall, what: str) -> SupplyError:
    return SupplyError(Failure.MALFORMED, f"{call.where}: {what}")


def _truncated(call: HttpCall) -> SupplyError:
    return SupplyError(Failure.TRUNCATED, f"{call.where}: the answer ended before its end")
