"""A task whose plans are proved while it serves: from the reference to a cheaper route and back."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import plain
from tests.cli.calling import call
from tests.gateway.serving import Serving, chat, provider
from tests.gateway.test_workers import named
from tests.postgres import PostgresServer, ask
from upstack.core.store.verify import verify
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
grader = "{grader}"
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
        self.delay_s = 0.0  # of the cheap one
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
        return Answer(f"The sum is {_sum(request.last_user_text) + off}", delay_s=self.delay_s)


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

        def start(*flags: str, more: str = "", label: str = "", **fields: object) -> Serving:
            both = provider("strong", strong.base_url, label) + provider("cheap", cheap.base_url)
            usual: dict[str, object] = {"strategy": "single", "rate": 1.0, "grader": "exact:number"}
            return Serving(tmp_path, both + TASK.format(**usual | fields) + more, *flags)

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
    ((summary, why),) = serving.rows("SELECT summary, ended_why FROM certificates")
    assert json.loads(summary)["words"].startswith("cheap/m; certified after ")
    assert why.startswith("revoked: cheap/m lost +0.")
    assert verify(str(serving.ledger)).found == 0


def told(serving: Serving, *command: str) -> dict[str, Any]:
    """What a command says of the gateway's ledger, as JSON."""
    whole = [*command, "--config", str(serving.config), "--ledger", str(serving.ledger), "--json"]
    done = call(*whole, cwd=serving.folder)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def wait_for_checks(serving: Serving, count: int) -> dict[str, Any]:
    """Wait until so many checks are whole."""
    deadline = time.monotonic() + 30
    while True:
        shown = told(serving, "tasks", "show", "sums")
        checks = shown["checks"]
        if checks["fit"] + checks["evidence"] >= count and not checks["waiting"]:
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.2)


def test_no_answer_waits_for_what_is_asked_beside_it(serve: Callable[..., Serving], sums: Sums) -> None:
    """Nor does a caller see it; its cost is booked apart, and its receipts are not the caller's."""
    sums.delay_s = 0.9
    with serve() as serving:
        caller = Caller(serving)
        began = time.monotonic()
        caller.ask(5)
        assert time.monotonic() - began < 4 * 0.9
        serving.stop()
    found = serving.rows("SELECT task, strategy, coin, check_of IS NULL, key, state FROM receipts")
    assert (
        sorted(found)
        == [("sums", "reference", 1.0, 1, None, "answered")] * 5
        + [("sums/shadow", "shadow", None, 0, None, "answered")] * 5
    )
    assert serving.rows("SELECT count(*) FROM receipts a JOIN receipts b ON a.check_of = b.id") == [(5,)]
    spent = dict(serving.rows("SELECT task, sum(cost_picodollars) FROM spend GROUP BY task"))
    assert spent["sums"] > spent["sums/shadow"] > 0


def test_without_room_in_its_budget_nothing_is_a_check(serve: Callable[..., Serving], sums: Sums) -> None:
    """Answers are served as ever."""
    with serve(more="shadow_budget_usd = { day = 0.0 }") as serving:
        assert Caller(serving).ask(5) == ["strong/m"] * 5
    assert sums.asked == {"strong": 5, "cheap": 0}
    assert serving.rows("SELECT count(*) FROM receipts WHERE coin IS NOT NULL") == [(0,)]


def test_the_coin_falls_as_often_as_it_should(serve: Callable[..., Serving], sums: Sums) -> None:
    """And is on the receipt, whose hash covers it."""
    with serve(rate=0.2) as serving:
        Caller(serving).ask(200)
        time.sleep(0.5)
    assert 20 <= sums.asked["cheap"] <= 62  # 40, give or take four standard deviations
    assert serving.rows("SELECT DISTINCT coin FROM receipts WHERE coin IS NOT NULL") == [(0.2,)]


def test_a_route_that_residency_forbids_is_never_asked(serve: Callable[..., Serving], sums: Sums) -> None:
    """Not even beside an answer."""
    with serve(more='residency = ["onsite"]', label='residency = "onsite"\n') as serving:
        assert Caller(serving).ask(5) == ["strong/m"] * 5
        time.sleep(0.5)
    assert sums.asked == {"strong": 5, "cheap": 0}


