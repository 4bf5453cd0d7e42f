"""kill -9 of whatever there is at random moments under load: nothing that was answered is without its receipt."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from tests.gateway.callers import Callers
from tests.gateway.serving import Serving, chat, provider
from tests.gateway.test_workers import named
from tests.postgres import PostgresServer
from upstack.application.gateway.auth import new_key
from upstack.core.store.engine import transaction
from upstack.core.store.verify import verify
from upstack.testing import Answer, ScriptedProvider

SECRET, HASH = new_key()
KEY = f'[keys.load]\nhash = "{HASH}"\nbudget_usd = {{ day = 1000 }}\nrate = {{ parallel_requests = 1000 }}\n'
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {SECRET}"}
READY_S = 2.0


class Load(Callers):
    """Callers that ask, plain and streamed in turn, and note the receipt of every answer that began."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []
        self.answered = 0  # those that came whole
        self.port = 0

    def run(self, number: int) -> None:
        """Ask, plain and streamed in turn."""
        connection: HTTPConnection | None = None
        turn = number
        while not self.stopping.is_set():
            if connection is None or connection.port != self.port:
                connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
            turn += 1
            try:
                self._ask(connection, stream=turn % 2 == 0)
            except (OSError, HTTPException):  # killed under us: not answered
                connection.close()
                connection = None
                time.sleep(0.005)

    def _ask(self, connection: HTTPConnection, *, stream: bool) -> None:
        body = json.dumps(chat("echo/m", "what is answered is recorded", stream=stream))
        connection.request("POST", "/v1/chat/completions", body, HEADERS)
        answer = connection.getresponse()
        if answer.status == 200:
            self.begun.append(answer.headers["x-upstack-receipt"])
        whole = answer.read()
        if answer.status == 200 and (not stream or whole.endswith(b"data: [DONE]\n\n")):
            self.answered += 1


@pytest.fixture
def echo() -> Iterator[ScriptedProvider]:
    """A provider whose streams last long enough to be cut."""
    slow = Answer("a b c d", chunks=("a ", "b ", "c ", "d"), between_chunks_s=0.01)
    with ScriptedProvider(lambda _: slow) as fake:
        yield fake


KILLS = [
    ("sqlite", 20),
    ("postgres", 5),
    pytest.param("sqlite", 1000, marks=pytest.mark.soak),
    pytest.param("postgres", 100, marks=pytest.mark.soak),
]
ALONE = ("gateway", "gateway and writer", "writer")
TOGETHER = ("worker", "supervisor", "writer")


@pytest.mark.parametrize(("kind", "kills"), KILLS)
@pytest.mark.timeout(3600)
def test_no_answered_request_is_without_a_receipt(
    tmp_path: Path, echo: ScriptedProvider, request: pytest.FixtureRequest, kind: str, kills: int
) -> None:
    """Whatever is killed, and whenever: every answer that began has its row once, the chain and the sums are whole.

    At first one process serves, then two workers. In PostgreSQL the server is killed, too. The soak also holds each
    start to two seconds; the suite only tells how long the slowest took, as it runs where other work is done.
    """
    rng = random.Random(11)
    server: PostgresServer | None = request.getfixturevalue("postgres") if kind == "postgres" else None
    place = str(tmp_path / "upstack.db") if server is None else server.new_ledger()
    config = provider("echo", echo.base_url) + KEY + '[prices."echo/m"]\ninput = 1\noutput = 2\n'
    ready: list[float] = []
    hit: Counter[str] = Counter()
    with Load() as load:
        for flags, victims, count in (((), ALONE, kills - kills // 2), (("--workers", "2"), TOGETHER, kills // 2)):
            serving = Serving(tmp_path, config, "--ledger", place, *flags).start()
            load.port = serving.port
            for _ in range(count):
                time.sleep(rng.uniform(0.05, 0.5))
                victim = rng.choice((*victims, "server") if server is not None else victims)
                hit[victim] += 1
                ready.append(_kill(victim, serving, server))
                load.port = serving.port
            assert serving.stop() == 0
    recorded = [row[0] for row in _ask(place, "select id from receipts")]
    cut = _ask(place, "select count(*) from receipts where error = 'gateway_restarted'")[0][0]
    (sums,) = _ask(place, "select sum(attempts), sum(cost_picodollars) from spend")
    found = verify(place)
    missing = set(load.begun) - set(recorded)
    sys.stdout.write(
        f"{kind}, {kills} kills ({', '.join(f'{name} {count}' for name, count in sorted(hit.items()))}): "
        f"{load.answered:,} answered, {len(missing)} begun or answered without a receipt, {cut:,} streams closed as "
        f"truncated, {found.found} findings in {found.receipts:,} receipts, ready after {max(ready):.2f} s at most\n"
    )
    assert load.answered > 5 * kills
    assert missing == set()
    assert len(recorded) == len(set(recorded)) == found.receipts
    assert found.found == 0
    assert cut > 0, "no kill ever hit a stream: this test would prove nothing about them"
    assert _ask(place, "select count(*) from openings") == [(0,)]
    assert tuple(map(int, sums)) == _summed(place)
    if server is None:
        assert _ask(place, "pragma integrity_check") == [("ok",)]
    if kills > 20:
        assert max(ready) < READY_S


def _kill(victim: str, serving: Serving, server: PostgresServer | None) -> float:
    """Kill -9, and wait until requests are taken again: seconds from when the next could start."""
    if victim == "server":
        assert server is not None
        server.kill()
        server.start()
    elif victim in {"writer", "worker"}:
        for pid in named(serving, "store.writer" if victim == "writer" else "gateway.worker")[:1]:
            os.kill(pid, signal.SIGKILL)
    else:
        writer = named(serving, "store.writer") if victim == "gateway and writer" else []
        for pid in [*writer, serving.process.pid]:
            os.kill(pid, signal.SIGKILL)
        serving.process.wait(20)
        begun = time.monotonic()
        serving.start()
        return _until_ready(serving, begun)
    return _until_ready(serving, time.monotonic())


def _until_ready(serving: Serving, begun: float) -> float:
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if serving.get("/readyz").status_code == 200:
                return time.monotonic() - begun
        time.sleep(0.005)


def _ask(place: str, query: str) -> list[Any]:
    with transaction(place) as database:
        return [tuple(row) for row in database.execute(sa.text(query)).all()]


def _summed(place: str) -> tuple[int, int]:
    """Attempts and their known cost, counted from the receipts themselves."""
    attempts = [each for (text,) in _ask(place, "select attempts from receipts") for each in json.loads(text)]
    return len(attempts), sum(each.get("cost_picodollars") or 0 for each in attempts)
