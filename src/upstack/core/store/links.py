"""The rows of a ledger as the links of its chains: receipts and outcomes, merged in the order they were chained."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from typing import Any

import msgspec
import sqlalchemy as sa

from upstack.core.store.chain import CHAIN_ROWS
from upstack.core.store.rows import COLUMNS, OUTCOME_COLUMNS, OUTCOME_MARK
from upstack.core.store.statements import Checkpoint, Tombstone, to_checkpoint, to_tombstone
from upstack.core.store.tables import (
    chains,
    checkpoints,
    contents,
    outcome_contents,
    outcomes,
    receipts,
    tombstones,
)
from upstack.core.store.walk import Chain, Link

_PAGE = 1000


class Kind:
    """A table of the chain, and the one with its contents."""

    def __init__(
        self, rows: sa.Table, names: tuple[str, ...], kept: sa.Table, parts: tuple[str, str], mark: tuple[str, ...]
    ) -> None:
        """`parts`: the columns of a content; `mark` stands before the values that are hashed."""
        self.rows = rows
        self.kept = kept
        self.owner: sa.Column[Any] = next(iter(kept.primary_key))
        self._count = len(names)
        self._mark = mark
        self._hashed = (rows.c.seq, *(rows.c[name] for name in names), rows.c.commitment, rows.c.hash)
        self._content = (self.owner, *(_raw(kept.c[name]) for name in (*parts, "salt")))

    def links(self, database: sa.Connection, first: int, last: int, *, with_contents: bool) -> Iterator[Link]:
        """Read a stretch, page by page."""
        query = sa.select(*self._hashed, *(self._content if with_contents else ()))
        if with_contents:
            query = query.select_from(self.rows.outerjoin(self.kept))
        query = query.where(self.rows.c.seq.between(sa.bindparam("first"), last)).order_by(self.rows.c.seq).limit(_PAGE)
        while rows := database.execute(query, {"first": first}).all():
            for row in rows:
                yield self._link(row)
            first = rows[-1][0] + 1

    def _link(self, row: Any) -> Link:
        seq, *values, commitment, stored = row[: self._count + 3]
        content = salt = None
        if len(row) > self._count + 3 and row[self._count + 3] is not None:
            one, other, salt = map(_bytes, row[self._count + 4 :])
            content = one, other
        return Link(seq, values[0], (*self._mark, *values), commitment, stored, content, salt, bool(self._mark))


def _raw(column: sa.Column[Any]) -> sa.Label[Any]:
    """A column of bytes that SQLite may hold as text."""
    return sa.type_coerce(column, sa.types.NullType()).label(column.name)


def _bytes(content: Any) -> bytes | None:
    return content.encode() if isinstance(content, str) else None if content is None else bytes(content)


RECEIPTS = Kind(receipts, COLUMNS, contents, ("request", "answer"), ())
OUTCOMES = Kind(outcomes, OUTCOME_COLUMNS, outcome_contents, ("comment", "demonstration"), OUTCOME_MARK)
KINDS = (RECEIPTS, OUTCOMES)


def read_links(database: sa.Connection, first: int, last: int, *, with_contents: bool = True) -> Iterator[Link]:
    """Read a stretch of a chain."""
    each = (kind.links(database, first, last, with_contents=with_contents) for kind in KINDS)
    return merge(*each, key=lambda link: link.seq)


def read_chains(database: sa.Connection) -> list[Chain]:
    """All chains."""
    query = sa.select(chains.c.id, chains.c.genesis, chains.c.head_seq, chains.c.head_hash).order_by(chains.c.id)
    return [Chain(*msgspec.convert(tuple(row), tuple[int, str, int, str])) for row in database.execute(query).all()]


def read_tombstones(database: sa.Connection) -> list[Tombstone]:
    """All of them."""
    return [to_tombstone(row._mapping) for row in database.execute(sa.select(tombstones)).all()]  # noqa: SLF001


def read_checkpoints(database: sa.Connection) -> list[Checkpoint]:
    """All of them."""
    return [to_checkpoint(row._mapping) for row in database.execute(sa.select(checkpoints)).all()]  # noqa: SLF001


def hash_at(database: sa.Connection, chain: Chain, seq: int) -> str | None:
    """The hash of the row at a place: read, or as the genesis or a tombstone has it; None where nothing says it."""
    if seq == chain.id * CHAIN_ROWS:
        return chain.genesis
    for table in (receipts, outcomes):
        found = database.execute(sa.select(table.c.hash).where(table.c.seq == seq)).scalar()
        if found is not None:
            return str(found)
    there = (tombstones.c.kind == "rows") & (tombstones.c.last_seq == seq)
    return database.execute(sa.select(tombstones.c.hash_after).where(there)).scalar()
