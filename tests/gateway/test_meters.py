"""What is held, spent and counted of budgets and rates, without a gateway around it."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from upstack.application.gateway.auth import Caller
from upstack.application.gateway.limits.budget import Budget, Calendar
from upstack.application.gateway.limits.meters import Hold, Meters
from upstack.application.gateway.limits.rate import Pace
from upstack.core.config import BudgetConfig, Config, KeyConfig, RateConfig, TaskConfig, TeamConfig
from upstack.core.errors import LimitError
from upstack.core.slots import Slots, make_memory
from upstack.core.store.spending import Spent
from upstack.core.types import Price, Provider, Rates, Request, Route, State, Task
from upstack.inference.cost import bound
from upstack.inference.router import route_plan

USD = 10**12
HASH = "sha256:" + "0" * 64
ROUTE = Route("fake/m", Provider("fake", "openai", "http://127.0.0.1:1/v1"), "m", "v", Price("p", ((0, Rates(1, 1)),)))
BARE = State(1, {}, {}, {}, {}, reserve=(100, 60.0))
PLAN = route_plan(ROUTE, BARE)
CALLER = Caller("app", "app", "dispatch")


def at(text: str) -> float:
    """Unix seconds of a moment."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def calendar(text: str) -> Calendar:
    """A calendar that has looked at a moment."""
    made = Calendar()
    made.look(at(text))
    return made


def budget(slots: Slots, **limits: float) -> Budget:
    """A budget in the slot of that name."""
    return Budget("key app", BudgetConfig(**limits), slots.find("budget"))


def spend(of: Budget, on: Calendar, amount: int) -> bool:
    """Hold and spend an amount, if the budget lets us."""
    if of.reserve(amount, on) is not None:
        return False
    of.settle(amount, amount, on.day, on.month, on)
    return True


def request(body: bytes = b"{}", **members: bytes) -> Request:
    """A request with these members, whose body has a length of its own."""
    return Request("fake/m", False, False, {name: msgspec.Raw(value) for name, value in members.items()}, body)


@pytest.mark.parametrize(
    ("limits", "accepted"),
    [
        ({"day": 10.0}, [10, 10, 10]),
        ({"month": 25.0}, [20, 5, 20]),
        ({"total": 25.0}, [20, 5, 0]),
        ({"day": 10.0, "month": 15.0, "total": 22.0}, [10, 5, 7]),
        ({"day": 0.0}, [0, 0, 0]),
    ],
)
def test_days_and_months_begin_anew_and_the_total_does_not(limits: dict[str, float], accepted: list[int]) -> None:
    """How many dollars are granted on the 30th, on the 31st, and on the 1st of the next month."""
    slots = Slots(make_memory(1), 1)
    spent = []
    for day in ("2026-12-30T23:59:59", "2026-12-31T00:00:00", "2027-01-01T12:00:00"):
        today = calendar(day)
        spent.append(sum(spend(budget(slots, **limits), today, USD) for _ in range(20)))
    assert spent == accepted


def test_a_clock_that_goes_back_grants_nothing_twice() -> None:
    """The day that was reached stays the day, and a cost of yesterday's request is not today's."""
    slots = Slots(make_memory(1), 1)
    today = calendar("2026-11-26T00:00:01")
    held = budget(slots, day=3.0)
    assert [spend(held, today, USD) for _ in range(4)] == [True, True, True, False]
    today.look(at("2026-11-25T23:59:59"))
    assert not spend(held, today, USD)
    assert held.reserve(USD, calendar("2026-11-27T00:00:01")) is None
    tomorrow = calendar("2026-11-27T00:00:02")
    held.settle(USD, USD, today.day, today.month, tomorrow)  # it came in before midnight
    assert [spend(held, tomorrow, USD) for _ in range(4)] == [True, True, True, False]


def test_what_the_ledger_knows_counts_from_the_start() -> None:
    """A restart grants nothing anew, a reload counts nothing twice."""
    slots = Slots(make_memory(1), 1)
    config = Config(keys={"app": KeyConfig(HASH, budget_usd=BudgetConfig(day=3.0, month=9.0))})
    known = {"key/app": Spent(2 * USD, 2 * USD, 5 * USD, 4)}
    for _ in range(2):
        meters = Meters(config, {}, slots, known)
        today = meters.calendar
    assert [spend(meters.budgets["key/app"], today, USD) for _ in range(2)] == [True, False]
    again = Meters(config, {}, slots, {})
    assert not spend(again.budgets["key/app"], again.calendar, USD)


