"""What the tests of the upstream client share: servers of raw bytes on loopback, and a receiver that remembers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

import pytest
import uvloop

from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Timeouts, Tls
from upstack.foundation.backends.base import Call
from upstack.foundation.upstream.client import Client
from upstack.foundation.upstream.pool import Limits

Run = Callable[[Coroutine[Any, Any, None]], None]
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n"
BODY = b"{}"


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine to its end on each of the two event loops; anything the loop had to report fails the test."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def go(main: Coroutine[Any, Any, None]) -> None:
        reports: list[Mapping[str, Any]] = []
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: reports.append(context))
            runner.run(asyncio.wait_for(main, 30))
        assert reports == []

    return go


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole answer with a Content-Length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def chunked(*chunks: bytes, headers: tuple[bytes, ...] = (), end: bytes = b"0\r\n\r\n") -> bytes:
    """A whole answer in chunks."""
    lines = [b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", *headers, b"", b""]
    return b"\r\n".join(lines) + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


class Recorder:
    """A receiver that writes down what it is told, and checks the order."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.error: SupplyError | None = None
        self.call: Call | None = None
        self.pause_at: int | None = None  # pauses the call once this many bytes have come
        self.is_sending = True
        self._ended = asyncio.Event()
        self._moved = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def failure(self) -> Failure | None:
        return self.error.failure if self.error else None

    @property
    def is_over(self) -> bool:
        return self._ended.is_set()

    def on_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        assert not self.is_sending
        assert not self.status
        assert not self.is_over
        self.status, self.headers = status, dict(headers)
        self._moved.set()

    def on_body(self, data: bytes) -> None:
        assert self.status
        assert not self.is_over
        assert data
        self.pieces.append(data)
        self._moved.set()
        if self.pause_at is not None and sum(map(len, self.pieces)) >= self.pause_at:
            self.pause_at = None
            assert self.call
            self.call.pause()

    def on_end(self) -> None:
        assert self.status
        self._over()

    def on_failure(self, error: SupplyError) -> None:
        self.error = error
        self._over()

    def _over(self) -> None:
        assert not self.is_sending
        assert not self.is_over
        self._ended.set()
        self._moved.set()

    async def end(self) -> Recorder:
        """Wait until the call is over."""
        await self._ended.wait()
        return self

    async def moved(self) -> None:
        """Wait until it was told something more."""
        self._moved.clear()
        await self._moved.wait()


class Peer:
    """The server's side of one connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number  # of the connection, from 0
        self.reader = reader
        self.writer = writer

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request: head and body; raises EOFError where the client has gone."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return head, await self.reader.readexactly(int(length.split(b":")[1]))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close without a goodbye."""
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client has closed."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65_536):
                pass


class Server:
    """Counts what a scripted server saw."""

    def __init__(self) -> None:
        self.port = 0
        self.scheme = "http"
        self.peers: list[Peer] = []
        self.requests: list[tuple[bytes, bytes]] = []

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"


Script = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def serve(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve each connection by a script; its end closes the connection."""
    seen = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        peer = Peer(len(seen.peers), reader, writer)
        seen.peers.append(peer)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await script(peer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    seen.scheme = "https" if tls else "http"
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def always(*replies: bytes) -> Script:
    """Give these replies to the requests of a connection, the last one for ever."""

    async def script(peer: Peer) -> None:
        for number in range(1_000_000):
            await peer.request()
            await peer.send(replies[min(number, len(replies) - 1)])

    return script


def once(reply: bytes) -> Script:
    """Answer one request, then close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply)

    return script


class Asker:
    """A client and the way to ask with it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def send(
        self, url: str, *, body: bytes = BODY, timeouts: Timeouts | None = None, tls: Tls | None = None
    ) -> Recorder:
        """Send a request; give its recorder, which has the call."""
        recorder = Recorder()
        pool = self.client.pool(url, tls or Tls())
        head = HEAD if body is BODY else HEAD.replace(b"length: 2", b"length: %d" % len(body))
        recorder.call = pool.send(head, body, timeouts or Timeouts(), recorder)
        recorder.is_sending = False
        return recorder

    async def ask(self, url: str, *, timeouts: Timeouts | None = None, tls: Tls | None = None) -> Recorder:
        """Send a request and wait for the end of its answer."""
        return await self.send(url, timeouts=timeouts, tls=tls).end()


@contextlib.asynccontextmanager
async def asking(
    *,
    limits: Limits | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Asker]:
    """Make a client, and close it at the end."""
    client = Client(asyncio.get_running_loop(), clock=clock, environ=environ or {}, limits=limits)
    try:
        yield Asker(client)
    finally:
        await client.close()


async def until(condition: Callable[[], bool], limit: float = 5.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.contextmanager
def hanging(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """An address that accepts no more connections, and refuses none; gives its port."""
    with contextlib.ExitStack() as stack:
        full, *fillers = (stack.enter_context(socket.socket()) for _ in range(4))
        full.bind((host, port))
        full.listen(0)
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]
