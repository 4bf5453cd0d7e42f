"""One of two routes failing in every way the flaky fake knows: nobody sees a 5xx before the first token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.gateway.serving import Serving, chat
from upstack.testing import EchoProvider, End, Fault, FlakyProvider, RawClient, RawResponse

ROUTES = 30  # of each fault: every one has a breaker of its own, so that most requests do meet the fault
CALLERS = 16
TEXT = "one two three four five six"

LIMITS = "connect = 0.4\nfirst_byte = 0.4\nbetween_bytes = 0.4\ntotal = 20\n"
OPTIONS: dict[Fault, dict[str, object]] = {
    Fault.LATENCY: {"pause_s": 0.02},
    Fault.SLOW_DRIP: {"pause_s": 0.0001},
    Fault.HUGE_EVENT: {"size_bytes": 300_000},
    Fault.GZIP_BOMB: {"size_bytes": 3_000_000},
    Fault.HEADER_FLOOD: {"size_bytes": 1_000_000},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway with a task for each fault and number: a broken route first, a good one behind it."""
    with ExitStack() as stack:
        good = stack.enter_context(EchoProvider())
        config = ["[server]\nmax_answer_bytes = 2000000\n", _provider("good", good.base_url)]
        for fault in Fault:
            flaky = stack.enter_context(FlakyProvider(fault, **OPTIONS.get(fault, {})))  # type: ignore[arg-type]
            config.append(_provider(fault.value, flaky.base_url))
            config += [
                f'[tasks."{fault.value}-{number}"]\ncandidates = ["{fault.value}/m{number}"]\nreference = "good/m"\n'
                for number in range(ROUTES)
            ]
        folder = tmp_path_factory.mktemp("gateway")
        yield stack.enter_context(Serving(folder, "".join(config)))


def _provider(name: str, base_url: str) -> str:
    return f'[providers.{name}]\nbase_url = "{base_url}"\nauth = "none"\n[providers.{name}.timeouts]\n{LIMITS}'


async def _ask_all(port: int, fault: Fault, requests: int) -> list[tuple[bool, RawResponse]]:
    numbers = iter(range(requests))
    answers: list[tuple[bool, RawResponse]] = []

    async def caller() -> None:
        for number in numbers:
            stream = number % 2 == 1
            async with RawClient(port, timeout_s=30) as client:
                body = chat(f"task/{fault.value}-{number % ROUTES}", TEXT, stream=stream)
                answers.append((stream, await client.ask(body)))

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return answers


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("requests", [300, pytest.param(10_000, marks=pytest.mark.soak)])
def test_no_5xx_before_the_first_token(gateway: Serving, fault: Fault, requests: int) -> None:
    """Every request is answered whole, or (where content had begun) ends in an explicit error and says so."""
    answers = asyncio.run(_ask_all(gateway.port, fault, requests))
    assert len(answers) == requests
    for stream, answer in answers:
        if fault is Fault.STATUS_400:
            assert answer.status == 400, "the provider's word about the request itself, passed on"
            continue
        assert answer.status == 200
        whole = answer.end is End.WHOLE and (not stream or answer.events[-1] == b"[DONE]")
        if whole and fault not in {Fault.EMPTY_STOP, Fault.HUGE_EVENT, Fault.DUPLICATE_CHUNK}:
            said = answer.text if stream else answer.json()["choices"][0]["message"]["content"]
            assert said == TEXT
        if not whole:
            assert stream, "a plain answer is whole or it is not sent"
            assert not fault.before_content(stream=True), "what strikes before the content is failed over unseen"
            assert b'"error"' in answer.events[-1]
            assert answer.end is End.CLOSED, "never a clean end"
    if not fault.harmless(stream=True) and not fault.before_content(stream=True):
        cut = sum(answer.end is not End.WHOLE for _, answer in answers)
        told = gateway.rows(f"select count(*) from receipts where state = 'truncated' and task like '{fault.value}-%'")
        assert told == [(cut,)]
        assert cut > 0


def test_nothing_is_left_in_flight(gateway: Serving) -> None:
    """After all of it no request hangs, every one has its receipt, and no stream is still open in the ledger."""
    assert "\nupstack_in_flight 0.0" in gateway.get("/metrics").text
    assert gateway.rows("select count(*) from openings") == [(0,)]
    assert "Traceback" not in gateway.log