def test_a_label_settles_a_disagreement(serve: Callable[..., Serving], sums: Sums) -> None:
    """Until then it counts as a full loss; the answers are shown in no order, and without their routes."""
    with serve(rate=1.0, more="min_checks = 1000") as serving:
        caller = Caller(serving)
        caller.ask(80)
        wait_for_checks(serving, 80)
        sums.wrong = 1.0
        caller.ask(10)
        shown = wait_for_checks(serving, 90)
        (plan,) = shown["plans"]
        waiting = told(serving, "tasks", "labels", "sums")["labels"]
        assert 0 < len(waiting) == plan["unjudged"] == len(shown["checks"]["unlabelled"])
        assert len(waiting[0]["answers"]) == 2
        assert "cheap" not in str(waiting)
        for each in waiting:
            right = next(text for text in each["answers"] if "The sum" in text)
            body = {"receipt": each["id"], "demonstration": right}
            assert plain.post(f"{serving.url}/v1/feedback", json=body).status_code == 201
        (after,) = told(serving, "tasks", "show", "sums")["plans"]
        assert (after["unjudged"], after["checks"]) == (0, plan["checks"])
        assert plan["excess"] == pytest.approx(len(waiting) / plan["checks"])
        assert after["excess"] == pytest.approx(-len(waiting) / plan["checks"])


def test_a_worker_killed_again_and_again_proves_once(serve: Callable[..., Serving], sums: Sums) -> None:
    """Nothing is lost or repeated: each attempt and each certificate is there once."""
    with serve() as serving:
        caller = Caller(serving)
        killed: set[int] = set()
        rng = random.Random(3)
        while len(killed) < 3:
            caller.ask(10)
            time.sleep(rng.uniform(0.0, 0.3))
            for pid in named(serving, "upstack.application.rounds"):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        while not serving.rows("SELECT 1 FROM certificates"):
            caller.ask(10)
            time.sleep(0.1)
        time.sleep(1.0)
        assert set(caller.ask(3)) == {"cheap/m"}
    assert serving.rows("SELECT count(*) FROM certificates") == [(1,)]
    assert serving.rows("SELECT count(*), max(number) FROM submissions") in ([(1, 1)], [(2, 2)])
    parts = serving.rows("SELECT count(*), count(DISTINCT id) FROM parts")
    assert parts[0][0] == parts[0][1] > 0


def test_two_workers_serve_what_one_proves(serve: Callable[..., Serving]) -> None:
    """By an encrypted ledger, too."""
    with serve("--workers", "2", more="encrypt = true") as serving:
        caller = Caller(serving)
        until(serving, "certified after", caller)
        time.sleep(1.0)
        assert set(caller.ask(10)) == {"cheap/m"}
        assert len(named(serving, "upstack.application.rounds")) == 1
    assert serving.rows("SELECT count(*) FROM certificates") == [(1,)]


def test_a_ledger_is_backtested(serve: Callable[..., Serving], sums: Sums) -> None:
    """By its checks; what was no check is assumed, and said apart."""
    sums.wrong = 0.5
    with serve(rate=1.0) as serving:
        Caller(serving).ask(160)
        wait_for_checks(serving, 160)
        found = told(serving, "backtest", "--task", "sums", "--since", "1h", "--strategy", "single")
        assert found["n_fit"] + found["n_evidence"] + found["n_test"] == 160
        assert (found["measured_share"], found["assumed"]["requests"]) == (1.0, 0)
        assert (found["certified"], found["cost_ratio"]) == (False, 1.0)
        assert found["why"]
        one = [*("backtest", "--task", "sums"), *("--since", "1 h"), "--config", str(serving.config)]
        call(*one, cwd=serving.folder).failed(2, "--since", "7d, 12h")


def test_it_is_proved_by_a_postgresql_ledger(
    serve: Callable[..., Serving], postgres: PostgresServer, sums: Sums
) -> None:
    """As by a file: promoted, and revoked."""
    place = postgres.new_ledger()
    with serve("--ledger", place) as serving:
        caller = Caller(serving)
        until(serving, "certified after", caller)
        time.sleep(1.0)
        assert set(caller.ask(5)) == {"cheap/m"}
        sums.wrong = 1.0
        until(serving, "revoked: cheap/m", caller)
    assert ask(place, "SELECT count(*), count(ended_at) FROM certificates") == [(1, 1)]


