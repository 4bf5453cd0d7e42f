"""Free hints: they seldom stir while nothing changes, and soon where something does."""

from __future__ import annotations

import random
import statistics

import pytest

from upstack.inference.hints import Hints


def _until(seed: int, most: int, tokens: float = 1.0, seconds: float = 1.0) -> int | None:
    """How many answers until they look different; their sizes and times are changed after 300."""
    draw = random.Random(seed)
    hints = Hints()
    for number in range(most):
        changed = number >= 300
        count = draw.lognormvariate(5, 0.5) * (tokens if changed else 1.0)
        if hints.see(int(count), draw.lognormvariate(0, 0.5) * (seconds if changed else 1.0)):
            return number - 300
    return None


def test_where_nothing_changes_they_seldom_stir() -> None:
    """In 40 times 2,000 answers."""
    assert sum(_until(seed, 2_000) is not None for seed in range(40)) <= 2


@pytest.mark.parametrize(("tokens", "seconds"), [(2.0, 1.0), (0.5, 1.0), (1.0, 2.0), (1.0, 0.5)])
def test_a_change_is_seen_soon(tokens: float, seconds: float) -> None:
    """Twice or half as long, in tokens or in time."""
    found = [_until(seed, 2_000, tokens, seconds) for seed in range(40)]
    assert None not in found
    assert 0 < statistics.median(each for each in found if each is not None) <= 40


def test_it_stays_raised_for_a_while_and_learns_anew() -> None:
    """What has become usual is no change."""
    hints = Hints()
    for number in range(200):
        hints.see(50 + number % 7, 1.0)
    assert any(hints.see(500, 1.0) for _ in range(20))
    assert hints.raised
    assert not any(hints.see(500 + number % 7, 1.0) for number in range(1_500))
    assert not hints.raised