def test_one_of_several_budgets_that_is_used_up_leaves_nothing_held_in_the_others() -> None:
    """Key, team and task each have their say, and their sums stay right."""
    slots = Slots(make_memory(1), 1)
    config = Config(
        keys={"app": KeyConfig(HASH, budget_usd=BudgetConfig(day=10.0), rate=RateConfig(requests_per_minute=100))},
        teams={"dispatch": TeamConfig(budget_usd=BudgetConfig(day=4.0))},
        tasks={"t": TaskConfig(candidates=("fake/m",), budget_usd=BudgetConfig(day=2.0))},
    )
    meters = Meters(config, {"t": Task("t", ("fake/m",))}, slots, {})
    dear = replace(PLAN, task="t", ceiling=replace(PLAN.ceiling, output=USD)) if PLAN.ceiling else PLAN
    answers: list[Any] = []
    for _ in range(4):
        hold = meters.enter(CALLER, dear, request(max_tokens=b"1"), at("2026-11-26T12:00:00"))
        assert hold is not None
        refusal = hold.reserve(0.0)
        answers.append(refusal and refusal.message.partition(" does not suffice")[0])
        if refusal is None:
            hold.settle(USD, 5, 0.0)
        hold.leave(answered=refusal is None)
    assert answers[0] is None
    assert answers[1:] == ["The budget of task t"] * 3  # the second would cost $1.000000000002
    used = {name: each.used(0, meters.calendar) for name, each in meters.budgets.items()}
    assert used == dict.fromkeys(("key/app", "team/dispatch", "task/t"), USD)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.one_of(st.none(), st.integers(0, 60))), max_size=60),
    st.integers(0, 2**31),
)
def test_however_requests_come_and_go_nothing_is_exceeded_or_left_behind(
    steps: list[tuple[int, int, int | None]], seed: int
) -> None:
    """At each reservation spent and held stay within the budget; at the end nothing is held, and all cost is booked."""
    rng = random.Random(seed)
    slots = Slots(make_memory(1), 1)
    limit = 100
    config = Config(
        keys={"app": KeyConfig(HASH, budget_usd=BudgetConfig(day=limit / USD), rate=RateConfig(parallel_requests=4))}
    )
    meters = Meters(config, {}, slots, {})
    purse, under_way = meters.budgets["key/app"], slots.find("parallel/key/app").mine
    now = at("2026-11-26T12:00:00")
    meters.calendar.look(now)
    open_holds: list[Hold] = []
    booked = 0
    for action, tokens, cost in steps:
        if action < 3:
            try:
                hold = meters.enter(CALLER, PLAN, request(b"x" * tokens, max_tokens=b"1"), now)
            except LimitError:
                assert len(open_holds) == 4
                continue
            assert hold is not None
            before = purse.used(0, meters.calendar)
            if hold.reserve(0.0) is None:
                assert purse.used(0, meters.calendar) <= limit
                open_holds.append(hold)
            else:
                assert before + (hold.reserved or 0) > limit
                assert purse.used(0, meters.calendar) == before
                hold.leave(answered=False)
        elif open_holds:
            hold = open_holds.pop(rng.randrange(len(open_holds)))
            hold.settle(cost, 3, 0.0)
            booked += (hold.reserved or 0) if cost is None else cost
            hold.leave(answered=True)
    for hold in open_holds:
        hold.settle(0, 0, 0.0)
        hold.leave(answered=False)
    assert purse.used(0, meters.calendar) == booked
    assert under_way[0] == 0


