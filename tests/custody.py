"""Ledgers to encrypt in and to remove from, filled and looked at by hand."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from upstack.core.errors import LedgerError
from upstack.core.store.engine import transaction
from upstack.core.store.ids import first_id
from upstack.core.store.tables import receipts
from upstack.core.types import Receipt
from upstack.testing.receipts import make_outcome, make_receipt
from upstack.testing.store_checks import opened, recorded, told

START = 1_800_000_000.0
HOUR = 3600.0
DAY = 86_400.0


def hourly(count: int, **changes: Any) -> list[Receipt]:
    """Receipts of requests an hour apart, from START on."""
    moments = [START + hour * HOUR for hour in range(count)]
    return [make_receipt(id=first_id(at) + os.urandom(8).hex(), created_at=at, **changes) for at in moments]


def record(place: str, made: list[Receipt], step: int = 10) -> list[LedgerError | None]:
    """Record receipts, `step` in a commit; what became of each."""

    async def main() -> list[LedgerError | None]:
        async with opened(place) as ledger:
            answers = []
            for begin in range(0, len(made), step):
                answers += await recorded(ledger, *made[begin : begin + step])
            return answers

    return asyncio.run(main())


def add_outcome(place: str, about: Receipt, at: float, comment: bytes, subject: str | None = None) -> str:
    """Tell an outcome of a receipt; its id."""
    outcome = make_outcome(about, at=at, comment=comment, subject=subject)

    async def main() -> None:
        async with opened(place) as ledger:
            assert await told(ledger, outcome) == [None]

    asyncio.run(main())
    return outcome.id


def change(place: str, *statements: str) -> None:
    """Change the ledger by hand, past all that watches over it."""
    with transaction(place, write=True) as database:
        if not place.startswith("postgres"):
            database.exec_driver_sql("PRAGMA foreign_keys = OFF")
        for statement in statements:
            database.execute(sa.text(statement))


def ask(place: str, query: str) -> list[Any]:
    """Ask the ledger, as any program could."""
    with transaction(place) as database:
        return [tuple(row) for row in database.execute(sa.text(query)).all()]


def count_rows(place: str) -> int:
    """How many receipts there are."""
    with transaction(place) as database:
        return int(database.execute(sa.select(sa.func.count()).select_from(receipts)).scalar_one())


def bytes_of(folder: Path) -> bytes:
    """All that stands in the files of a folder."""
    return b"\0".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())
