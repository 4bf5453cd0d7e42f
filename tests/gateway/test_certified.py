"""A task whose plans are proved while it serves: from the reference to a cheaper route and back."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.gateway.serving import Serving, chat, provider
from upstack.testing import Answer, ScriptedProvider
from upstack.testing.answers import ChatRequest

pytest.importorskip("numpy", reason="proving plans needs the extra `learn`")

TASK = """
[prices."strong/m"]
input = 10
output = 40
[prices."cheap/m"]
input = 1
output = 4
[tasks.sums]
reference = "strong/m"
candidates = ["cheap/m"]
strategy = "{strategy}"
grader = "exact:number"
shadow_rate = {rate}
max_loss = 0.1
confidence = 0.9
min_hours = 0.0
false_alarm_checks = 1000
"""


class Sums:
    """Two providers that add up; `wrong` is the share of the cheap one's answers that are not right."""

    def __init__(self, wrong: float = 0.0) -> None:
        self.wrong = wrong
        self.asked = {"strong": 0, "cheap": 0}
        self._rng = random.Random(1)

    def strong(self, request: ChatRequest) -> Answer:
        """Answer rightly."""
        self.asked["strong"] += 1
        return Answer(str(_sum(request.last_user_text)))

    def cheap(self, request: ChatRequest) -> Answer:
        """Answer rightly at most."""
        self.asked["cheap"] += 1
        off = self._rng.random() < self.wrong
        return Answer(f"The sum is {_sum(request.last_user_text) + off}")


def _sum(question: str) -> int:
    return sum(int(word) for word in question.split() if word.isdigit())


@pytest.fixture
def sums() -> Sums:
    """What the providers say."""
    return Sums()


@pytest.fixture
def serve(tmp_path: Path, sums: Sums) -> Iterator[Callable[..., Serving]]:
    """Start a gateway in front of them."""
    with ScriptedProvider(sums.strong) as strong, ScriptedProvider(sums.cheap) as cheap:

        def start(strategy: str = "single", rate: float = 1.0, more: str = "") -> Serving:
            both = provider("strong", strong.base_url) + provider("cheap", cheap.base_url)
            return Serving(tmp_path, both + TASK.format(strategy=strategy, rate=rate) + more)

        yield start


class Caller:
    """Asks one sum after the other."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._rng = random.Random(2)

    def ask(self, count: int = 1, *, stream: bool = False) -> list[str]:
        """Ask, and say which routes answered."""
        routes = []
        for _ in range(count):
            words = " plus ".join(str(self._rng.randrange(10_000)) for _ in range(4))
            answer = self._serving.post(chat("task/sums", f"{words} of lot {self._rng.random()} ?", stream=stream))
            assert answer.status_code == 200
            routes.append(answer.headers["x-upstack-route"])
        return routes


def until(serving: Serving, words: str, caller: Caller, limit_s: float = 60.0) -> None:
    """Go on asking until the log says so."""
    seen = len(serving.log)
    deadline = time.monotonic() + limit_s
    while words not in serving.log[seen:]:
        assert time.monotonic() < deadline, serving.log
        caller.ask(5)
        time.sleep(0.05)


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """Ask the ledger itself."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def test_a_cheaper_route_is_promoted_when_it_is_proved_and_revoked_when_it_gets_worse(
    serve: Callable[..., Serving], sums: Sums
) -> None:
    """The reference answers until then, and from the alarm on."""
    with serve() as serving:
        caller = Caller(serving)
        assert set(caller.ask(20)) == {"strong/m"}
        until(serving, "certified: cheap/m", caller)
        time.sleep(1.0)
        assert set(caller.ask(20)) == {"cheap/m"}
        sums.wrong = 1.0
        until(serving, "revoked: cheap/m", caller)
        time.sleep(1.0)
        assert set(caller.ask(5)) == {"strong/m"}
    (issued,) = rows(serving.ledger, "SELECT plan, summary, ended_why FROM certificates")
    assert json.loads(str(issued[1]))["words"].startswith("cheap/m; certified after ")
    assert str(issued[2]).startswith("revoked: cheap/m lost +0.")
