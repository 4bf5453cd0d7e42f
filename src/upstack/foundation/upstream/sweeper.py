"""The one timer of the client: it looks at the deadlines of all calls in flight, and at idle connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from upstack.core.errors import Failure, SupplyError
from upstack.foundation.upstream.call import HttpCall

FAST = 0.05  # seconds between looks while calls are in flight: deadlines are kept to about this
SLOW = 5.0  # while there are only idle connections


class Idler(Protocol):
    """Something with idle connections."""

    def sweep(self, now: float) -> bool:
        """Close what was idle for too long; say whether anything idle is left."""
        ...


class Sweeper:
    """Ends calls that take too long, and closes what is idle. `now` is the time of the last sweep or call."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        """Stand still until the first `wake`."""
        self.calls: set[HttpCall] = set()
        self.idlers: list[Idler] = []
        self.loop = loop
        self.clock = clock
        self.now = self._looked_at = clock()
        self.is_fast = False
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Look often from now on."""
        self.is_fast = True
        self.now = self._looked_at = self.clock()
        self._schedule(FAST)

    def stop(self) -> None:
        """Take the timer away."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self.is_fast = False

    def _schedule(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(delay, self._look)

    def _look(self) -> None:
        self.now = now = self.clock()
        elapsed, self._looked_at = now - self._looked_at, now
        self._timer = None
        self.is_fast = bool(self.calls)
        if self.is_fast:
            self._schedule(FAST)  # first of all, so that nothing a receiver does can stop the clock
        for call in list(self.calls):
            self._check(call, elapsed)
        idle = [idler.sweep(now) for idler in self.idlers]
        if any(idle) and not self.is_fast:
            self._schedule(SLOW)

    def _check(self, call: HttpCall, elapsed: float) -> None:
        now = self.now
        if call.is_over:
            return  # ended by what another call's receiver did in this same sweep
        if now >= call.ends:
            _expire(call, Failure.TOTAL_TIMEOUT, "no whole answer", call.timeouts.total)
        elif call.moved and not call.unheard:
            # Noted by the sweep and not at each arrival: reading a clock for every chunk would cost more than this.
            call.moved = False
            call.phase, call.expires = Failure.BETWEEN_BYTES_TIMEOUT, now + call.timeouts.between_bytes
        elif call.paused:
            call.expires += elapsed  # a caller that does not read is not the provider's stall
        elif now >= call.expires:
            what, limit = _overdue(call)
            _expire(call, call.phase, what, limit)


def _overdue(call: HttpCall) -> tuple[str, float]:
    if call.phase is Failure.CONNECT_TIMEOUT:
        return "no connection", call.timeouts.connect
    if call.phase is Failure.POOL_FULL:
        return "all the connections we allow were in use, and none came free", call.timeouts.connect
    if call.phase is Failure.FIRST_BYTE_TIMEOUT:
        what = "a stream without any content" if call.moved else "no byte of an answer"
        return what, call.timeouts.first_byte
    return "nothing more of the answer", call.timeouts.between_bytes


def _expire(call: HttpCall, failure: Failure, what: str, limit: float) -> None:
    call.fail(SupplyError(failure, f"{call.where}: {what} within {limit:g} s"))
