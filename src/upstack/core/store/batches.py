"""Receipts and outcomes as a writer takes them, for whoever writes a ledger by itself."""

from __future__ import annotations

from collections.abc import Sequence

from upstack.core.store.frames import Batch
from upstack.core.store.rows import clean, to_outcome_row, to_row
from upstack.core.types import Outcome, Receipt


def batch_of(receipts: Sequence[Receipt], told: Sequence[Outcome | None]) -> Batch:
    """Lay out a batch; what is encrypted says its receipt."""
    kept = [
        None
        if receipt.request is None and receipt.answer is None
        else (receipt.request, receipt.answer, receipt.subject, receipt.encrypted)
        for receipt in receipts
    ]
    outcomes = [
        (*clean(to_outcome_row(each)), each.comment, each.demonstration, each.subject, each.encrypted)
        for each in told
        if each is not None
    ]
    return [clean(to_row(receipt)) for receipt in receipts], kept, [], outcomes
