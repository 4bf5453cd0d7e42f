"""From checks to excesses, and what becomes of a biased judge. Simulated with fixed seeds."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from upstack.inference.certify import Wealth, interval
from upstack.inference.evidence import Check, excess_of, excesses, judged, most_judged

EPSILON = DELTA = 0.05


@pytest.mark.parametrize(
    ("check", "excess"),
    [
        (Check(escalated=True), 0.0),
        (Check(escalated=True, plan_loss=1.0, reference_loss=0.0), 0.0),
        (Check(same=True), 0.0),
        (Check(), 1.0),
        (Check(plan_loss=0.0), 1.0),
        (Check(reference_loss=1.0), 1.0),
        (Check(plan_loss=1.0, reference_loss=0.0), 1.0),
        (Check(plan_loss=0.0, reference_loss=1.0), -1.0),
        (Check(plan_loss=0.5, reference_loss=0.25), 0.25),
    ],
)
def test_what_a_check_says(check: Check, excess: float) -> None:
    """What nobody has judged is as bad as can be; what is the same needs no judge."""
    assert excess_of(check) == excess


def test_without_labels_every_disagreement_counts_in_full() -> None:
    """A win as well, as nobody knows that it is one."""
    checks = [Check(same=True), Check(plan_loss=0.0, reference_loss=1.0), Check(escalated=True), Check()]
    assert excesses(checks) == [0.0, -1.0, 0.0, 1.0]
    assert excesses(checks, labelled=False) == [0.0, 1.0, 0.0, 1.0]


def test_a_cascade_that_accepts_more_and_more_is_not_promoted_at_the_boundary() -> None:
    """Its accept rate drifts from .7 to 1, with an overall excess of epsilon: escalated ones count, as free zeros."""
    rng = random.Random(31)
    promoted = 0
    for _ in range(300):
        betting = Wealth(EPSILON)
        for number in range(600):
            accept = 0.7 + 0.3 * number / 600
            accepted = rng.random() < accept
            lost = rng.random() < EPSILON / accept
            betting.add(excess_of(Check(escalated=not accepted, plan_loss=float(lost), reference_loss=0.0)))
        promoted += betting.proves(DELTA)
    assert promoted <= 300 * DELTA + 2 * math.sqrt(300 * DELTA * (1 - DELTA))


def by_a_biased_judge(rng: random.Random, loss: float, rate: float) -> float:
    """One excess: a judge that overlooks two losses in three, and a label by a coin."""
    truth = float(rng.random() < loss)
    verdict = truth if rng.random() < 1 / 3 else 0.0
    return judged(verdict, rate, truth if rng.random() < rate else None)


def test_a_biased_judge_is_put_right_on_average() -> None:
    """Within what a mean of 20,000 may be off."""
    rng = random.Random(32)
    drawn = [by_a_biased_judge(rng, 0.3, 0.2) for _ in range(20_000)]
    assert abs(statistics.fmean(drawn) - 0.3) < 3 * statistics.stdev(drawn) / math.sqrt(len(drawn))
    assert max(map(abs, drawn)) <= most_judged(0.2)
    assert most_judged(1.0) == 1.0


def test_a_biased_judge_promotes_nothing_at_the_boundary() -> None:
    """Though by its own word the excess is a third of epsilon."""
    rng = random.Random(33)
    bound = most_judged(0.5)
    promoted = 0
    for _ in range(200):
        betting = Wealth(EPSILON, most=bound, least=-bound)
        for _ in range(800):
            betting.add(by_a_biased_judge(rng, EPSILON, 0.5))
        promoted += betting.proves(DELTA)
    assert promoted <= 200 * DELTA + 2 * math.sqrt(200 * DELTA * (1 - DELTA))


def test_intervals_of_a_biased_judge_cover_under_repeated_looking() -> None:
    """At every look, in nine of ten runs and more."""
    rng = random.Random(34)
    bound = most_judged(0.5)
    missed = 0
    for _ in range(150):
        drawn = [by_a_biased_judge(rng, 0.2, 0.5) for _ in range(300)]
        looks = (interval(drawn[:length], 0.9, -bound, bound) for length in range(30, 301, 30))
        missed += any(not look.low <= 0.2 <= look.high for look in looks)
    assert missed <= 150 * 0.1 + 2 * math.sqrt(150 * 0.1 * 0.9)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, math.nan])
def test_without_a_coin_a_judge_is_no_evidence(rate: float) -> None:
    """By a plain error."""
    with pytest.raises(ValueError, match="label rate"):
        judged(0.0, rate, None)