def test_a_judge_is_asked_about_disagreements_both_ways_round(serve: Callable[..., Serving], sums: Sums) -> None:
    """Blind, by a route of its own, and for some of them a human is asked, too."""
    asked: list[str] = []

    def judge(request: ChatRequest) -> Answer:
        asked.append(request.last_user_text)
        return Answer("1")

    sums.wrong = 1.0
    with ScriptedProvider(judge) as third:
        more = 'judge = "third/m"\nlabel_rate = 0.5\n' + provider("third", third.base_url)
        more += '[prices."third/m"]\ninput = 1\noutput = 1\n'
        with serve(more=more) as serving:
            Caller(serving).ask(12)
            query = "SELECT model, coin, task, check_of FROM receipts WHERE strategy = 'judge'"
            deadline = time.monotonic() + 10
            while len(found := serving.rows(query)) < 24:
                assert time.monotonic() < deadline, found
                time.sleep(0.05)
    assert {model for model, _, _, _ in found} == {"judge/first/cheap/m", "judge/second/cheap/m"}
    coins = {check: coin for _, coin, _, check in found}
    assert set(coins.values()) == {0.5, None}
    assert all(coins[check] == coin for _, coin, _, check in found)
    assert {task for _, _, task, _ in found} == {"sums/shadow"}
    assert all("The sum is" in text and "cheap" not in text and "strong" not in text for text in asked)
    assert sorted(text.index("The sum") > text.index("<answer 2>") for text in asked) == [False] * 12 + [True] * 12


def test_a_grader_of_ones_own_proves(serve: Callable[..., Serving], sums: Sums, tmp_path: Path) -> None:
    """Its module lies where the gateway was started; what it takes for the same needs no label."""
    (tmp_path / "close.py").write_text(CLOSE)
    sums.wrong = 1.0
    with serve(grader="close:grade") as serving:
        caller = Caller(serving)
        until(serving, "certified after", caller)
    assert serving.rows("SELECT count(*) FROM certificates") == [(1,)]


CLOSE = """
def number(text):
    return int("".join(letter for letter in text if letter.isdigit()) or 0)

def grade(answer, truth):
    return float(abs(number(answer) - number(str(truth))) > 1)

grade.same = lambda one, other: abs(number(one) - number(other)) <= 1
"""


def test_without_a_price_nothing_is_a_check(serve: Callable[..., Serving], sums: Sums) -> None:
    """What a check would cost is not known, nor what a plan would save: answers are served, and it is said why."""
    with serve(more='[routes.odd]\nmodel = "cheap/other"\n') as serving:
        text = serving.config.read_text().replace('candidates = ["cheap/m"]', 'candidates = ["odd"]')
        serving.config.write_text(text)
        serving.process.send_signal(signal.SIGHUP)
        while "configuration reloaded" not in serving.log:
            time.sleep(0.05)
        caller = Caller(serving)
        while "nothing is a check, as the price of odd is unknown" not in serving.log:
            assert caller.ask() == ["strong/m"]
            time.sleep(0.3)
    assert sums.asked["cheap"] == 0


@pytest.mark.parametrize("judge", ["", 'judge = "third/m"\n'])
def test_a_check_that_is_refused_costs_no_answer(serve: Callable[..., Serving], sums: Sums, judge: str) -> None:
    """There is room, and yet this request is too large for it: its check is a loss, and nobody else is asked."""
    with ScriptedProvider(lambda _: Answer("1")) as third:
        more = f"{judge}shadow_budget_usd = {{ day = 0.00000001 }}\n" + provider("third", third.base_url)
        with serve(more=more + '[prices."third/m"]\ninput = 1\noutput = 1\n') as serving:
            assert Caller(serving).ask(5) == ["strong/m"] * 5
            assert Caller(serving).ask(5, stream=True) == ["strong/m"] * 5
            assert serving.stop() == 0
            assert "Error" not in serving.log
            assert "Traceback" not in serving.log
    assert sums.asked == {"strong": 10, "cheap": 0}
