"""The test that promotes: what it costs, and that it errs as seldom as it says. Exact where losses are 0 or 1."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator

import pytest

from upstack.inference.certify import Wealth, furthest, interval, share_of, wealth_of

EPSILON = DELTA = 0.05
STEPS = [((step + 0.5) / 20 / (1 - EPSILON), 0.045) for step in range(20)]
BETS = [*STEPS, (1 / (1 - EPSILON), 0.10)]  # lambda and weight, as the specification has them


def wealth(checks: int, losses: int) -> float:
    """What `checks` are worth of which `losses` were lost, in whatever order: written anew, from the specification."""
    return sum(
        weight * (1 + stake * EPSILON) ** (checks - losses) * (1 - stake * (1 - EPSILON)) ** losses
        for stake, weight in BETS
    )


def most_losses(checks: int, at_least: int) -> int:
    """With how many losses so many checks still promote, -1: with none; it was `at_least` so many a check before."""
    losses = at_least
    while losses < checks and wealth(checks, losses + 1) >= 1 / DELTA:
        losses += 1
    return losses


def promotions(loss: float, checks: int) -> Iterator[float]:
    """The exact probability that it has been promoted, after one check, two and so on, looking after each."""
    alive = [1.0]  # by losses so far
    promoted, bound = 0.0, -1
    for number in range(1, checks + 1):
        before = [*alive, 0.0]
        alive = [stay * (1 - loss) + come * loss for stay, come in zip(before, [0.0, *before[:-1]], strict=True)]
        bound = most_losses(number, bound)
        promoted += sum(alive[: bound + 1])
        alive[: bound + 1] = [0.0] * (bound + 1)
        yield promoted


def median(loss: float) -> int:
    """After how many checks half of all runs have been promoted."""
    return next(number for number, share in enumerate(promotions(loss, 1500), 1) if share >= 0.5)


def test_the_wealth_is_the_one_specified() -> None:
    """The bets of the specification, in any order of the checks."""
    rng = random.Random(1)
    for _ in range(20):
        drawn = [float(rng.random() < 0.1) for _ in range(rng.randrange(1, 300))]
        assert math.isclose(math.exp(wealth_of(drawn, EPSILON).log), wealth(len(drawn), int(sum(drawn))), rel_tol=1e-9)


@pytest.mark.parametrize(("loss", "most"), [(0.0, 90), (0.01, 142), (0.02, 260), (0.03, 665)])
def test_how_many_checks_it_takes(loss: float, most: int) -> None:
    """Half of all runs are promoted by then, whoever looks after every check."""
    assert median(loss) <= most


def test_what_is_not_good_enough_is_seldom_promoted() -> None:
    """At the boundary, looking after each of 3,000 checks: at most delta, and not far below it, as that would waste."""
    *_, ever = promotions(EPSILON, 3000)
    assert 0.03 <= ever <= DELTA


@pytest.mark.parametrize(("loss", "win", "most"), [(0.02, 0.02, 145), (0.04, 0.04, 230), (0.05, 0.05, 285)])
def test_wins_pay_for_losses(loss: float, win: float, most: int) -> None:
    """Where the plan is also better than the reference at times, the sign counts."""
    rng = random.Random(11)

    def draw() -> float:
        at = rng.random()
        return 1.0 if at < loss else -1.0 if at < loss + win else 0.0

    assert statistics.median(checks_until(draw) for _ in range(1000)) <= most


def checks_until(draw: Callable[[], float], epsilon: float = EPSILON, most: int = 3000) -> int:
    """How many checks it takes until it is promoted, `most` where it never is."""
    betting = Wealth(epsilon)
    for number in range(1, most):
        betting.add(draw())
        if betting.proves(DELTA):
            return number
    return most


def test_a_label_that_is_late_or_never_comes_promotes_nothing() -> None:
    """At the boundary, zeros known at once and ones 100 checks late or never: what is not known stands as lost."""
    rng = random.Random(12)
    promoted = 0
    for _ in range(400):
        losses = [float(rng.random() < EPSILON) for _ in range(600)]
        labelled = [rng.random() < 0.7 for _ in losses]
        for seen in range(60, 600, 60):
            known = [loss if not loss or (at + 100 < seen and labelled[at]) else 1.0 for at, loss in enumerate(losses)]
            if wealth_of(known[:seen], EPSILON).proves(DELTA):
                promoted += 1
                break
    assert promoted <= 400 * DELTA + 2 * math.sqrt(400 * DELTA * (1 - DELTA))


def test_the_error_of_all_submissions_is_shared() -> None:
    """However often a task is submitted, and however many paths each time."""
    assert sum(share_of(DELTA, number, 3) * 3 for number in range(1, 100_000)) <= DELTA
    assert share_of(DELTA, 1) == DELTA / 2
    with pytest.raises(ValueError, match="from 1"):
        share_of(DELTA, 0)


@pytest.mark.parametrize(
    ("proved", "taken"), [([], None), ([False, True], None), ([True, True, False, True], 1), ([True], 0)]
)
def test_the_furthest_threshold_with_all_before_it_proved(proved: list[bool], taken: int | None) -> None:
    """One that was not proved ends the path, whatever lies behind it."""
    assert furthest(proved) == taken


def test_twenty_thresholds_at_the_boundary_err_no_oftener_than_one() -> None:
    """All of a path's thresholds read the same rows, their losses growing to a plateau at epsilon."""
    rng = random.Random(13)
    losses = [min(EPSILON, 0.01 + 0.01 * index) for index in range(20)]
    wrong = 0
    for _ in range(150):
        paths = [Wealth(EPSILON) for _ in losses]
        for _ in range(400):
            at = rng.random()
            for path, loss in zip(paths, losses, strict=True):
                path.add(float(at < loss))
        taken = furthest([path.proves(DELTA) for path in paths])
        wrong += taken is not None and losses[taken] >= EPSILON
    assert wrong <= 150 * DELTA + 2 * math.sqrt(150 * DELTA * (1 - DELTA))


