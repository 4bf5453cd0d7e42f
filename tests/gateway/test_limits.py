"""Budgets, rates and worth as a caller meets them."""

from __future__ import annotations

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
from upstack.testing import Answer, Move, ScriptedProvider, error_response
from upstack.testing.answers import ChatRequest

CENT = 10**10
APP, APP_HASH = new_key()
BOSS, BOSS_HASH = new_key()
KEYS = f'[keys.boss]\nhash = "{BOSS_HASH}"\nrole = "admin"\n[keys.app]\nhash = "{APP_HASH}"\n'
CENT_A_TOKEN = '[prices."fake/{model}"]\ninput = 0.0\noutput = 10000.0\n'
SCRIPTS: dict[str, Any] = {
    "one": Answer("x", output_tokens=1),
    "five": Answer("x x x x x", output_tokens=5),
    "slow": Answer("x", output_tokens=1, delay_s=0.4),
    "silent": Answer("x", report_usage=False),
    "broken": error_response(500, "no"),
    "cut": (Move.RESET,),
}


@pytest.fixture(scope="module")
def fake() -> Iterator[str]:
    """A provider whose answers cost a cent a token; input is free."""

    def script(request: ChatRequest) -> Any:
        return SCRIPTS[request.model]

    with ScriptedProvider(script) as running:
        yield running.base_url


@pytest.fixture
def gateway(fake: str, tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Starts a gateway with these further lines of the key, and flags."""
    running: list[Serving] = []

    def start(limits: str, *flags: str, rest: str = "") -> Serving:
        prices = "".join(CENT_A_TOKEN.format(model=model) for model in SCRIPTS)
        text = KEYS + limits + "\n" + prices + provider("fake", fake, "") + rest
        running.append(Serving(tmp_path, "[server]\nretries = 0\n" + text, *flags).start())
        return running[-1]

    yield start
    for each in running:
        each.stop()


def ask(serving: Serving, model: str = "fake/one", tokens: int = 1, **members: Any) -> httpx2.Response:
    """Ask with the key, for at most so many tokens."""
    return serving.post(chat(model, max_tokens=tokens, **members), authorization=f"Bearer {APP}")


def code(answer: httpx2.Response) -> tuple[int, str]:
    """The status and the code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]


def spent(serving: Serving) -> int:
    """Cents of the app's spending, by the ledger's sums."""
    return int(serving.rows("SELECT coalesce(sum(cost_picodollars), 0) FROM spend WHERE key = 'app'")[0][0]) // CENT


def test_a_budget_runs_dry_at_the_right_request_and_says_why(gateway: Callable[..., Serving]) -> None:
    """Five cents a day: the sixth is refused, with a receipt that tells; a restart knows what was spent."""
    serving = gateway("budget_usd = { day = 0.05 }")
    assert [ask(serving).status_code for _ in range(5)] == [200] * 5
    refused = ask(serving)
    assert code(refused) == (402, "budget_exceeded")
    assert (
        "$0.05 of $0.05 today are spent, and this may cost up to $0.01; max_tokens lowers that"
        in refused.json()["error"]["message"]
    )
    (row,) = serving.rows(f"SELECT state, why FROM receipts WHERE id = '{refused.headers['x-upstack-receipt']}'")
    assert row[0] == "failed"
    assert "The budget of key app does not suffice" in row[1]
    serving.stop()
    serving.start()
    assert code(ask(serving)) == (402, "budget_exceeded")
    assert spent(serving) == 5


def test_what_an_answer_did_not_use_is_free_again(gateway: Callable[..., Serving]) -> None:
    """Three cents are held for up to three tokens, one is spent."""
    serving = gateway("budget_usd = { total = 0.05 }")
    assert [ask(serving, tokens=3).status_code for _ in range(4)] == [200, 200, 200, 402]
    assert ask(serving, tokens=2).status_code == 200
    receipt = serving.rows("SELECT reserved_picodollars, cost_picodollars FROM receipts ORDER BY id DESC LIMIT 1")
    assert receipt == [(2 * CENT, CENT)]


def test_an_answer_that_overruns_is_overrun_by_the_excess_alone(gateway: Callable[..., Serving]) -> None:
    """A provider that says five tokens where one was asked for: the excess is spent, and then nothing more."""
    serving = gateway("budget_usd = { day = 0.06 }")
    assert ask(serving, "fake/five").status_code == 200
    assert ask(serving, "fake/five").status_code == 200
    assert ask(serving, "fake/one").status_code == 402
    assert spent(serving) == 10


def test_an_unknown_cost_is_booked_as_it_was_held(gateway: Callable[..., Serving]) -> None:
    """No usage came back, or the connection was cut: nobody knows, so the budget counts the most it may have cost."""
    serving = gateway("budget_usd = { day = 0.05 }")
    assert ask(serving, "fake/silent", tokens=2).status_code == 200
    assert ask(serving, "fake/cut", tokens=2).status_code == 502
    assert ask(serving, tokens=2).status_code == 402
    assert ask(serving, tokens=1).status_code == 200
    unknown = serving.rows("SELECT sum(unknown_attempts), sum(unknown_reserved_picodollars) FROM spend")
    assert unknown == [(2, 4 * CENT)]


def test_a_fallback_is_checked_too(gateway: Callable[..., Serving]) -> None:
    """What failed for free costs nothing; a second attempt that the budget does not cover is not made."""
    rest = (
        '[tasks.free]\ncandidates = ["fake/broken", "fake/one"]\n[tasks.cut]\ncandidates = ["fake/cut", "fake/one"]\n'
    )
    serving = gateway("budget_usd = { day = 0.03 }", rest=rest)
    assert ask(serving, "task/free", tokens=2).status_code == 200
    refused = ask(serving, "task/cut", tokens=2)
    assert code(refused) == (402, "budget_exceeded")
    (row,) = serving.rows(f"SELECT attempts, why FROM receipts WHERE id = '{refused.headers['x-upstack-receipt']}'")
    assert ("fake/cut" in row[0], "fake/one" in row[0]) == (True, False)
    assert "does not suffice" in row[1]


