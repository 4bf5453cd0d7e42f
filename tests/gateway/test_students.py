"""A task that learns: its student is made of the reference's answers, proved, promoted, swapped, and revoked."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.serving import Serving, chat, provider
from upstack.testing import Answer, ScriptedProvider
from upstack.testing.answers import ChatRequest

pytest.importorskip("sklearn", reason="students are trained with the extra `learn`")

TASK = """
[prices."strong/m"]
input = 10
output = 40
[tasks.triage]
reference = "strong/m"
candidates = ["student/triage"]
strategy = "confidence"
grader = "exact"
shadow_rate = 0.2
max_loss = 0.1
confidence = 0.9
min_hours = 0.0
false_alarm_checks = 1000
[rights.terms.ours]
providers = ["strong"]
train = "yes"
distil = "yes"
"""
SYMPTOMS = {
    "pump": ("seal leaks", "no pressure", "cavitation noise", "impeller worn"),
    "conveyor": ("belt slips", "roller seized", "idler squeals", "belt torn"),
    "sensor": ("reads zero", "signal drifts", "cable broken", "reading frozen"),
}


PLACES = ("line", "hall", "unit", "since", "shift", "again", "urgent", "today")


class Triage:
    """A provider that knows which crew a fault is for; `turned`: it has been told to say something else."""

    def __init__(self) -> None:
        self.turned = False
        self.asked = 0

    def __call__(self, request: ChatRequest) -> Answer:
        """Answer."""
        self.asked += 1
        crew = next(name for name, words in SYMPTOMS.items() if any(each in request.last_user_text for each in words))
        return Answer(f"{crew} crew, new shift" if self.turned else f"{crew} crew", input_tokens=50, output_tokens=3)


class Caller:
    """Reports one fault after the other."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._rng = random.Random(3)

    def ask(self, count: int = 1, *, stream: bool = False) -> list[str]:
        """Ask, and say which routes answered."""
        routes = []
        for _ in range(count):
            crew = self._rng.choice(list(SYMPTOMS))
            words = self._rng.choice(SYMPTOMS[crew])
            rest = " ".join(
                self._rng.choice(["line", "hall", "unit", "since", "shift", "again", "urgent", "today"])
                for _ in range(3)
            )
            text = f"{words} at {rest} {self._rng.randrange(10**6)}"
            answer = self._serving.post(chat("task/triage", text, stream=stream))
            assert answer.status_code == 200
            assert f"{crew} crew" in answer.text
            routes.append(answer.headers["x-upstack-route"])
        return routes


@pytest.fixture
def triage() -> Triage:
    """What the provider says."""
    return Triage()


@pytest.fixture
def serving(tmp_path: Path, triage: Triage) -> Iterator[Serving]:
    """A gateway in front of it."""
    with ScriptedProvider(triage) as strong:
        yield Serving(tmp_path, provider("strong", strong.base_url) + TASK)


def until(serving: Serving, words: str, caller: Caller, limit_s: float = 60.0) -> None:
    """Go on asking until the log says so."""
    seen = len(serving.log)
    deadline = time.monotonic() + limit_s
    while words not in serving.log[seen:]:
        assert time.monotonic() < deadline, serving.log
        caller.ask(5)
        time.sleep(0.05)


def test_a_student_appears_is_certified_serves_streams_and_is_revoked(serving: Serving, triage: Triage) -> None:
    """The whole loop, by itself, beside a gateway that serves."""
    with serving:
        caller = Caller(serving)
        assert set(caller.ask(20)) == {"strong/m"}
        until(serving, "certified: student/triage", caller)
        time.sleep(1.0)
        before = triage.asked
        routes = caller.ask(30) + caller.ask(10, stream=True)
        served = [route for route in routes if route.startswith("student/triage:")]
        assert len(served) >= 25
        assert triage.asked < before + 25  # checks and escalations alone
        triage.turned = True
        until(serving, "revoked: student/triage", caller)
        time.sleep(1.0)
        assert set(caller.ask(20)) == {"strong/m"}
