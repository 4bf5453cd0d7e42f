"""One of two routes failing in every way the flaky fake knows: nobody sees a 5xx before the first token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.gateway.serving import Serving, chat
from upstack.testing import EchoProvider, End, Fault, FlakyProvider, RawClient, RawResponse

REQUESTS = 300  # of each fault
LONG = 10_000  # of each fault in the soak
CALLERS = 16
WAITING_CALLERS = 64  # for faults that only wait
STALLS = {Fault.STALL_BEFORE_HEADERS, Fault.STALL_BEFORE_FIRST_TOKEN, Fault.STALL_BETWEEN_TOKENS}
MET = 0.9  # share of the requests that must have met their fault
TEXT = "one two three four five six"

SHORT_LIMITS = "connect = 0.4\nfirst_byte = 0.4\nbetween_bytes = 0.4\ntotal = 20\n"
OPTIONS: dict[Fault, dict[str, object]] = {
    Fault.LATENCY: {"pause_s": 0.02},
    Fault.SLOW_DRIP: {"pause_s": 0.0001},
    Fault.HUGE_EVENT: {"size_bytes": 100_000},
    Fault.GZIP_BOMB: {"size_bytes": 1_000_000},
    Fault.HEADER_FLOOD: {"size_bytes": 500_000},
}


class Broken:
    """A gateway with `requests` tasks for each fault: a broken route of its own first, the good one behind it.

    One route for each request, as one that fails is soon left alone: so every request meets its fault.
    """

    def __init__(self, folder: Path, faults: Iterable[Fault], requests: int) -> None:
        self.requests = requests
        self._folder = folder
        self._faults = list(faults)
        self._stack = ExitStack()
        self._flaky: dict[Fault, FlakyProvider] = {}
        self.gateway: Serving

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            good = stack.enter_context(EchoProvider())
            config = ["[server]\nmax_answer_bytes = 600000\n", _provider("good", good.base_url)]
            for fault in self._faults:
                flaky = FlakyProvider(fault, **OPTIONS.get(fault, {}))  # type: ignore[arg-type]
                self._flaky[fault] = stack.enter_context(flaky)
                limits = f"[providers.{fault.value}.timeouts]\n{SHORT_LIMITS}"
                config += [_provider(fault.value, flaky.base_url), limits]
                config += [_task(fault, number) for number in range(self.requests)]
            self.gateway = stack.enter_context(Serving(self._folder, "".join(config)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def check(self, fault: Fault) -> None:
        """Ask each of the fault's tasks once, half of them for a stream, and look at all answers."""
        answers = asyncio.run(self._ask_all(fault))
        assert len(answers) == self.requests
        for stream, answer in answers:
            _look_at(fault, stream, answer)
        assert self._met(fault) >= MET * self.requests
        if not fault.harmless(stream=True) and not fault.before_content(stream=True):
            cut = sum(answer.end is not End.WHOLE for _, answer in answers)
            told = f"select count(*) from receipts where state = 'truncated' and task like '{fault.value}-%'"
            assert self.gateway.rows(told) == [(cut,)]
            assert cut >= MET * self.requests / 2

    def check_nothing_is_left(self) -> None:
        """No request hangs, every one has its receipt, and no stream is still open in the ledger."""
        assert "\nupstack_in_flight 0.0" in self.gateway.get("/metrics").text
        assert self.gateway.rows("select count(*) from openings") == [(0,)]
        assert "Traceback" not in self.gateway.log

    async def _ask_all(self, fault: Fault) -> list[tuple[bool, RawResponse]]:
        numbers = iter(range(self.requests))
        answers: list[tuple[bool, RawResponse]] = []

        async def caller() -> None:
            for number in numbers:
                stream = number % 2 == 1
                async with RawClient(self.gateway.port, timeout_s=30) as client:
                    answer = await client.ask(chat(f"task/{fault.value}-{number}", TEXT, stream=stream))
                    answers.append((stream, answer))

        await asyncio.gather(*(caller() for _ in range(WAITING_CALLERS if fault in STALLS else CALLERS)))
        return answers

    def _met(self, fault: Fault) -> int:
        """How many requests met the fault; nobody but the receipts can tell of connections nobody took."""
        if fault is not Fault.REFUSED:
            return self._flaky[fault].failed
        refused = "select count(*) from receipts where task like 'refused-%' and attempts like '%connection_refused%'"
        return int(self.gateway.rows(refused)[0][0])


def _provider(name: str, base_url: str) -> str:
    return f'[providers.{name}]\nbase_url = "{base_url}"\nauth = "none"\n'


def _task(fault: Fault, number: int) -> str:
    return f'[tasks."{fault.value}-{number}"]\ncandidates = ["{fault.value}/m{number}"]\nreference = "good/m"\n'


def _look_at(fault: Fault, stream: bool, answer: RawResponse) -> None:
    """Whole, or (where content had begun) ended by an explicit error."""
    if fault is Fault.STATUS_400:
        assert answer.status == 400, "the provider's word about the request itself, passed on"
        return
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


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """One gateway for all faults."""
    with Broken(tmp_path_factory.mktemp("gateway"), Fault, REQUESTS) as everything:
        yield everything


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", list(Fault))
def test_no_5xx_before_the_first_token(broken: Broken, fault: Fault) -> None:
    """Every request is answered whole, or (where content had begun) ends in an explicit error and says so."""
    broken.check(fault)


def test_nothing_is_left_in_flight(broken: Broken) -> None:
    """After all of it nothing hangs, and everything is told."""
    broken.check_nothing_is_left()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", list(Fault))
def test_no_5xx_in_ten_thousand_faults(tmp_path: Path, fault: Fault) -> None:
    """The same with thousands of failures of a kind, on a gateway that meets no other."""
    with Broken(tmp_path, [fault], LONG) as alone:
        alone.check(fault)
        alone.check_nothing_is_left()