def test_a_budget_needs_prices(gateway: Callable[..., Serving]) -> None:
    """A route nobody knows the price of would be free: it is refused, and says what to do."""
    serving = gateway("budget_usd = { day = 1 }")
    answer = ask(serving, "fake/unpriced")
    assert code(answer) == (402, "price_unknown")
    assert "[prices]" in answer.json()["error"]["message"]


def test_streams_and_callers_who_leave_are_counted(gateway: Callable[..., Serving]) -> None:
    """After streams, cut ones and callers who gave up nothing is held: the whole budget can still be spent."""
    serving = gateway("budget_usd = { day = 0.09 }\nrate = { parallel_requests = 2 }")
    bearer = {"authorization": f"Bearer {APP}"}
    url = f"{serving.url}/v1/chat/completions"
    body = chat("fake/five", max_tokens=5, stream=True)
    with plain.stream("POST", url, json=body, headers=bearer) as stream:
        assert stream.status_code == 200
        stream.read()
    for _ in range(2):
        with pytest.raises(httpx2.TimeoutException):
            plain.post(url, json=chat("fake/slow", max_tokens=1), headers=bearer, timeout=0.1)
    time.sleep(0.6)
    assert [ask(serving).status_code for _ in range(3)] == [200, 200, 402]  # each who left may have cost a cent


def test_only_so_many_at_once(gateway: Callable[..., Serving]) -> None:
    """The others are told to come back, and are served when they do."""
    serving = gateway("rate = { parallel_requests = 3 }")
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: ask(serving, "fake/slow"), range(12)))
    counted = Counter(answer.status_code for answer in answers)
    assert counted == {200: 3, 429: 9}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (code(refused)[1], refused.headers["retry-after"]) == ("rate_limit_exceeded", "1")
    assert ask(serving).status_code == 200


def test_only_so_many_a_minute(gateway: Callable[..., Serving]) -> None:
    """The next is refused before a provider is asked, and nothing of it is recorded."""
    serving = gateway("rate = { requests_per_minute = 4 }")
    assert Counter(ask(serving).status_code for _ in range(7)) == {200: 4, 429: 3}
    # The minute before counts by the part of it that the last 60 seconds hold, so that a fourth of the next may pass.
    assert 1 <= int(ask(serving).headers["retry-after"]) <= 75
    assert serving.rows("SELECT count(*) FROM receipts") == [(4,)]


def test_what_is_not_worth_its_cost_is_not_asked(gateway: Callable[..., Serving]) -> None:
    """Where the task says so; else its receipt says it."""
    dear = '[tasks.{name}]\ncandidates = ["fake/five"]\nvalue_usd = 0.02\n{more}\n'
    rest = dear.format(name="told", more="") + dear.format(name="kept", more='on_unprofitable = "refuse"')
    serving = gateway("", rest=rest)
    refused = ask(serving, "task/kept", tokens=5)
    assert code(refused) == (402, "not_worth_it")
    assert serving.rows("SELECT count(*) FROM receipts WHERE error = 'not_worth_it'") == [(1,)]
    told = ask(serving, "task/told", tokens=5)
    assert told.status_code == 200
    (row,) = serving.rows(f"SELECT why FROM receipts WHERE id = '{told.headers['x-upstack-receipt']}'")
    assert "task told is worth $0.02 and expected to cost $0.05" in row[0]
    assert ask(serving, "task/kept", tokens=1).status_code == 200  # a shorter one is worth it


def test_a_machine_of_ones_own_costs_its_time(gateway: Callable[..., Serving], fake: str) -> None:
    """So many USD an hour, for the time of each attempt, whatever the tokens."""
    rest = '[prices."local/slow"]\nusd_per_hour = 36.0\n' + provider("local", fake)
    serving = gateway("budget_usd = { day = 1.0 }", rest=rest)
    answer = ask(serving, "local/slow")
    assert answer.status_code == 200
    (row,) = serving.rows("SELECT cost_picodollars, duration_s, reserved_picodollars FROM receipts")
    assert row[0] == pytest.approx(row[1] * CENT, rel=0.05)
    assert row[2] == 60 * CENT  # default_reserve_seconds


def test_a_reload_changes_a_budget_and_keeps_what_was_spent(gateway: Callable[..., Serving]) -> None:
    """More is granted at once, and less too."""
    serving = gateway("budget_usd = { day = 0.02 }")
    assert [ask(serving).status_code for _ in range(3)] == [200, 200, 402]
    text = serving.config.read_text()
    admin = {"x-upstack-admin": "1", "authorization": f"Bearer {BOSS}"}
    for budget, answers in (("0.04", [200, 200, 402]), ("0.01", [402])):
        serving.config.write_text(text.replace("day = 0.02", f"day = {budget}"))
        assert plain.post(f"{serving.url}/admin/reload", headers=admin).status_code == 200
        assert [ask(serving).status_code for _ in answers] == answers
    assert spent(serving) == 4


@pytest.mark.parametrize("receipts", ["off", "best-effort"])
def test_limits_hold_without_receipts(gateway: Callable[..., Serving], receipts: str) -> None:
    """In memory they are counted all the same."""
    serving = gateway("budget_usd = { day = 0.03 }", rest="")
    serving.stop()
    serving.config.write_text(serving.config.read_text().replace("[server]", f'[server]\nreceipts = "{receipts}"'))
    serving.start()
    assert [ask(serving).status_code for _ in range(4)] == [200, 200, 200, 402]
