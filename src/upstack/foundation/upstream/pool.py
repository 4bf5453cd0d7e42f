"""The connections to one origin: lent out newest first, opened up to a limit, closed when idle for long."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import cast

import msgspec

from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Timeouts
from upstack.foundation.backends.base import Receiver
from upstack.foundation.upstream.call import HttpCall
from upstack.foundation.upstream.connect import connect
from upstack.foundation.upstream.connection import Connection
from upstack.foundation.upstream.origin import Origin
from upstack.foundation.upstream.sweeper import Sweeper
from upstack.foundation.upstream.tls import Contexts


class Limits(msgspec.Struct, frozen=True):
    """How many connections an origin gets, and for how many seconds one is kept without use."""

    connections: int = 1024  # above it calls wait their turn
    idle: int = 512
    idle_s: float = 50.0  # below the 60 s after which many servers close


class Pool:
    """Connections to `origin`. Calls that find none wait in order, and take whichever is there first: new or freed."""

    def __init__(self, origin: Origin, sweeper: Sweeper, contexts: Contexts, limits: Limits) -> None:
        """Start without a connection."""
        self.origin = origin
        self._where = origin.where
        self._loop = sweeper.loop
        self._sweeper = sweeper
        self._limits = limits
        self._contexts = contexts
        self._idle: list[Connection] = []  # the one idle for longest first
        self._waiting: OrderedDict[HttpCall, tuple[bytes, bytes]] = OrderedDict()  # with head and body
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def send(self, head: bytes, body: bytes, timeouts: Timeouts, receiver: Receiver) -> HttpCall:
        """Send a request, over an idle connection right now or over a new one soon."""
        sweeper = self._sweeper
        sweeper.now = now = sweeper.clock()
        call = HttpCall(sweeper.calls, self._where, timeouts, receiver, now)
        if not sweeper.is_fast:
            sweeper.wake()
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                connection.start(call, head, body, now)
                return call
        self._wait(call, head, body, now)
        return call

    # --- for connections and waiting calls ---

    def release(self, connection: Connection) -> None:
        """Lend a connection on to whoever waits longest, or keep it."""
        sweeper = self._sweeper
        if self._waiting:
            call, (head, body) = self._waiting.popitem(last=False)
            connection.start(call, head, body, sweeper.clock())
        elif self._is_closed or len(self._idle) >= self._limits.idle:
            connection.close()
        else:
            connection.idle_since = sweeper.now
            self._idle.append(connection)
            if not sweeper.is_fast:
                sweeper.wake()

    def forget(self, connection: Connection) -> None:
        """Drop a closed connection; another may be opened in its place."""
        self._connections.discard(connection)
        if connection.call is None and connection in self._idle:
            self._idle.remove(connection)
        self._refill()

    def drop(self, call: HttpCall) -> None:
        """Forget a call that waits no longer."""
        self._waiting.pop(call, None)

    def pause(self) -> None:
        """Nothing to stop yet: the connection looks at `call.paused` when it starts."""

    def resume(self) -> None:
        """Nothing was stopped."""

    # --- for the client ---

    def sweep(self, now: float) -> bool:
        """Close connections that were idle for too long; say whether any idle one is left."""
        idle, limit = self._idle, self._limits.idle_s
        while idle and now - idle[0].idle_since > limit:
            idle[0].close()
        return bool(idle)

    async def close(self) -> None:
        """Close every connection, and stop opening more."""
        self._is_closed = True
        for task in self._opening:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.gather(*self._opening, return_exceptions=True)

    # --- inside ---

    @property
    def _is_full(self) -> bool:
        return len(self._connections) >= self._limits.connections

    def _wait(self, call: HttpCall, head: bytes, body: bytes, now: float) -> None:
        call.link = self
        call.phase = Failure.POOL_FULL if self._is_full else Failure.CONNECT_TIMEOUT
        call.expires = now + call.timeouts.connect
        self._waiting[call] = (head, body)
        if self._is_closed:
            self._loop.call_soon(call.fail, SupplyError(Failure.REFUSED, f"{self._where}: the client is closed"))
        self._open(call.timeouts.connect)

    def _refill(self) -> None:
        if self._waiting:
            self._open(next(iter(self._waiting)).timeouts.connect)

    def _open(self, limit: float) -> None:
        """Start opening a connection, unless enough are being opened or there are as many as there may be."""
        opening = self._opening
        enough = len(opening) >= len(self._waiting) or len(opening) + len(self._connections) >= self._limits.connections
        if enough or self._is_closed:
            return
        task = self._loop.create_task(self._connect(limit))
        opening.add(task)
        task.add_done_callback(opening.discard)

    async def _connect(self, limit: float) -> None:
        """Open one connection and lend it out. If that fails, so does the call that waits longest."""
        error = None
        try:
            async with asyncio.timeout(limit):
                connection = await connect(self.origin, self._contexts, lambda: Connection(self, self._loop))
        except TimeoutError:
            error = SupplyError(Failure.CONNECT_TIMEOUT, f"{self._where}: no connection within {limit:g} s")
        except SupplyError as refused:
            error = refused
        else:
            if not connection.is_usable():
                error = SupplyError(Failure.REFUSED, f"{self._where}: the connection was closed at once")
        self._opening.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        if error is None:
            self._connections.add(connection)
            self.release(connection)
            if self._is_full:  # who waits on does so for our limit, not for the provider
                for call in self._waiting:
                    call.phase = Failure.POOL_FULL
        elif len(self._waiting) > len(self._opening):  # otherwise attempts under way may still serve them all
            call, _ = self._waiting.popitem(last=False)
            call.fail(error)
        self._refill()
