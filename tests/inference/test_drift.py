"""The watch that revokes: how soon, and how seldom for nothing. Simulated with fixed seeds."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from upstack.inference.drift import Watch, revoke_loss

EPSILON = 0.07


def delays(before: float, after: float, alarm: int, runs: int, seed: int) -> list[int]:
    """How many checks after a change the alarm comes, in runs without an earlier one."""
    rng = random.Random(seed)
    found = []
    for _ in range(runs):
        watch = Watch(EPSILON, least=0.0)
        for _ in range(200):
            watch.add(float(rng.random() < before))
        if watch.alarms(alarm):
            continue
        number = 0
        while not watch.alarms(alarm):
            watch.add(float(rng.random() < after))
            number += 1
        found.append(number)
    return found


@pytest.mark.parametrize(("after", "most"), [(0.12, 145), (0.20, 46), (0.50, 11)])
def test_how_soon_it_is_found(after: float, most: int) -> None:
    """From .02 to worse than may be, where a false alarm may come every 1,000 checks."""
    assert statistics.median(delays(0.02, after, 1000, 300, 21)) <= most


def test_false_alarms_are_rarer_than_said() -> None:
    """At the very boundary, where it is hardest: the mean time to one is at least what was asked for."""
    rng = random.Random(22)
    times = []
    for _ in range(200):
        watch = Watch(EPSILON, least=0.0)
        while not watch.alarms(200):
            watch.add(float(rng.random() < EPSILON))
        times.append(watch.checks)
    assert statistics.fmean(times) - 2 * statistics.stdev(times) / math.sqrt(len(times)) >= 200


def test_it_is_found_where_wins_count_too() -> None:
    """Signed excesses: from as many won as lost to one lost in four."""
    watch = Watch(EPSILON)
    for _ in range(100):
        watch.add(0.0)
        watch.add(1.0)
        watch.add(-1.0)
    assert not watch.alarms(10_000)
    for _ in range(200):
        watch.add(1.0)
        for _ in range(3):
            watch.add(0.0)
    assert watch.alarms(10_000)


@pytest.mark.parametrize("excess", [1.5, -0.5, math.nan])
def test_what_is_no_excess_is_refused(excess: float) -> None:
    """By a plain error, and nothing is counted."""
    watch = Watch(EPSILON, least=0.0)
    with pytest.raises(ValueError, match=r"is not in 0\.0 to 1\.0"):
        watch.add(excess)
    assert (watch.checks, watch.evidence) == (0, 0.0)


def test_evidence_stays_a_number() -> None:
    """However long it was bad."""
    watch = Watch(EPSILON, least=0.0)
    for _ in range(10_000):
        watch.add(1.0)
    assert math.isfinite(watch.evidence)


@pytest.mark.parametrize(("max_loss", "revoked"), [(0.01, 0.02), (0.02, 0.03), (0.05, 0.07), (0.1, 0.14)])
def test_revoked_at_somewhat_more_than_promoted(max_loss: float, revoked: float) -> None:
    """So that a plan at the limit does not come and go."""
    assert math.isclose(revoke_loss(max_loss), revoked)
