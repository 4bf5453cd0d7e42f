"""The base of all fake providers: a real HTTP server on loopback, in a thread and event loop of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from upstack.testing.answers import ChatRequest
from upstack.testing.connection import Connection, Recorded
from upstack.testing.wire import Step, error_response, response

_HOST = "127.0.0.1"
_BACKLOG = 2048
_STOP_S = 5.0
_KEEP_BYTES = 64 * 1024 * 1024  # of recorded bodies
_KEEP_REQUESTS = 10_000

T = TypeVar("T")


class FakeProvider:
    """Speaks the chat completions wire format on 127.0.0.1; what it answers is up to `chat` of its subclasses.

    A context manager for synchronous and asynchronous tests alike: it runs in its own thread, from `start` to `stop`.
    Leaving the context raises what a subclass's `chat` raised, unless the test failed anyway. `port` 0 is any free one.
    """

    models: tuple[str, ...] = ("echo-1", "echo-reason")
    write_buffer: int = 64 * 1024  # bytes the transport holds before an answer waits for its reader
    listens: bool = True  # from `start` on; else from `accept` on

    def __init__(self, *, port: int = 0) -> None:
        self._wanted_port = port
        self._bound: socket.socket | None = None  # bound and not listening: holds the port while it refuses
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._connections: set[Connection] = set()
        self._requests: deque[Recorded] = deque(maxlen=_KEEP_REQUESTS)
        self._kept_bytes = 0
        self._decoder = msgspec.json.Decoder(ChatRequest)
        self.port = 0
        self.count = 0  # chat requests so far
        self.connections = 0  # connections so far
        self.disconnects: list[float] = []  # monotonic times at which clients left before their answer was over
        self.errors: list[Exception] = []  # what `chat` raised

    def chat(self, request: ChatRequest) -> bytes | Iterable[Step]:
        """Answer a chat request: a whole HTTP answer, or the steps to play it in. Called on the provider's loop."""
        raise NotImplementedError

    @property
    def base_url(self) -> str:
        """What a client takes for its base URL."""
        return f"http://{_HOST}:{self.port}/v1"

    @property
    def requests(self) -> list[Recorded]:
        """The requests so far, oldest first; the latest 10,000 and at most 64 MiB of bodies are kept."""
        return list(self._requests.copy())

    @property
    def open_connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    def start(self) -> Self:
        """Listen; OSError where the port is taken."""
        if self._thread is not None:
            raise RuntimeError("this provider runs already")
        self._bound = _bind(self._wanted_port)
        self.port = self._bound.getsockname()[1]
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name=f"fake-{self.port}", daemon=True)
        self._thread.start()
        if self.listens:
            self.accept()
        return self

    def stop(self) -> None:
        """Cut every connection and end the thread. Harmless when it has stopped."""
        if self._thread is None or self._loop is None:
            return
        self._in_loop(self._shut)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        if self._thread.is_alive():
            raise RuntimeError(f"the fake provider on port {self.port} did not stop within {_STOP_S} s")
        if self._bound is not None:
            self._bound.close()
        self._thread = self._loop = self._bound = None

    def refuse(self) -> None:
        """Refuse new connections and cut the open ones; the port stays ours."""
        self._in_loop(self._shut)
        if self._bound is None:
            self._bound = _bind(self.port)

    def accept(self) -> None:
        """Listen (again)."""
        if self._bound is not None:
            bound, self._bound = self._bound, None
            assert self._loop is not None
            asyncio.run_coroutine_threadsafe(self._listen(bound), self._loop).result(_STOP_S)

    def serve_forever(self) -> None:
        """Run in the foreground until SIGINT or SIGTERM; the base URL is printed on the first line of stdout."""
        stop = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # before the thread starts, which inherits it
        self.start()
        sys.stdout.write(f"{self.base_url}\n")
        sys.stdout.flush()
        signal.sigwait(stop)
        self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None and self.errors:
            raise self.errors[0]

    # What connections call, on the loop.

    def answer(self, request: Recorded) -> bytes | Iterable[Step]:
        """Record a request and choose its answer."""
        self._record(request)
        path = request.path.partition("?")[0]
        if path.endswith("/chat/completions"):
            if request.method != "POST":
                return error_response(405, f"{request.method} is not allowed here", [("allow", "POST")])
            return self._chat(request.body)
        if path.endswith("/models") and request.method == "GET":
            rows = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in self.models]
            return response(200, msgspec.json.encode({"object": "list", "data": rows}))
        return error_response(404, f"no such path: {path}", code="not_found")

    def opened(self, connection: Connection) -> int:
        """Count a new connection."""
        self._connections.add(connection)
        self.connections += 1
        connection.limit(self.write_buffer)
        return self.connections

    def closed(self, connection: Connection, hung_up: bool) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if hung_up:
            self.disconnects.append(time.monotonic())

    def _chat(self, body: bytes) -> bytes | Iterable[Step]:
        self.count += 1
        try:
            request = self._decoder.decode(body)
        except msgspec.DecodeError as error:
            return error_response(400, f"the body is not a chat request: {error}")
        try:
            return self.chat(request)
        except Exception as error:  # noqa: BLE001  a test's own function: kept, and raised where the test sees it
            self.errors.append(error)
            return error_response(500, f"the fake's own code raised {type(error).__name__}")

    def _record(self, request: Recorded) -> None:
        kept = self._requests
        if len(kept) == _KEEP_REQUESTS:
            self._kept_bytes -= len(kept.popleft().body)
        kept.append(request)
        self._kept_bytes += len(request.body)
        while self._kept_bytes > _KEEP_BYTES:
            self._kept_bytes -= len(kept.popleft().body)

    # The loop's life.

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:
            with contextlib.suppress(OSError):  # uvloop may find a handle busy that a caller tore down just now
                loop.close()

    async def _listen(self, bound: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self, loop), sock=bound, backlog=_BACKLOG)

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.abort()

    def _in_loop(self, function: Callable[[], T]) -> T:
        """Call a function on the provider's loop and wait for what it returns."""
        assert self._loop is not None, "the provider does not run"
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def call() -> None:
            try:
                done.set_result(function())
            except BaseException as error:  # noqa: BLE001  handed to the thread that waits
                done.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return done.result(_STOP_S)


class Blackhole:
    """A port on which connections neither succeed nor fail: what a connect timeout is for. A context manager.

    The queue of a listening socket that nobody accepts from is filled, so that the kernel drops what comes after
    (Linux; elsewhere connections may succeed and stay silent).
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self.port = 0

    @property
    def base_url(self) -> str:
        """What a client takes for its base URL."""
        return f"http://{_HOST}:{self.port}/v1"

    def __enter__(self) -> Self:
        listening = _bind(0)
        listening.listen(0)
        self.port = listening.getsockname()[1]
        self._sockets.append(listening)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((_HOST, self.port))
            self._sockets.append(filler)
        time.sleep(0.02)  # until the kernel has queued what fits
        return self

    def __exit__(self, *exc: object) -> None:
        for each in self._sockets:
            each.close()
        self._sockets.clear()


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((_HOST, port))
    except OSError:
        bound.close()
        raise
    return bound


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - it is not there on Windows
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
