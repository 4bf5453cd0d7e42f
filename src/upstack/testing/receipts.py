"""Receipts and outcomes for tests of whatever keeps or reads them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from upstack.core.store.ids import ReceiptIds, outcome_id
from upstack.core.types import Attempt, Outcome, Receipt, Usage

_ids = ReceiptIds()

# Changes that leave out what ledgers before version 4, and before version 3, did not know.
UNCHECKED: dict[str, Any] = dict.fromkeys(("coin", "check_of"))
UNASKED: dict[str, Any] = dict.fromkeys(("key", "team", "episode", "reserved_picodollars", "subject")) | UNCHECKED

# Changes that leave as little as a receipt can have.
BARE: dict[str, Any] = {
    "task": None,
    "route": None,
    "stream": True,
    "error": "connection_refused",
    "first_byte_s": None,
    "usage": None,
    "cost_picodollars": None,
    "attempts": (),
    "capture": "none",
    "request": None,
    "answer": None,
    **UNASKED,
}


def make_receipt(**changes: Any) -> Receipt:
    """Make the receipt of a request that was answered, with a new id; `changes` are fields that differ."""
    usage = Usage(300, 120, cached_input_tokens=100, cache_write_tokens=7, reasoning_tokens=20)
    attempt = Attempt(
        "cheap", "openai", "gpt-4o", "f3a91b2c", 0, 200, None, 0.001, 0.2, 0.5, usage, "genai-prices 0.2.3", 1950
    )
    now = 1_800_000_000.123456
    receipt = Receipt(
        id=_ids(now),
        created_at=now,
        state="answered",
        model="task/triage",
        task="triage",
        strategy="fallback",
        plan="cheap, openai/gpt-4o",
        why="first in the configured order of task triage",
        route="cheap",
        stream=False,
        status=200,
        error=None,
        first_byte_s=0.2,
        duration_s=0.5,
        usage=usage,
        cost_picodollars=1950,
        attempts=(attempt,),
        capture="full",
        request=b'{"model":"task/triage"}',
        answer=b'{"choices":[]}',
        key="app",
        team="dispatch",
        episode="shift 3",
        reserved_picodollars=5000,
        subject="driver 17",
        coin=0.05,
        check_of=None,
    )
    return replace(receipt, **changes)


def make_outcome(about: Receipt, *, at: float = 1_800_000_060.5, **changes: Any) -> Outcome:
    """Make an outcome of a receipt, told at `at` (Unix seconds), with a new id; `changes` are fields that differ."""
    own_id = outcome_id(_ids(at))
    outcome = Outcome(
        id=own_id,
        created_at=at,
        observed_at=at,
        receipt=about.id,
        name="outcome",
        value=True,
        source="reviewer",
        idempotency_key=own_id,
    )
    return replace(outcome, **changes)
