"""What outcomes say about an answer: the latest counts, and none is not bad."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from upstack.inference.outcomes import verdict
from upstack.testing.receipts import make_outcome, make_receipt

RECEIPT = make_receipt(created_at=1000.0)
FIRST = make_outcome(RECEIPT, at=1010.0, value=True)
WORSE = make_outcome(RECEIPT, at=1020.0, value=0.25)
BACK = make_outcome(RECEIPT, at=1030.0, value=None, withdrawn=True)
REMARK = make_outcome(RECEIPT, at=1040.0, value=None, comment=b"late")
EPISODE = make_outcome(RECEIPT, at=1050.0, value=False, receipt=None, episode="shift 3")


@pytest.mark.parametrize(
    ("told", "value", "counts", "superseded"),
    [
        ((), None, None, 0),
        ((FIRST,), 1.0, FIRST, 0),
        ((WORSE, FIRST), 0.25, WORSE, 1),
        ((FIRST, WORSE, BACK), None, BACK, 2),
        ((REMARK, FIRST), 1.0, FIRST, 0),
        ((REMARK,), None, None, 0),
        ((EPISODE,), 0.0, EPISODE, 0),
        ((EPISODE, FIRST), 1.0, FIRST, 0),
        ((replace(WORSE, name="tone"), FIRST), 1.0, FIRST, 0),
    ],
)
def test_the_latest_of_a_name_counts(told: tuple, value: float | None, counts: object, superseded: int) -> None:  # type: ignore[type-arg]
    """Of the receipt before its episode; remarks change nothing, a withdrawal makes it not known."""
    found = verdict(told, "outcome", 1000.0, 0.0, 2000.0)
    assert (found.value, found.outcome, found.superseded) == (value, counts, superseded)


def test_an_answer_is_mature_when_outcomes_have_had_their_time() -> None:
    """Before that no outcome means nothing."""
    assert not verdict((), "outcome", 1000.0, 60.0, 1059.9).mature
    assert verdict((), "outcome", 1000.0, 60.0, 1060.0).mature