def test_a_rate_of_requests_slides_and_says_when_to_come_back() -> None:
    """Whoever waits as long as was said is served, and never more than the limit in any 60 seconds at an even pace."""
    slots = Slots(make_memory(1), 1)
    rate = Pace("key app", "requests", 10, slots.find("rate"))
    rng = random.Random(3)
    now, accepted = 600.0, []
    for _ in range(400):
        now += rng.expovariate(1.0)
        refusal = rate.reserve(1, now)
        if refusal is not None:
            assert refusal.retry_after is not None
            assert 0 < refusal.retry_after <= 60
            now += refusal.retry_after + 1e-6
            assert rate.reserve(1, now) is None, (now, refusal.retry_after)
        accepted.append(now)
    for begin in range(len(accepted)):
        within = [moment for moment in accepted if accepted[begin] <= moment < accepted[begin] + 60]
        assert len(within) <= 20  # a burst at the seam of two windows, never more
    assert 9.0 < len(accepted) / (accepted[-1] - accepted[0]) * 60 < 11.5


def test_tokens_are_held_until_it_is_known_how_many_they_were() -> None:
    """A bound that was too high is given back at once."""
    slots = Slots(make_memory(1), 1)
    rate = Pace("key app", "tokens", 100, slots.find("rate"))
    assert rate.reserve(60, 600.0) is None
    refusal = rate.reserve(60, 600.0)
    assert refusal is not None
    assert refusal.retry_after is not None
    assert (refusal.status, refusal.code) == (429, "rate_limit_exceeded")
    rate.settle(60, 10, 601.0)
    assert rate.reserve(60, 601.0) is None
    assert rate.reserve(31, 601.0) is not None


def test_a_task_that_is_not_worth_its_cost_is_reported_or_refused() -> None:
    """At first by what it may cost at most, then by the mean of what it did cost; a restart keeps the mean."""
    slots = Slots(make_memory(1), 1)
    config = Config(tasks={"t": TaskConfig(candidates=("fake/m",), value_usd=0.5)})
    plan = replace(PLAN, task="t", ceiling=replace(PLAN.ceiling, output=USD)) if PLAN.ceiling else PLAN
    now = at("2026-11-26T12:00:00")
    report = Meters(config, {"t": Task("t", ("fake/m",), value=USD // 2)}, slots, {})
    refuse = Meters(config, {"t": Task("t", ("fake/m",), value=USD // 2, refuse_unprofitable=True)}, slots, {})
    with pytest.raises(
        LimitError, match=r"worth \$0\.5 and expected to cost \$1\.0*2 \(as none was made yet"
    ) as raised:
        refuse.enter(None, plan, request(max_tokens=b"1"), now)
    assert (raised.value.status, raised.value.code) == (402, "not_worth_it")
    for cost in (USD // 5, USD // 5, USD):
        hold = report.enter(None, plan, request(max_tokens=b"1"), now)
        assert hold is not None
        assert hold.reserve(0.0) is None
        hold.settle(cost, 1, 0.0)
        hold.leave(answered=True)
    assert refuse.enter(None, plan, request(max_tokens=b"1"), now) is not None  # the mean is $0.47
    again = Slots(make_memory(1), 1)
    dear = Meters(config, {"t": Task("t", ("fake/m",), value=USD // 2)}, again, {"task/t": Spent(0, 0, 8 * USD, 10)})
    hold = dear.enter(None, plan, request(max_tokens=b"1"), now)
    assert hold is not None
    assert hold.note == "task t is worth $0.5 and expected to cost $0.8 (the mean of 10)"


def test_the_bound_of_a_request_is_above_what_it_can_use() -> None:
    """Bytes for tokens in, max_tokens times n out, images by name at what an unbounded answer is taken for."""
    ceiling = PLAN.ceiling
    assert bound(request(b"x" * 50, max_tokens=b"7"), ceiling, 100) == (57, 57)
    assert bound(request(b"x" * 50, max_completion_tokens=b"9", max_tokens=b"7", n=b"3"), ceiling, 100) == (77, 77)
    assert bound(request(b"x" * 50), ceiling, 100) == (150, 150)
    assert bound(request(b'{"image_url":{"image_url":1}}'), ceiling, 100)[0] == 29 + 200 + 100
    for wrong in (b'"7"', b"-3", b"null", b"1.5", b"true"):
        assert bound(request(b"x", max_tokens=wrong), ceiling, 100) == (101, 101)
    assert bound(request(b"x", max_tokens=b"7"), None, 100) == (8, None)
