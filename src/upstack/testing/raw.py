"""A raw HTTP/1.1 client for tests: sends any bytes, and says exactly what came back and how it ended."""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from types import TracebackType
from typing import Any, Self

import msgspec

from upstack.testing.answers import events_of, text_of

_PIECE = 64 * 1024
_LINGER_ZERO = struct.pack("ii", 1, 0)


class End(enum.Enum):
    """How an answer ended, as seen by its reader."""

    WHOLE = "whole"  # as its framing said it would; one without a length: closed
    CLOSED = "closed"  # FIN too soon
    RESET = "reset"
    SILENT = "silent"  # nothing more within the timeout
    BAD = "bad"  # not HTTP


class RawResponse(msgspec.Struct):
    """An answer as far as it came; status 0: not even a status line. Header names are in lower case."""

    end: End
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""  # without transfer coding
    chunks: tuple[bytes, ...] = ()  # of a chunked body

    def header(self, name: str) -> str | None:
        """The first header of this name, in lower case, or None."""
        return next((value for found, value in self.headers if found == name), None)

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    @property
    def events(self) -> list[bytes]:
        """The data of the server-sent events that are whole, `[DONE]` among them."""
        return events_of(self.body)

    @property
    def text(self) -> str:
        """What the first choice says, plain or streamed; events that are no JSON are passed over."""
        return text_of(self.body, stream=(self.header("content-type") or "").startswith("text/event-stream"))


class RawClient:
    """One connection to `port` on `host`; an asynchronous context manager. Timeouts are in seconds."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", timeout_s: float = 5.0, receive_buffer: int = 0) -> None:
        self._address = (host, port)
        self._timeout_s = timeout_s
        self._receive_buffer = receive_buffer  # bytes; 0 leaves it to the kernel
        self._sock: socket.socket | None = None
        self._buffer = bytearray()

    async def connect(self) -> None:
        """Connect; OSError as the kernel has it, TimeoutError."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.get_running_loop().sock_connect(sock, self._address)
        except BaseException:
            sock.close()
            raise
        self._sock = sock

    async def send(self, data: bytes, *, pace_s: float | None = None) -> None:
        """Send bytes as they are; with `pace_s` one by one, so many seconds apart."""
        loop = asyncio.get_running_loop()
        if pace_s is None:
            await loop.sock_sendall(self._open, data)
            return
        for byte in data:
            await loop.sock_sendall(self._open, bytes((byte,)))
            await asyncio.sleep(pace_s)

    async def post(self, body: Any, *, path: str = "/v1/chat/completions", headers: str = "") -> None:
        r"""Send a request; `body` is bytes or a value to encode, `headers` are further lines, each with its `\r\n`."""
        await self.send(post_bytes(body, path=path, headers=headers))

    async def ask(self, body: Any, *, path: str = "/v1/chat/completions", headers: str = "") -> RawResponse:
        """Post, and read the answer."""
        await self.post(body, path=path, headers=headers)
        return await self.read()

    async def read(self, timeout_s: float | None = None) -> RawResponse:
        """Read one answer. Never raises for what the other side does; `end` says how it ended."""
        answer = RawResponse(End.WHOLE)
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                await self._read(answer)
        except TimeoutError:
            answer.end = End.SILENT
        except EOFError:
            answer.end = End.CLOSED
        except OSError:
            answer.end = End.RESET
        except ValueError:
            answer.end = End.BAD
        return answer

    async def read_some(self) -> bytes:
        """Read whatever comes next, at most 64 KiB, past all framing; empty at the end. TimeoutError, OSError."""
        if self._buffer:
            return bytes(await self._exactly(min(len(self._buffer), _PIECE)))
        async with asyncio.timeout(self._timeout_s):
            return await asyncio.get_running_loop().sock_recv(self._open, _PIECE)

    async def closed(self, timeout_s: float | None = None) -> bool:
        """Wait for the other side to hang up; False where it sends something, or nothing, instead."""
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                return not self._buffer and not await asyncio.get_running_loop().sock_recv(self._open, 1)
        except TimeoutError:
            return False
        except OSError:
            return True

    def shut_down(self) -> None:
        """Send FIN and go on reading."""
        self._open.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send RST."""
        self._open.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.close()

    def close(self) -> None:
        """Close. Harmless when it is closed."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _open(self) -> socket.socket:
        if self._sock is None:
            raise RuntimeError("the client is not connected")
        return self._sock

    async def _read(self, answer: RawResponse) -> None:
        while True:
            lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
            version, status, *_ = lines[0].split(" ", 2)
            if not version.startswith("HTTP/1."):
                raise ValueError(lines[0])
            answer.status = int(status)
            answer.headers = tuple(_header(line) for line in lines[1:])
            if answer.status >= 200:
                break
        length = answer.header("content-length")
        if answer.header("transfer-encoding") == "chunked":
            await self._read_chunks(answer)
        elif length is not None:
            await self._read_body(answer, int(length))
        elif answer.status not in (204, 304):
            await self._read_rest(answer)

    async def _read_chunks(self, answer: RawResponse) -> None:
        found: list[bytes] = []
        try:
            while size := int((await self._until(b"\r\n")).split(b";")[0], 16):
                found.append((await self._exactly(size + 2))[:-2])
            while await self._until(b"\r\n") != b"\r\n":
                pass  # trailers
        finally:
            answer.chunks = tuple(found)
            answer.body = b"".join(found)

    async def _read_body(self, answer: RawResponse, length: int) -> None:
        try:
            answer.body = await self._exactly(length)
        except BaseException:
            answer.body = bytes(self._buffer)
            raise

    async def _read_rest(self, answer: RawResponse) -> None:
        try:
            while True:
                await self._fill()
        except EOFError:
            pass
        finally:
            answer.body = bytes(self._buffer)
            self._buffer.clear()

    async def _until(self, mark: bytes) -> bytes:
        seen = 0
        while (at := self._buffer.find(mark, seen)) < 0:
            seen = max(0, len(self._buffer) - len(mark))
            await self._fill()
        return await self._exactly(at + len(mark))

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._fill()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _fill(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._open, _PIECE)
        if not data:
            raise EOFError
        self._buffer += data
        await asyncio.sleep(0)  # sock_recv gives the loop no turn while there is something to read: timeouts need one


def post_bytes(body: Any, *, path: str = "/v1/chat/completions", headers: str = "") -> bytes:
    r"""Render a POST; `body` is bytes or a value to encode, `headers` are further lines, each with its `\r\n`."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    lines = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{headers}"
    return f"{lines}content-length: {len(data)}\r\n\r\n".encode("latin-1") + data


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError(line)
    return name.lower(), value.strip()
