"""SQLAlchemy's way to a ledger: for migrations, and for all that is asked of it off the hot path."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from upstack.core.errors import LedgerError
from upstack.core.store.places import hushed, is_postgres, shown

_WAIT_S = 5.0


@contextmanager
def connected(place: str, *, write: bool = False) -> Iterator[sa.Connection]:
    """Connect to the ledger at `place` for transactions one after the other; errors are the database's own.

    For reading alone unless `write` is set: a file is then not made, and nothing can be changed.
    """
    engine = _postgres(place, write=write) if is_postgres(place) else _sqlite(place, write=write)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def transaction(place: str, *, write: bool = False) -> Iterator[sa.Connection]:
    """Open the ledger at `place` in one transaction, which is committed at the end."""
    with connected(place, write=write) as connection, connection.begin():
        yield connection


@contextmanager
def saying(place: str) -> Iterator[None]:
    """Say what a ledger's database means as LedgerError."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        words = f"the ledger {shown(place)} failed: {str(error.orig).splitlines()[0]}"
        raise LedgerError(hushed(words, place)) from None


def _sqlite(path: str, *, write: bool) -> sa.Engine:
    uri = f"file:{quote(str(Path(path).absolute()))}?mode={'rw' if write else 'ro'}"

    def connect() -> sqlite3.Connection:
        database = sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)
        if write:
            database.execute("PRAGMA secure_delete = ON")  # what is removed is gone from the file
        return database

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:  # the driver itself would leave changes of the schema out of a transaction
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _postgres(url: str, *, write: bool) -> sa.Engine:
    url = "postgresql+psycopg://" + url.partition("://")[2]
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    return engine if write else engine.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
