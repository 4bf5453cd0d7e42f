"""A ledger that cannot write, or hangs: what is answered then, what is asked of providers, what is told."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from pathlib import Path

import pytest

from tests.gateway.serving import Serving, chat, provider
from upstack.testing import Answer, EchoProvider, End, RawClient, ScriptedProvider

TEXT = "one two three"


def cannot_write(serving: Serving) -> None:
    """Let the writer's files not grow, as on a full disk."""
    _, most = resource.prlimit(serving.writer, resource.RLIMIT_FSIZE)
    resource.prlimit(serving.writer, resource.RLIMIT_FSIZE, (0, most))


def can_write(serving: Serving) -> None:
    """Make room again."""
    _, most = resource.prlimit(serving.writer, resource.RLIMIT_FSIZE)
    resource.prlimit(serving.writer, resource.RLIMIT_FSIZE, (most, most))


def metric(serving: Serving, name: str) -> float:
    """One number of /metrics; 0 where it is not there yet."""
    lines = serving.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_a_ledger_that_cannot_write_stops_the_asking(tmp_path: Path) -> None:
    """At most what was in flight is asked in vain; then requests are refused unasked, until there is room again."""
    with EchoProvider() as echo, Serving(tmp_path, provider("echo", echo.base_url)) as serving:
        assert serving.post(chat("echo/m")).status_code == 200
        cannot_write(serving)
        first = serving.post(chat("echo/m"))
        assert (first.status_code, first.json()["error"]["code"]) == (503, "ledger_unavailable")
        asked = echo.count
        for stream in (False, True):
            refused = serving.post(chat("echo/m", stream=stream))
            assert (refused.status_code, refused.json()["error"]["type"]) == (503, "ledger_error")
            assert "retry-after" in refused.headers
        assert echo.count == asked, "no provider is paid for what cannot be recorded"
        ready = serving.get("/readyz")
        assert ready.status_code == 503
        assert str(serving.ledger) in ready.text
        assert metric(serving, 'upstack_requests_total{route="echo/m"') == 1
        can_write(serving)
        while serving.get("/readyz").status_code != 200:
            time.sleep(0.02)
        while len(serving.rows("select 1 from receipts")) < 2:
            time.sleep(0.02)
        paid = serving.rows("select state, status, error, json_array_length(attempts) from receipts where seq = 2")
        assert paid == [("failed", 503, "ledger_unavailable", 1)], "the provider was asked, and wants its money"
        assert metric(serving, "upstack_receipts_dropped_total") == 0
        again = serving.post(chat("echo/m"))
        assert again.status_code == 200
        assert serving.receipt(again.headers["x-upstack-receipt"])["state"] == "answered"


@pytest.mark.parametrize(("queue", "kept"), [(1_000_000, 3), (1, 1)])
def test_best_effort_answers_and_counts_what_it_drops(tmp_path: Path, queue: int, kept: int) -> None:
    """Receipts that nobody waits for do not keep an answer back; they wait for room, as many as the queue takes."""
    config = f'[server]\nreceipts = "best-effort"\nledger_queue_bytes = {queue}\n'
    with EchoProvider() as echo, Serving(tmp_path, config + provider("echo", echo.base_url)) as serving:
        cannot_write(serving)
        for stream in (False, True, False):
            assert serving.post(chat("echo/m", stream=stream)).status_code == 200
        assert metric(serving, "upstack_receipts_dropped_total") == 3 - kept
        assert serving.get("/readyz").status_code == 200
        assert serving.rows("select count(*) from receipts") == [(0,)]
        can_write(serving)
        while len(serving.rows("select 1 from receipts")) < kept:
            time.sleep(0.02)
        assert serving.rows("select distinct state from receipts") == [("answered",)]


@pytest.mark.parametrize("writes_again", [True, False])
def test_no_byte_of_a_stream_goes_out_before_the_ledger_knows_of_it(tmp_path: Path, *, writes_again: bool) -> None:
    """While the writer hangs a stream is held; it then flows whole, or is refused if it cannot be recorded."""
    with EchoProvider() as echo, Serving(tmp_path, provider("echo", echo.base_url)) as serving:

        async def run() -> None:
            async with RawClient(serving.port) as caller:
                os.kill(serving.writer, signal.SIGSTOP)
                await caller.post(chat("echo/m", TEXT, stream=True))
                while not echo.count:
                    await asyncio.sleep(0.01)
                held = await caller.read(0.3)
                assert (held.end, held.status) == (End.SILENT, 0)
                if not writes_again:
                    cannot_write(serving)
                os.kill(serving.writer, signal.SIGCONT)
                told = await caller.read()
                if writes_again:
                    assert (told.text, told.events[-1]) == (TEXT, b"[DONE]")
                    assert serving.rows("select state from receipts") == [("answered",)]
                else:
                    assert (told.status, told.json()["error"]["type"]) == (503, "ledger_error")

        asyncio.run(run())


def test_the_receipt_of_a_caller_who_left_is_kept_when_the_queue_is_full(tmp_path: Path) -> None:
    """What it asked for may be billed, so its receipt is not one of those that may be dropped."""
    slow = Answer(TEXT, first_byte_delay_s=20.0)
    with EchoProvider() as echo, ScriptedProvider(lambda _: slow) as late:
        config = "[server]\nledger_queue_bytes = 1\n" + provider("echo", echo.base_url)
        config += provider("late", late.base_url).replace("first_byte = 1", "first_byte = 20")

        async def run() -> None:
            async with RawClient(serving.port) as waiting:
                async with RawClient(serving.port) as leaving:
                    await leaving.post(chat("late/m"))
                    while not late.count:
                        await asyncio.sleep(0.01)
                    os.kill(serving.writer, signal.SIGSTOP)
                    await waiting.post(chat("echo/m"))
                    while metric(serving, "upstack_ledger_queue_bytes") == 0:
                        await asyncio.sleep(0.01)
                while metric(serving, "upstack_in_flight") > 1:
                    await asyncio.sleep(0.01)
                os.kill(serving.writer, signal.SIGCONT)
                assert (await waiting.read()).status == 200

        with Serving(tmp_path, config) as serving:
            asyncio.run(run())
            while len(serving.rows("select 1 from receipts")) < 2:
                time.sleep(0.02)
            assert metric(serving, "upstack_receipts_dropped_total") == 0
            assert sorted(serving.rows("select state from receipts")) == [("answered",), ("cancelled",)]


def test_without_receipts_none_is_named(tmp_path: Path) -> None:
    """Where none are kept an answer names none, and asking for one says why there is none."""
    config = '[server]\nreceipts = "off"\n'
    with EchoProvider() as echo, Serving(tmp_path, config + provider("echo", echo.base_url)) as serving:
        answer = serving.post(chat("echo/m"))
        assert (answer.status_code, answer.headers["x-upstack-route"]) == (200, "echo/m")
        assert "x-upstack-receipt" not in answer.headers
        asked = serving.get("/v1/receipts/rcpt_x")
        assert (asked.status_code, asked.json()["error"]["code"]) == (404, "receipt_not_found")
        assert 'server.receipts is "off"' in asked.json()["error"]["message"]
