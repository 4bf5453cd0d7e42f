"""All rows of a ledger, out of it in one snapshot and into an empty one in one transaction, in either database.

A value comes and goes as it stands in the database: a text, a number, None, or bytes where the column holds bytes that
are no text. So hashes, salts and sums arrive as they left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import sqlalchemy as sa

from upstack.core.errors import LedgerError
from upstack.core.store.chain import CHAIN_ROWS
from upstack.core.store.engine import saying, transaction
from upstack.core.store.places import is_postgres, shown
from upstack.core.store.reading import check_version
from upstack.core.store.tables import chains, metadata, outcomes, receipts

TABLES = tuple(metadata.sorted_tables)  # those that others refer to come first
NOT_EMPTY = "ledger_not_empty"  # the code of the error where something is in a ledger that is to be filled

_PAGE = 200  # rows, which may have large contents
_WRITERS = 0x55505354  # the class of the locks that say which chains are being written: postgres.APPLICATION

Table = sa.Table
Column = sa.Column
Values = tuple[Any, ...]  # of a row, in the order of its table's columns


def kind_of(column: Column[Any]) -> type:
    """What a column holds: bytes, float, int or str."""
    kinds: tuple[tuple[type, type], ...] = ((sa.LargeBinary, bytes), (sa.Double, float), (sa.Integer, int))
    return next((kind for type_, kind in kinds if isinstance(column.type, type_)), str)


class ChainEnd(msgspec.Struct, frozen=True):
    """Where a chain begins and where its newest row is."""

    id: int
    genesis: str
    seq: int
    hash: str


class Snapshot:
    """A ledger at one moment, whoever writes meanwhile."""

    def __init__(self, database: sa.Connection) -> None:
        self._database = database

    def rows(self, table: sa.Table) -> Iterator[Values]:
        """All rows in the order of the primary key; binary ones may come as text."""
        query = sa.select(*(sa.type_coerce(each, sa.types.NullType()).label(each.name) for each in table.columns))
        query = query.order_by(*table.primary_key.columns)
        for row in self._database.execution_options(yield_per=_PAGE).execute(query):
            yield tuple(row)

    def ends(self) -> tuple[ChainEnd, ...]:
        """Every chain's end; the table of chains may be a second behind."""
        return _ends(self._database)


@contextmanager
def snapshot(place: str) -> Iterator[Snapshot]:
    """Read the ledger at `place`; LedgerError where it cannot be."""
    check_version(place)
    with saying(place), transaction(place) as database:
        yield Snapshot(database)


def fill(place: str, tables: Iterable[tuple[sa.Table, Iterable[Values]]], ends: Iterable[ChainEnd]) -> int:
    """Put rows into the ledger at `place`, made where there is none, all or nothing; how many there were.

    LedgerError where it is not empty, is being written, does not take a row, or would not end with `ends`.
    """
    with _held(place) as prepare, saying(place), transaction(place, write=True) as database:
        prepare(database)
        _empty(database, place)
        count = sum(_insert(database, table, rows, texts=not is_postgres(place)) for table, rows in tables)
        if _ends(database) != tuple(ends):
            raise LedgerError("its chains do not end as they should: nothing was imported")
        return count


def _ends(database: sa.Connection) -> tuple[ChainEnd, ...]:
    found = []
    for chain in database.execute(sa.select(chains).order_by(chains.c.id)).all():
        end = ChainEnd(chain.id, chain.genesis, chain.head_seq, chain.head_hash)
        for table in (receipts, outcomes):
            newer = table.c.seq.between(end.seq + 1, (chain.id + 1) * CHAIN_ROWS - 1)
            query = sa.select(table.c.seq, table.c.hash).where(newer).order_by(table.c.seq.desc()).limit(1)
            newest = database.execute(query).first()
            if newest is not None:
                end = ChainEnd(chain.id, chain.genesis, newest.seq, newest.hash)
        found.append(end)
    return tuple(found)


def _insert(database: sa.Connection, table: sa.Table, rows: Iterable[Values], *, texts: bool) -> int:
    """Insert page by page; `texts`: a binary column takes text as text, as the writer of a file has it."""
    names = [column.name for column in table.columns]
    binary = () if texts else [column.name for column in table.columns if isinstance(column.type, sa.LargeBinary)]
    into = sa.table(table.name, *map(sa.column, names)).insert()  # without types: values are bound as they are
    count = 0
    page: list[dict[str, Any]] = []
    for row in rows:
        values = dict(zip(names, row, strict=True))
        for name in binary:
            if isinstance(values[name], str):
                values[name] = values[name].encode()
        page.append(values)
        if len(page) == _PAGE:
            database.execute(into, page)
            count += len(page)
            page = []
    if page:
        database.execute(into, page)
    return count + len(page)


def _empty(database: sa.Connection, place: str) -> None:
    """Make sure that nothing is there, but for the beginning of a chain that was never used."""
    for table in TABLES:
        used = table.c.head_seq > sa.cast(table.c.id, sa.BigInteger) * CHAIN_ROWS if table is chains else sa.true()
        if database.execute(sa.select(sa.literal(1)).select_from(table).where(used).limit(1)).first() is not None:
            raise LedgerError(
                f"{shown(place)} is not empty; name a new file or database with --ledger",
                code=NOT_EMPTY,
            )
    database.execute(chains.delete())


@contextmanager
def _held(place: str) -> Iterator[Any]:
    """Make the ledger's tables where they are missing, and keep writers away; what the transaction begins with."""
    if is_postgres(place):
        from upstack.core.store.postgres import PostgresLedger  # noqa: PLC0415 - an extra, and large

        PostgresLedger(place).close()
        yield lambda database: _keep_away(database, place)
        return
    from upstack.core.store.lock import Lock  # noqa: PLC0415 - not where there is only reading
    from upstack.core.store.sqlite import SqliteLedger  # noqa: PLC0415

    lock = Lock(place, 0.0)
    try:
        SqliteLedger(place).close()
        yield lambda _: None
    finally:
        lock.release()


def _keep_away(database: sa.Connection, place: str) -> None:
    database.execute(sa.text("LOCK TABLE chains IN ACCESS EXCLUSIVE MODE"))  # whoever would write waits for a chain
    here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    held = f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = :writers AND granted AND {here} LIMIT 1"
    if database.execute(sa.text(held), {"writers": _WRITERS}).first() is not None:
        raise LedgerError(f"{shown(place)} is being written by a gateway; stop it, then import")
