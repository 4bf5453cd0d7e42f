"""Breaker and cooldown."""

from __future__ import annotations

from collections.abc import Mapping

from upstack.core.errors import Failure, SupplyError
from upstack.foundation.health import FIRST_REST, LONGEST_REST, Health

RESET = SupplyError(Failure.RESET, "reset")


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


def test_callers_faults_and_stale_connections_are_blameless() -> None:
    """What is not the route's fault leaves no trace."""
    health = Health()
    for _ in range(20):
        health.failed("a", SupplyError(Failure.CALLER, "400"), 0.0)
        health.failed("a", SupplyError(Failure.STALE, "closed"), 0.0)
    assert not health.targets
    assert not health.resting


def test_mappings_handed_out_never_change() -> None:
    """Each change gives a new mapping; a decision that read the old one keeps it."""
    seen: list[Mapping[str, float]] = []
    health = Health(seen.append)
    health.failed("a", SupplyError(Failure.AUTH, "401"), 0.0)
    before = dict(seen[0])
    health.failed("b", SupplyError(Failure.AUTH, "401"), 0.0)
    assert seen[0] == before
    assert set(seen[1]) == {"a", "b"}
