"""Several processes on one port: one budget, one ledger, one set of metrics, and whatever dies comes again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import plain
from tests.gateway.serving import Serving, chat, provider
from upstack.application.gateway.auth import new_key
from upstack.application.gateway.workers import QUICK_MOST
from upstack.core.store.verify import verify
from upstack.testing import Answer, EchoProvider, ScriptedProvider, error_response
from upstack.testing.providers import Script

CENT = 10**10
APP, APP_HASH = new_key()
BEARER = {"authorization": f"Bearer {APP}"}
PRICE = '[prices."fake/m"]\ninput = 0.0\noutput = 10000.0\n'


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[[str], Serving]]:
    """Starts a gateway of four workers with this configuration."""
    running: list[Serving] = []

    def start(config: str) -> Serving:
        running.append(Serving(tmp_path, config, "--workers", "4").start())
        return running[-1]

    yield start
    for each in running:
        each.stop()
        assert children(each.process.pid) == []


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def named(serving: Serving, module: str) -> list[int]:
    """The processes below its own that run a module."""
    found = []
    below = children(serving.process.pid)
    for child in [*below, *(each for one in below for each in children(one))]:
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except FileNotFoundError:
            continue
        if module.encode() in command:
            found.append(child)
    return found


async def ask_many(serving: Serving, requests: int, clients: int, model: str = "fake/m") -> list[tuple[int, str]]:
    """Status and receipt of each request, over connections of their own, so that all workers have some."""
    waiting = iter(range(requests))

    async def client() -> list[tuple[int, str]]:
        answers = []
        for _ in waiting:
            async with plain.async_client(timeout=20) as http:
                try:
                    body = chat(model, max_tokens=1)
                    answer = await http.post(f"{serving.url}/v1/chat/completions", json=body, headers=BEARER)
                except httpx2.HTTPError:
                    continue
            answers.append((answer.status_code, answer.headers.get("x-upstack-receipt", "")))
        return answers

    return [answer for answers in await asyncio.gather(*(client() for _ in range(clients))) for answer in answers]


def metric(serving: Serving, sample: str) -> float:
    """The value of a sample that begins so."""
    page = plain.get(f"{serving.url}/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(sample))


@pytest.mark.parametrize(("used", "most"), [(1, 100), (3, 100 + 64 * 2)])
def test_four_workers_share_a_budget(workers: Callable[[str], Serving], used: int, most: int) -> None:
    """A dollar, a cent a request, 64 clients: not a cent more, but for what answers took beyond what was held."""
    with ScriptedProvider(lambda _: Answer("x", output_tokens=used, delay_s=0.02)) as fake:
        key = f'[keys.app]\nhash = "{APP_HASH}"\nbudget_usd = {{ day = 1.0 }}\n'
        serving = workers(key + PRICE + provider("fake", fake.base_url))
        answers = Counter(status for status, _ in asyncio.run(ask_many(serving, 300, 64)))
        assert set(answers) == {200, 402}
        ((cost, requests),) = serving.rows("SELECT sum(cost_picodollars), sum(requests) FROM spend")
        assert requests == 300
        assert cost == answers[200] * used * CENT
        assert 100 <= cost / CENT <= most
        if used == 1:
            assert answers == {200: 100, 402: 200}
    assert verify(str(serving.ledger)).found == 0


def test_four_workers_share_rates(workers: Callable[[str], Serving]) -> None:
    """So many at once and so many a minute, whichever worker is asked."""
    with ScriptedProvider(lambda _: Answer("x", delay_s=0.3)) as fake:
        key = f'[keys.app]\nhash = "{APP_HASH}"\nrate = {{ parallel_requests = 5, requests_per_minute = 12 }}\n'
        serving = workers(key + provider("fake", fake.base_url))
        at_once = Counter(status for status, _ in asyncio.run(ask_many(serving, 40, 40)))
        assert at_once[200] == 5
        one_by_one = Counter(status for status, _ in asyncio.run(ask_many(serving, 30, 4)))
        assert at_once[200] + one_by_one[200] == 12


def test_whatever_is_killed_comes_again_and_no_answer_is_without_a_receipt(workers: Callable[[str], Serving]) -> None:
    """Workers and the writer, under load; what counts goes on counting."""
    with EchoProvider() as fake:
        serving = workers(provider("fake", fake.base_url))
        answered: list[str] = []
        counted = 0.0
        for round_ in range(4):
            with ThreadPoolExecutor(1) as pool:
                load = pool.submit(asyncio.run, ask_many(serving, 150, 16))
                time.sleep(0.15)
                victims = named(serving, "gateway.worker" if round_ % 2 == 0 else "store.writer")
                os.kill(victims[0], signal.SIGKILL)
                answers = load.result(60)
            answered += [receipt for status, receipt in answers if status == 200]
            assert all(status in {200, 503} for status, _ in answers)
            time.sleep(0.6)
            now = metric(serving, "upstack_requests_total")
            assert now >= counted
            counted = now
        kept = {row[0] for row in serving.rows("SELECT id FROM receipts")}
        assert len(answered) > 400
        assert [receipt for receipt in answered if receipt not in kept] == []
        assert len(named(serving, "gateway.worker")) == 4
    assert verify(str(serving.ledger)).found == 0


def test_the_streams_of_a_worker_that_died_are_truncated_at_once(workers: Callable[[str], Serving]) -> None:
    """Not only when the gateway starts again; what its worker held of a budget is booked, as it may have been paid."""
    with EchoProvider(between_chunks_s=0.2) as fake:
        key = f'[keys.app]\nhash = "{APP_HASH}"\nbudget_usd = {{ day = 0.06 }}\n'
        serving = workers(key + PRICE + provider("fake", fake.base_url))
        receipt = broken_stream(serving, chat("fake/m", "word " * 50, stream=True, max_tokens=3))
        found = eventually(lambda: serving.rows(f"SELECT state, error FROM receipts WHERE id = '{receipt}'"))
        assert found == [("truncated", "gateway_restarted")]
        eventually(lambda: len(named(serving, "gateway.worker")) == 4 and serving.log.count("is started again") == 4)
        answers = [eventually(lambda: status(serving)) for _ in range(2)]
        assert answers == [200, 402]


def broken_stream(serving: Serving, body: dict[str, Any]) -> str:
    """Begin a stream, kill every worker, and see the stream end: its receipt."""
    url = f"{serving.url}/v1/chat/completions"
    with plain.stream("POST", url, json=body, headers=BEARER, timeout=10) as stream:
        pieces = stream.iter_bytes()
        next(pieces)
        receipt = stream.headers["x-upstack-receipt"]
        assert serving.rows("SELECT id FROM openings") == [(receipt,)]
        for worker in named(serving, "gateway.worker"):
            os.kill(worker, signal.SIGKILL)
        with contextlib.suppress(httpx2.HTTPError):
            list(pieces)
    return receipt


def status(serving: Serving) -> int | None:
    """The status of a request for three tokens; None where nobody listens yet."""
    try:
        return serving.post(chat("fake/m", "one two three", max_tokens=3), **BEARER).status_code
    except httpx2.HTTPError:
        return None


def eventually(look: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_no_process_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """The workers finish and go, and the writer after them."""
    with EchoProvider() as fake:
        serving = Serving(tmp_path, provider("fake", fake.base_url), "--workers", "2").start()
        left = children(serving.process.pid)
        assert len(left) == 3
        serving.process.kill()
        serving.process.wait()
        eventually(lambda: not any(_alive(pid) for pid in left))
        with Serving(tmp_path, provider("fake", fake.base_url), "--workers", "2") as again:
            assert again.post(chat("fake/m")).status_code == 200


def _alive(pid: int) -> bool:
    try:
        return re.search(r"^State:\s+[ZX]", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE) is None
    except FileNotFoundError:
        return False


def test_a_rest_that_one_worker_found_out_is_kept_by_all(workers: Callable[[str], Serving]) -> None:
    """A provider that asks for a minute's rest is left alone by every worker, after a moment."""
    asked: list[float] = []

    def script(_: object) -> Script:
        asked.append(time.monotonic())
        return error_response(429, "slow down", [("retry-after", "60")], "rate_limit_exceeded")

    with ScriptedProvider(script) as fake:
        serving = workers("[server]\nretries = 0\n" + provider("fake", fake.base_url))
        assert serving.post(chat("fake/m")).status_code == 429
        time.sleep(1.6)
        before = len(asked)
        answers = asyncio.run(ask_many(serving, 40, 8))
        assert {status for status, _ in answers} == {429}
        assert len(asked) == before