def test_the_interval_holds_under_repeated_looking_at_a_moving_mean() -> None:
    """Over all lengths at once, with losses that become likelier and rarer again."""
    rng = random.Random(14)
    missed = 0
    for _ in range(200):
        chances = [0.05 + 0.04 * math.sin(number / 40) for number in range(300)]
        drawn = [float(rng.random() < chance) for chance in chances]
        for length in range(20, 301, 20):
            bounds = interval(drawn[:length], 0.9)
            if not bounds.low <= statistics.fmean(chances[:length]) <= bounds.high:
                missed += 1
                break
    assert missed <= 200 * 0.1 + 2 * math.sqrt(200 * 0.1 * 0.9)
    assert interval([], 0.9).low == -1.0
    narrow = interval([0.0] * 2000, 0.95, least=0.0)
    assert (narrow.low, narrow.high < 0.02) == (0.0, True)


def test_what_is_forecast_comes_true_where_things_go_on() -> None:
    """None where the mean so far is not below epsilon, 0 where it is proved."""
    betting = wealth_of([0.0] * 30, EPSILON)
    left = betting.checks_left(DELTA)
    assert left is not None
    assert 81 - 30 - 5 <= left <= 81 - 30 + 5
    assert wealth_of([1.0, 0.0, 0.0] * 30, EPSILON).checks_left(DELTA) is None
    assert wealth_of([0.0] * 90, EPSILON).checks_left(DELTA) == 0
    assert Wealth(EPSILON).checks_left(DELTA) is None


@pytest.mark.parametrize("excess", [1.5, -1.5, math.nan])
def test_what_is_no_excess_is_refused(excess: float) -> None:
    """By a plain error, and nothing is counted."""
    betting = Wealth(EPSILON)
    with pytest.raises(ValueError, match="is not in -1"):
        betting.add(excess)
    assert betting.checks == 0
    with pytest.raises(ValueError, match="not between"):
        Wealth(1.0)


def test_a_long_run_neither_overflows_nor_dies() -> None:
    """After 100,000 good checks one full loss ruins the boldest bettor, who has nearly all, and no other."""
    betting = wealth_of([0.0] * 100_000, EPSILON)
    before = betting.log
    betting.add(1.0)
    assert 0.99 * before < betting.log < before


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
            betting.add(float(accepted and lost))
        promoted += betting.proves(DELTA)
    assert promoted <= 300 * DELTA + 2 * math.sqrt(300 * DELTA * (1 - DELTA))
