"""Breaker and cooldown."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from upstack.core.errors import Failure, SupplyError
from upstack.foundation.health import FIRST_REST, LARGEST, LONGEST_REST, LONGEST_RETRY_AFTER, Health

RESET = SupplyError(Failure.RESET, "reset")
LIMITED = SupplyError(Failure.RATE_LIMITED, "429", retry_after=60.0)


def test_breaker_opens_after_five_failures_in_a_row() -> None:
    """Four failures leave a target in service, the fifth lets it rest."""
    health = Health()
    for _ in range(4):
        health.failed("a", RESET, 0.0)
    assert not health.resting
    health.failed("a", RESET, 0.0)
    assert health.resting == {"a": FIRST_REST}


def test_a_failed_probe_doubles_the_rest_and_a_good_one_ends_it() -> None:
    """After its rest one probe goes through; its result decides."""
    health = Health()
    for _ in range(5):
        health.failed("a", RESET, 0.0)
    now = FIRST_REST
    health.started("a", now)
    assert health.resting["a"] > now, "others keep away while the probe is under way"
    health.failed("a", RESET, now)
    assert health.resting["a"] == now + 2 * FIRST_REST
    health.answered("a", 0.1)
    assert not health.resting


def test_rest_is_bounded() -> None:
    """However often the probe fails, the rest stays under the limit."""
    health, now = Health(), 0.0
    for _ in range(50):
        health.failed("a", RESET, now)
        now = max(now, health.resting.get("a", 0.0))
        health.started("a", now)
    assert health.resting["a"] - now <= LONGEST_REST


def test_rate_limit_rests_as_long_as_told() -> None:
    """A 429 lets the target rest for its Retry-After, without counting as a fault."""
    health = Health()
    health.failed("a", SupplyError(Failure.RATE_LIMITED, "429", retry_after=7.0), 100.0)
    assert health.resting == {"a": 107.0}
    assert health.targets["a"].failure_rate == 0.0


def test_a_rate_limit_without_a_time_is_our_guess() -> None:
    """A 429 without Retry-After lets the target rest, but nobody forbade to ask it; a Retry-After of 0 is no rest."""
    health = Health()
    health.failed("a", SupplyError(Failure.RATE_LIMITED, "429"), 100.0)
    health.failed("b", SupplyError(Failure.RATE_LIMITED, "429", retry_after=0.0), 100.0)
    assert health.resting == {"a": 100.0 + FIRST_REST}
    assert not health.held


@pytest.mark.parametrize("failure", [Failure.STATUS, Failure.RATE_LIMITED, Failure.AUTH])
def test_every_retry_after_is_a_rest_that_was_asked_for(failure: Failure) -> None:
    """A 503 or 529 that says when to come back is left alone until then, from the first on, as a 429 is."""
    health = Health()
    health.failed("a", SupplyError(failure, "503", retry_after=70.0), 100.0)
    assert health.resting == {"a": 170.0}
    assert health.held == {"a": 170.0}
    health.failed("b", SupplyError(failure, "503", retry_after=86_400.0), 100.0)
    assert health.held["b"] == 100.0 + LONGEST_RETRY_AFTER


def test_what_began_before_a_rest_that_was_asked_for_does_not_change_it() -> None:
    """Neither a late answer nor a late failure of an earlier request ends or shortens it; a probe after it does."""
    health = Health()
    health.failed("a", LIMITED, 100.0)
    for _ in range(9):
        health.answered("a", 0.1)
        health.failed("a", RESET, 101.0)
        health.failed("a", SupplyError(Failure.CALLER, "400"), 101.0)
        health.failed("a", SupplyError(Failure.RATE_LIMITED, "429"), 101.0)
    assert health.resting == health.held == {"a": 160.0}
    health.started("a", 159.0)
    assert health.held == {"a": 160.0}
    health.started("a", 160.0)
    assert health.resting["a"] > 160.0, "others keep away while the probe is under way"
    assert not health.held
    health.answered("a", 0.1)
    assert not health.resting


def test_a_probe_during_our_own_longer_rest_ends_both() -> None:
    """Where the breaker rests longer than was asked for, a last resort that is answered ends the rest."""
    health = Health()
    for _ in range(5):
        health.failed("a", SupplyError(Failure.STATUS, "503", retry_after=1.0), 100.0)
    assert (health.resting["a"], health.held["a"]) == (100.0 + FIRST_REST, 101.0)
    health.started("a", 102.0)
    health.answered("a", 0.1)
    assert not health.resting


def test_what_is_not_the_routes_fault_is_blameless() -> None:
    """The caller's faults, closed connections and our own limits leave no trace."""
    health = Health()
    for _ in range(20):
        for failure in (Failure.CALLER, Failure.UNFIT, Failure.STALE, Failure.POOL_FULL):
            health.failed("a", SupplyError(failure, "no"), 0.0)
    assert not health.targets
    assert not health.resting


@pytest.mark.parametrize("failure", [Failure.CALLER, Failure.UNFIT])
def test_a_probe_that_meets_a_callers_fault_ends_the_rest(failure: Failure) -> None:
    """A route that judges requests lives."""
    health = Health()
    for _ in range(5):
        health.failed("a", RESET, 0.0)
    health.started("a", FIRST_REST)
    health.failed("a", SupplyError(failure, "400"), FIRST_REST)
    assert not health.resting
    health.failed("a", RESET, FIRST_REST)
    assert not health.resting, "the record begins anew"


def test_targets_in_use_outlast_any_number_of_made_up_names() -> None:
    """Callers can name any model of a provider; the records they make push out none that is asked more often."""
    health = Health()
    for _ in range(3):
        health.answered("configured", 0.1)
    health.failed("configured", LIMITED, 100.0)
    for number in range(3 * LARGEST):
        health.answered(f"made-up-{number}", 0.1)
    assert len(health.targets) <= LARGEST
    assert health.targets["configured"].answered == 3
    assert health.held == {"configured": 160.0}


def test_mappings_handed_out_never_change() -> None:
    """Each change gives a new mapping; a decision that read the old one keeps it."""
    seen: list[Mapping[str, float]] = []
    health = Health(seen.append)
    health.failed("a", SupplyError(Failure.AUTH, "401"), 0.0)
    before = dict(seen[0])
    health.failed("b", SupplyError(Failure.AUTH, "401"), 0.0)
    assert seen[0] == before
    assert set(seen[1]) == {"a", "b"}
