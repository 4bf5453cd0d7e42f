"""What was said of rows' rights where they came in."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from upstack.core.store.engine import saying, transaction
from upstack.core.store.tables import receipts, rights


def rights_said(place: str, task: str) -> dict[str, str]:
    """What was said of a task's rows: JSON, by the receipt's id."""
    with saying(place), transaction(place) as database:
        query = sa.select(rights.c.id, rights.c.said).join(receipts, receipts.c.id == rights.c.id)
        return {row[0]: row[1] for row in database.execute(query.where(receipts.c.task == task))}


def keep_rights(place: str, said: Mapping[str, str]) -> None:
    """Keep what is said of rows, where nothing was; the first word stands."""
    if not said:
        return
    with saying(place), transaction(place, write=True) as database:
        there = set(database.execute(sa.select(rights.c.id).where(rights.c.id.in_(said))).scalars())
        new = [{"id": own_id, "said": words} for own_id, words in said.items() if own_id not in there]
        if new:
            database.execute(rights.insert(), new)
