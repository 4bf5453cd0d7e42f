"""What a ledger is to the gateway: a place for receipts, driven by callbacks as the data plane is.

A coroutine or future for each receipt would cost more than writing it, so a finished receipt comes with a callback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from upstack.core.errors import LedgerError
from upstack.core.types import Outcome, Receipt

OUTCOME_KNOWN = "the idempotency key is another outcome's"  # the failure of an outcome

Done = Callable[[LedgerError | None], None]


class Ledger(Protocol):
    """Records receipts and outcomes durably. All methods belong to one event loop's thread; none of them blocks it."""

    place: str  # for who reads beside it
    keystore: str | None  # where it is not in its usual place

    @property
    def busy(self) -> bool:
        """Whether so much waits to be written that a request should be refused before a provider is called."""
        ...

    @property
    def failing(self) -> str | None:
        """Why receipts cannot be made durable at present, or None. Cleared by itself, within seconds."""
        ...

    @property
    def ready(self) -> bool:
        """Whether what is appended is being written; False before `start` and while a lost writer is replaced."""
        ...

    @property
    def queue_bytes(self) -> int:
        """About how many bytes of memory wait to be written."""
        ...

    @property
    def written(self) -> int:
        """How many receipts have been made durable since the start."""
        ...

    @property
    def dropped(self) -> int:
        """How many receipts could not be kept."""
        ...

    async def start(self) -> None:
        """Get ready to record; LedgerError names what is wrong and the remedy."""
        ...

    async def close(self) -> None:
        """Write what waits, in bounded time, then let go. What could not be written is reported to its `done`."""
        ...

    def append(self, receipt: Receipt, done: Done | None) -> None:
        """Record a finished receipt. `done` is called once and never from within: with None when it is durable.

        With `done` None nobody waits: where the queue is full the receipt is dropped and counted. One that is waited
        for is taken all the same: it was paid for, and `busy` keeps the next from being asked.
        """
        ...

    def open(self, receipt: Receipt, done: Done | None) -> None:
        """Note a stream about to begin (state "open"); `done` as for `append`, and before that of its receipt.

        A crash turns it into a truncated receipt. Noted again, with a later attempt, it takes the place of the first.
        """
        ...

    def tell(self, outcome: Outcome, done: Done) -> None:
        """Record an outcome; `done` as for `append`, with an error that says OUTCOME_KNOWN where its key is taken."""
        ...

    async def get(self, receipt_id: str) -> Receipt | None:
        """Find a receipt, open ones and ones still waiting to be written included."""
        ...
