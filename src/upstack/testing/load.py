"""A client that asks as fast as it is answered, over many connections, at little cost of its own."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import httptools
import msgspec


class Answered(msgspec.Struct, gc=False):
    """What became of one request; status 0: no answer, not a whole one, or one whose length nothing told."""

    index: int
    status: int
    seconds: float
    headers: dict[bytes, bytes]  # names in lower case
    body: bytes


class LoadReport(msgspec.Struct):
    """What became of all of them."""

    statuses: Counter[int]  # 0: no whole answer
    seconds: list[float]  # of each answered request, ascending
    elapsed_s: float

    def quantile_s(self, share: float) -> float:
        """The time within which this share of the answers came, in seconds; 0 without any."""
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))] if self.seconds else 0.0


class LoadClient:
    """Sends requests over `connections` kept connections, one at a time on each; connects again where one breaks.

    `on_answer` is called with each answer; without it bodies are not kept.
    """

    def __init__(
        self,
        port: int,
        *,
        connections: int = 16,
        host: str = "127.0.0.1",
        on_answer: Callable[[Answered], None] | None = None,
    ) -> None:
        self._address = (host, port)
        self._count = connections
        self._on_answer = on_answer
        self._requests: Iterator[tuple[int, bytes]] = iter(())
        self._report = LoadReport(Counter(), [], 0.0)

    async def run(self, requests: Iterable[bytes]) -> LoadReport:
        """Send every request (see `post_bytes`) and wait for what becomes of it; OSError where nobody listens."""
        self._requests = enumerate(requests)
        self._report = LoadReport(Counter(), [], 0.0)
        started = time.perf_counter()
        await asyncio.gather(*[self._keep_asking() for _ in range(self._count)])
        self._report.elapsed_s = time.perf_counter() - started
        self._report.seconds.sort()
        return self._report

    def record(self, answer: Answered) -> None:
        """Take an answer from a connection."""
        self._report.statuses[answer.status] += 1
        if answer.status:
            self._report.seconds.append(answer.seconds)
        if self._on_answer is not None:
            self._on_answer(answer)

    async def _keep_asking(self) -> None:
        loop = asyncio.get_running_loop()
        more = True
        while more:
            over: asyncio.Future[bool] = loop.create_future()
            keep = self._on_answer is not None
            asker = _Asker(self._requests, self.record, over, keep_body=keep)
            transport, _ = await loop.create_connection(functools.partial(_same, asker), *self._address)
            try:
                more = await over
            finally:
                transport.close()


def _same(asker: _Asker) -> _Asker:
    return asker


class _Asker(asyncio.Protocol):
    """One connection of it. `over` becomes whether there may be more to ask."""

    def __init__(
        self,
        requests: Iterator[tuple[int, bytes]],
        record: Callable[[Answered], None],
        over: asyncio.Future[bool],
        *,
        keep_body: bool,
    ) -> None:
        self._requests = requests
        self._record = record
        self._over = over
        self._keep_body = keep_body
        self._index = -1  # of the request that waits for its answer; -1: none
        self._started = 0.0
        self._parser: Any = None
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        if self._index >= 0:
            self._settle(0)
        if not self._over.done():
            self._over.set_result(True)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._keep_body:
            self._headers[name.lower()] = value

    def on_body(self, data: bytes) -> None:
        if self._keep_body:
            self._body.append(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._settle(status)
        if self._parser.should_keep_alive():
            self._ask()
        else:
            self._transport.close()

    def _ask(self) -> None:
        self._index, request = next(self._requests, (-1, b""))
        if self._index < 0:
            if not self._over.done():
                self._over.set_result(False)
            return
        self._parser = httptools.HttpResponseParser(self)
        self._headers, self._body = {}, []
        self._started = time.perf_counter()
        self._transport.write(request)

    def _settle(self, status: int) -> None:
        index, self._index = self._index, -1
        took = time.perf_counter() - self._started
        self._record(Answered(index, status, took, self._headers, b"".join(self._body)))
