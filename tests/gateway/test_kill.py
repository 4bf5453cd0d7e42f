"""kill -9 of the gateway at random moments under load: nothing that was answered is without its receipt."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

import pytest

from tests.gateway.serving import Serving, chat, provider
from upstack.testing import Answer, ScriptedProvider

CALLERS = 8
READY_S = 2.0


class Load:
    """Callers that ask, plain and streamed in turn, and note the receipt of every answer that began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.answered = 0  # those that came whole
        self.port = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CALLERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        connection: HTTPConnection | None = None
        turn = number
        while not self._stop.is_set():
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
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
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


@pytest.mark.parametrize(("kills", "soak"), [(20, False), pytest.param(200, True, marks=pytest.mark.soak)])
@pytest.mark.timeout(1800)
def test_no_answered_request_is_without_a_receipt(
    tmp_path: Path, echo: ScriptedProvider, kills: int, *, soak: bool
) -> None:
    """Every answer that began has its row, and no stream is left open. The soak also holds each start to two seconds.

    The suite only tells how long the slowest took: it runs on machines that do other work, where a start takes longer.
    Half of the kills hit the ledger's writer as well, so that nothing in its socket survives.
    """
    rng = random.Random(11)
    ready: list[float] = []
    serving = Serving(tmp_path, provider("echo", echo.base_url)).start()
    with Load() as load:
        load.port = serving.port
        for _ in range(kills):
            time.sleep(rng.uniform(0.05, 0.5))
            serving.kill(writer=rng.random() < 0.5)
            begun = time.monotonic()
            serving.start()
            while serving.get("/readyz").status_code != 200:
                time.sleep(0.005)
            ready.append(time.monotonic() - begun)
            load.port = serving.port
    assert serving.stop() == 0
    with contextlib.closing(sqlite3.connect(serving.ledger)) as database:
        recorded = {row[0] for row in database.execute("select id from receipts")}
        cut = database.execute("select count(*) from receipts where error = 'gateway_restarted'").fetchone()[0]
        open_streams = database.execute("select count(*) from openings").fetchone()[0]
        intact = database.execute("pragma integrity_check").fetchone()[0]
    missing = [receipt for receipt in load.begun if receipt not in recorded]
    sys.stdout.write(
        f"{kills} kills, {load.answered} answered, {len(missing)} begun or answered without a receipt, "
        f"{cut} streams closed as truncated, ready after {max(ready):.2f} s at most\n"
    )
    assert load.answered > 5 * kills
    assert missing == []
    assert cut > 0, "no kill ever hit a stream: this test would prove nothing about them"
    assert intact == "ok"
    assert open_streams == 0
    if soak:
        assert max(ready) < READY_S
