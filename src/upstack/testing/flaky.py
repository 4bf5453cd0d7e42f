"""The provider that fails in one chosen way."""

from __future__ import annotations

import random
from collections.abc import Iterable

from upstack.testing.answers import ChatRequest
from upstack.testing.broken_content import CONTENT_PLAYERS
from upstack.testing.broken_http import HTTP_PLAYERS
from upstack.testing.case import Case, Options
from upstack.testing.faults import Fault
from upstack.testing.providers import EchoProvider
from upstack.testing.wire import Step

_PLAYERS = HTTP_PLAYERS | CONTENT_PLAYERS


class FlakyProvider(EchoProvider):
    """Fails in one way in a `share` of its requests, drawn by `seed` in their order, and echoes in the rest.

    `tokens_before` pieces of content (0 and more) come before a fault that strikes in the middle of a stream.
    `retry_after_s` goes into Retry-After. `pause_s` is the wait of LATENCY (0.2 s unless given) and between the bytes
    of SLOW_DRIP (0.001 s), a pair is a range to draw from. `size_bytes` is that of the floods and HUGE_EVENT.
    `failed` counts the requests it failed. ValueError for REFUSED with a share: it strikes connections, not requests;
    call `refuse` and `accept` instead.
    """

    def __init__(
        self,
        fault: Fault | str,
        *,
        share: float = 1.0,
        seed: int = 0,
        tokens_before: int = 3,
        retry_after_s: float = 1.0,
        pause_s: float | tuple[float, float] | None = None,
        size_bytes: int | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port=port)
        self.fault = fault if isinstance(fault, Fault) else Fault.named(fault)
        self.listens = self.fault is not Fault.REFUSED
        if not self.listens and share < 1.0:
            raise ValueError("REFUSED strikes all connections; call refuse() and accept() for a share of the time")
        self.failed = 0
        self._share = share
        self._rng = random.Random(seed)
        if pause_s is None:
            pause_s = 0.2 if self.fault is Fault.LATENCY else 0.001
        self._options = Options(tokens_before, retry_after_s, pause_s, size_bytes)

    def chat(self, request: ChatRequest) -> bytes | Iterable[Step]:
        """Fail, or echo."""
        player = _PLAYERS.get(self.fault)
        if player is None or self._rng.random() >= self._share:
            return super().chat(request)
        self.failed += 1
        return player(Case(request, self.reply(request), self._options, self._rng))

    def before_content(self, *, stream: bool) -> bool:
        """Whether the fault strikes before the first content, at this `tokens_before`."""
        if stream and self.fault.before_content(stream=False) and self._options.tokens_before == 0:
            return True
        return self.fault.before_content(stream=stream)
