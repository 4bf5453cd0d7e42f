"""What follows a failed attempt."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from tests.inference.test_router import make_route
from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Plan
from upstack.inference.cascade import LONGEST_BACKOFF, LONGEST_WAIT, Step, Tried, next_step, summary
from upstack.inference.router import targets_of


def make_plan(*names: str, retries: int = 2) -> Plan:
    """A plan over routes of these names."""
    targets = tuple(target for name in names for target in targets_of(make_route(name)))
    return Plan("task/t", "t", "fallback", targets, retries, "full", "test")


def failed(index: int, failure: Failure, retry_after: float | None = None) -> Tried:
    """An attempt that failed so."""
    return Tried(index, SupplyError(failure, failure.value, retry_after=retry_after))


def test_fails_over_at_once_through_every_target() -> None:
    """Each further target is asked without waiting."""
    plan = make_plan("a/x", "b/x", "c/x")
    tried = [failed(0, Failure.RESET)]
    assert next_step(plan, tried, random.Random(1)) == Step(1, 0.0)
    tried.append(failed(1, Failure.STATUS))
    assert next_step(plan, tried, random.Random(1)) == Step(2, 0.0)


def test_retries_are_bounded_and_jittered() -> None:
    """One target is retried with growing waits, `retries` times, then given up."""
    plan, rng = make_plan("a/x", retries=2), random.Random(1)
    tried = [failed(0, Failure.STATUS)]
    for _ in range(2):
        step = next_step(plan, tried, rng)
        assert step is not None
        assert 0.0 < step.delay < 1.0
        tried.append(failed(0, Failure.STATUS))
    assert next_step(plan, tried, rng) is None


def test_retry_after_is_honoured() -> None:
    """A retry never comes before the Retry-After, and not at all where that is too far."""
    plan = make_plan("a/x")
    step = next_step(plan, [failed(0, Failure.RATE_LIMITED, 3.0)], random.Random(1))
    assert step is not None
    assert step.delay >= 3.0
    assert next_step(plan, [failed(0, Failure.RATE_LIMITED, LONGEST_WAIT + 1)], random.Random(1)) is None


@pytest.mark.parametrize("failure", [Failure.AUTH, Failure.NOT_FOUND, Failure.TOO_LARGE])
def test_what_cannot_mend_is_not_retried(failure: Failure) -> None:
    """A refused key or an unknown model is failed over from, never retried."""
    assert next_step(make_plan("a/x"), [failed(0, failure)], random.Random(1)) is None
    assert next_step(make_plan("a/x", "b/x"), [failed(0, failure)], random.Random(1)) == Step(1, 0.0)


def test_callers_fault_goes_nowhere_else() -> None:
    """A request the provider calls wrong is not tried elsewhere."""
    assert next_step(make_plan("a/x", "b/x"), [failed(0, Failure.CALLER)], random.Random(1)) is None


def test_what_a_model_cannot_take_goes_to_the_next_route() -> None:
    """A request one model cannot take is asked of the next route, with no other key of the same, and never twice."""
    two_keys = targets_of(make_route("a/x", keys=2))
    unfit = [failed(0, Failure.UNFIT)]
    assert next_step(replace(make_plan("b/x"), targets=two_keys), unfit, random.Random(1)) is None
    plan = make_plan("b/x", retries=2)
    plan = replace(plan, targets=(*two_keys, *plan.targets))
    assert next_step(plan, unfit, random.Random(1)) == Step(2, 0.0)
    unfit.append(failed(2, Failure.UNFIT))
    assert next_step(plan, unfit, random.Random(1)) is None
    step = next_step(plan, [failed(0, Failure.UNFIT), failed(2, Failure.RESET)], random.Random(1))
    assert step is not None
    assert step.index == 2


def test_a_target_whose_provider_asked_for_a_rest_is_not_asked_before() -> None:
    """Whoever sent a Retry-After to anyone is passed over until then, however many targets have failed."""
    plan, held = make_plan("a/x", "b/x", "c/x"), {"b/x": 103.0, "c/x": 99.0}
    tried = [failed(0, Failure.RESET)]
    assert next_step(plan, tried, random.Random(1), held, 100.0) == Step(2, 0.0)
    tried.append(failed(2, Failure.AUTH))
    step = next_step(plan, tried, random.Random(1), held, 100.0)
    assert step is not None
    assert step.index == 0, "the one that may be asked sooner"
    tried.append(failed(0, Failure.RESET))
    step = next_step(plan, tried, random.Random(1), held, 100.0)
    assert step is not None
    assert step.index == 1
    assert step.delay >= 3.0
    assert next_step(plan, tried[:2], random.Random(1), {"b/x": 500.0, "a/x": 500.0}, 100.0) is None, "too far"


def test_any_number_of_retries_is_decided() -> None:
    """The backoff stops doubling long before a number overflows."""
    step = next_step(make_plan("a/x", retries=10_000), [failed(0, Failure.RESET)] * 3000, random.Random(1))
    assert step is not None
    assert step.delay <= LONGEST_BACKOFF


def test_stale_connections_cost_no_retry() -> None:
    """Closed pooled connections are replaced at once and do not use up the retries, but not for ever."""
    plan = make_plan("a/x", retries=0)
    tried = [failed(0, Failure.STALE)]
    for _ in range(3):
        assert next_step(plan, tried, random.Random(1)) == Step(0, 0.0)
        tried.append(failed(0, Failure.STALE))
    step = next_step(plan, tried, random.Random(1))
    assert step is None or step.delay > 0.0


@pytest.mark.parametrize(
    ("failures", "status"),
    [
        ([Failure.RATE_LIMITED, Failure.RATE_LIMITED], 429),
        ([Failure.FIRST_BYTE_TIMEOUT, Failure.CONNECT_TIMEOUT], 504),
        ([Failure.RATE_LIMITED, Failure.RESET], 502),
        ([Failure.POOL_FULL, Failure.POOL_FULL], 503),
    ],
)
def test_summary_tells_the_caller_what_kind(failures: list[Failure], status: int) -> None:
    """All rate limited is 429, all timed out 504, anything else 502; each route is named."""
    plan = make_plan("a/x", "b/x")
    shown = summary(plan, [failed(index, failure) for index, failure in enumerate(failures)])
    assert shown.status == status
    assert "a/x" in shown.message
    assert "b/x" in shown.message


def test_a_wait_is_told_only_where_every_route_asked_for_one() -> None:
    """Who asked for none may be well at once."""
    plan = make_plan("a/x", "b/x")
    both = [failed(0, Failure.RATE_LIMITED, 300.0), failed(1, Failure.RATE_LIMITED, 20.0)]
    assert summary(plan, both).retry_after == 20.0
    assert summary(plan, [both[0], failed(1, Failure.STATUS)]).retry_after is None
    assert summary(plan, [both[0], failed(1, Failure.STATUS), both[1]]).retry_after == 20.0, "its latest word counts"