def test_a_port_that_is_taken_is_not_shared_with_a_stranger(workers: Callable[[str], Serving], tmp_path: Path) -> None:
    """Another gateway on the same port says so in place of taking half of its connections."""
    serving = workers("")
    folder = tmp_path / "second"
    folder.mkdir()
    with pytest.raises(AssertionError, match="cannot listen"):
        Serving(folder, "", "--workers", "2", port=serving.port).start()


def kill_workers(serving: Serving) -> None:
    """Kill both, once both run."""
    workers = eventually(lambda: len(found := named(serving, "gateway.worker")) == 2 and found)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    eventually(lambda: not set(workers) & set(named(serving, "gateway.worker")))


@pytest.mark.parametrize("pause", [0.1, 0.3, 0.6])  # before a second start in a row it is waited
def test_it_stops_while_a_worker_is_being_started_again(tmp_path: Path, pause: float) -> None:
    """At whatever moment after one died: the new one is not left to live on."""
    with EchoProvider() as fake:
        serving = Serving(tmp_path, provider("fake", fake.base_url), "--workers", "2").start()
        kill_workers(serving)
        kill_workers(serving)
        time.sleep(pause)
        began = time.monotonic()
        assert serving.stop() == 0
        assert time.monotonic() - began < 10


def test_it_stops_cleanly_where_one_worker_has_died_over_and_over(tmp_path: Path) -> None:
    """The last of its deaths comes just before all is told to end: the others did not die, they were told to."""
    with EchoProvider() as fake:
        serving = Serving(tmp_path, provider("fake", fake.base_url), "--workers", "2").start()
        stays, victim = named(serving, "gateway.worker")
        dead: set[int] = set()
        while len(dead) < QUICK_MOST:
            if dead:
                (victim,) = eventually(lambda: set(named(serving, "gateway.worker")) - dead - {stays})
            os.kill(victim, signal.SIGKILL)
            dead.add(victim)
        eventually(lambda: serving.log.count("is started again") == QUICK_MOST)
        assert serving.stop() == 0, serving.log
