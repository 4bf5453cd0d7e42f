"""Receipts as rows and back, and their ids."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import msgspec
import pytest

from upstack.core.store.frames import Batch, decode_batch, frame
from upstack.core.store.ids import ReceiptIds
from upstack.core.store.rows import COLUMNS, clean, to_outcome_row, to_receipt, to_row
from upstack.testing.receipts import BARE, make_outcome, make_receipt


@pytest.mark.parametrize("changes", [{}, BARE, {"model": "mo\0dèl \N{SLICE OF PIZZA}"}, {"created_at": 0.0}])
def test_a_row_makes_the_same_receipt_again(changes: dict[str, Any]) -> None:
    """Nothing of a receipt is lost in its row."""
    receipt = make_receipt(**changes)
    row = to_row(receipt)
    assert len(row) == len(COLUMNS)
    assert to_receipt(row, (receipt.request, receipt.answer, receipt.subject, False)) == receipt


def test_times_are_text_of_microseconds_that_come_back_as_they_were() -> None:
    """Whatever the clock says, the same text stands for it after it was read."""
    for seconds in (time.time(), 1_700_000_000.999_999_9, 1_700_000_000.0, 951_782_399.5):
        row = to_row(make_receipt(created_at=seconds))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row[1])
        again = to_receipt(row)
        assert abs(again.created_at - seconds) < 1e-6
        assert to_row(again)[1] == row[1]


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 1e300])
def test_an_absurd_time_is_refused(seconds: float) -> None:
    """A time that no calendar holds is an error, not a row."""
    with pytest.raises((ValueError, OverflowError)):
        to_row(make_receipt(created_at=seconds))


def test_lone_surrogates_are_written_as_escapes() -> None:
    """What UTF-8 cannot hold becomes readable text, in an attempt too."""
    attempt = msgspec.structs.replace(make_receipt().attempts[0], model="bad \udc80")
    row = clean(to_row(make_receipt(model="bad \ud800", attempts=(attempt,))))
    again = to_receipt(row)
    assert again.model == r"bad \ud800"
    assert again.attempts[0].model == r"bad \udc80"
    assert clean({"a\ud800": ["b\ud801", 1, None]}) == {r"a\ud800": [r"b\ud801", 1, None]}


def test_a_batch_survives_its_frame() -> None:
    """Rows, contents, openings and outcomes arrive as they were sent."""
    batch: Batch = (
        [to_row(make_receipt())],
        [(b"\xff", None, "s", True)],
        [(*to_row(make_receipt()), b"{}", None, False)],
        [(*to_outcome_row(make_outcome(make_receipt())), b"late", None, "s", False)],
    )
    message = frame(batch)
    assert int.from_bytes(message[:4]) == len(message) - 4
    assert decode_batch(memoryview(message)[4:]) == batch


def test_ids_are_unique_ordered_and_of_one_shape() -> None:
    """Later ids sort after earlier ones, whoever makes them; no two are equal."""
    makers = [ReceiptIds(), ReceiptIds()]
    made = [makers[number % 2](1_700_000_000 + number // 4 / 1000) for number in range(10_000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"rcpt_[0-9a-f]{28}", one) for one in made)
    assert [one[:17] for one in made] == sorted(one[:17] for one in made)
    assert makers[0](1.0) < makers[0](1.0) < makers[0](1.001)
