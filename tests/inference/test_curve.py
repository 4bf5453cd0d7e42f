"""Cost against quality: by hand on a few rows, and what chance and foresight give."""

from __future__ import annotations

import random

import pytest

from upstack.core.errors import EvidenceError
from upstack.inference.curve import curve

WEAK = [1.0, 1.0, 0.0, 0.0]
STRONG = [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("scores", "apgr", "half", "most"),
    [
        ([4, 3, 2, 1], 0.75, 0.25, 0.4),  # those that need it come first
        ([1, 2, 3, 4], 0.25, 0.75, 0.9),  # last
        ([1, 1, 1, 1], 0.5, 0.5, 0.8),  # left to chance
        ([2, 1, 2, 1], 0.5, 0.5, 0.8),
        ([3, 2, 2, 1], 0.6875, 0.25, 0.55),
    ],
)
def test_by_hand(scores: list[float], apgr: float, half: float, most: float) -> None:
    """Two of four rows need the strong route."""
    found = curve(scores, WEAK, STRONG)
    assert found.apgr == pytest.approx(apgr)
    assert found.cpt(0.5) == pytest.approx(half)
    assert found.cpt(0.8) == pytest.approx(most)
    assert (found.points[0], found.points[-1]) == ((0.0, 0.0), (1.0, 1.0))


def test_where_the_weak_one_is_better_at_times_more_than_the_gap_can_be_won() -> None:
    """And sending those to the strong one as well costs what was won."""
    found = curve([2, 1], [1.0, 0.0], [0.0, 0.5])
    assert found.points == ((0.0, 0.0), (0.5, 2.0), (1.0, 1.0))
    assert found.cpt(0.5) == pytest.approx(0.125)


def test_scores_that_know_nothing_recover_half() -> None:
    """On many rows, within what chance leaves."""
    rng = random.Random(41)
    weak = [float(rng.random() < 0.4) for _ in range(5000)]
    strong = [float(rng.random() < 0.1) for _ in weak]
    assert curve([rng.random() for _ in weak], weak, strong).apgr == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("losses", [([], []), ([0.0], [0.0]), ([0.0, 1.0], [1.0, 1.0])])
def test_without_a_gap_there_is_no_curve(losses: tuple[list[float], list[float]]) -> None:
    """Said plainly."""
    with pytest.raises(EvidenceError, match="no better"):
        curve([0.0] * len(losses[0]), *losses)
