"""The ledger in PostgreSQL, as one of its writers holds it. Several hosts may write: each has a chain of its own.

A chain is taken by an advisory lock of the session that writes: it ends with the session, be it by a crash, and no
other writer can go on with the chain before. A pooler must therefore leave sessions whole.
"""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from typing import Any

from upstack.core.errors import LedgerError
from upstack.core.store.chain import new_chain
from upstack.core.store.frames import WHOLE_BATCH, Batch, Failures
from upstack.core.store.places import hushed, keystore_of, shown
from upstack.core.store.recording import Recorder, Statements
from upstack.core.store.schema import VERSION, migrate_apart

try:
    import psycopg
except ImportError as missing:
    raise LedgerError("a ledger in PostgreSQL needs psycopg: pip install 'upstack[postgres]'") from missing

APPLICATION = 0x55505354  # "UPST": the class of our advisory locks
_CONNECT_S = 5
_SILENCE_MS = 10_000  # of a server that has gone without a word
_CHAIN_S = 20.0  # for which a chain is waited for that a lost session still holds
_LEFT = "SELECT id FROM chains WHERE id <> %s AND host = %s AND EXISTS (SELECT 1 FROM openings WHERE chain = chains.id)"
_TABLES = ("receipts", "contents", "openings", "chains")


Error = psycopg.Error


class PostgresLedger(Recorder):
    """A ledger in a database by URL."""

    statements = Statements("%s")
    statements.hold_contents = "LOCK TABLE contents IN ROW EXCLUSIVE MODE"
    refusals = (psycopg.DataError, psycopg.IntegrityError, OverflowError, UnicodeError)

    def __init__(self, url: str, keystore: str | None = None) -> None:
        """Connect, bring the tables to the newest version, take a chain; LedgerError names the remedy."""
        super().__init__(keystore_of(url, keystore))
        self._url = url
        self._database: psycopg.Connection | None = None
        self._lost_at: float | None = None  # when the session that held the chain ended, until there is another
        try:
            self._connection()
        except psycopg.Error as error:
            raise LedgerError(describe(url, error)) from None

    def recover(self) -> int:
        """Turn openings into truncated receipts and count them: of our chain, and of this host's that nobody holds.

        A gateway that died may have had a chain that the next one does not take.
        """
        try:
            database = self._connection()
            total = self._close_openings(database, self.chain)
            for (chain,) in database.execute(_LEFT, (self.chain, platform.node())).fetchall():
                if _hold(database, chain):
                    total += self._close_openings(database, chain)
                    database.execute("SELECT pg_advisory_unlock(%s, %s)", (APPLICATION, chain))
        except psycopg.Error as error:
            self._release()
            raise LedgerError(describe(self._url, error)) from None
        return total

    def _close_openings(self, database: psycopg.Connection, chain: int) -> int:
        total, last = 0, ""
        while True:
            with database.transaction():
                head, count, last = self.close_openings(database, chain, last)
            self.head = head
            total += count
            if not count:
                return total

    def abandon(self, receipt_ids: list[str]) -> None:
        """Turn openings whose gateway has died into truncated receipts."""
        try:
            database = self._connection()
            with database.transaction():
                head = self.close_these(database, receipt_ids)
            self.head = head
        except psycopg.Error as error:
            self._release()
            raise LedgerError(describe(self._url, error)) from None

    def record(self, batch: Batch) -> Failures:
        """Make a batch durable in one commit, and return the rows that could not be."""
        try:
            return self._record(batch)
        except LedgerError as error:
            return [(WHOLE_BATCH, error.message)]
        except psycopg.Error as error:
            self._release()  # the next batch connects anew; what may have been committed is known by its id
            return [(WHOLE_BATCH, describe(self._url, error))]

    def close(self) -> None:
        """Let go of the chain at once, and end the session, which the server does when it comes to it."""
        if self._database is not None:
            with contextlib.suppress(psycopg.Error):  # of a server that is gone; the next writer finds the head
                self.mark_head(self._database)
                self._database.execute("SELECT pg_advisory_unlock_all()")
            self._release()

    def _release(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
            self._lost_at = time.monotonic()

    def of_a_row(self, error: Exception) -> bool:
        """Whether a refusal is about one row's values: all that are caught are."""
        return isinstance(error, self.refusals)

    def many(self, database: psycopg.Connection, statement: str, rows: list[Any]) -> None:
        """Execute a statement for each row, in one go."""
        database.cursor().executemany(statement.encode(), rows)

    def stored(self, content: bytes | str | None) -> bytes | str | None:
        """Bytes, as they are."""
        return content

    def _record(self, batch: Batch) -> Failures:
        database = self._connection()
        try:
            with database.transaction():
                head, failures = self.write(database, batch)
                if not any(batch):
                    self.mark_head(database)
        except self.refusals:
            with database.transaction():
                head, failures = self.write(database, batch, singly=True)
        self.head = head
        return failures

    def _connection(self) -> psycopg.Connection:
        if self._database is None:
            database = connect(self._url)
            try:
                _prepare(database, self._url)
                self._take_chain(database)
                self.find_head(database)
            except BaseException:
                database.close()
                raise
            self._database = database
            self._lost_at = None
        return self._database

    def _take_chain(self, database: psycopg.Connection) -> None:
        """Take a chain, and after a session was lost the same again: leases of budgets count on it."""
        if self._lost_at is None:
            self.chain = _take_chain(database)
        elif not _hold(database, self.chain):
            if time.monotonic() - self._lost_at > _CHAIN_S:
                sys.exit(f"chain {self.chain} is held by a session that was lost")  # the next writer takes another
            raise LedgerError(f"{shown(self._url)}: the session that was lost still holds its chain; it is tried again")


def connect(url: str) -> psycopg.Connection:
    """Open a session; psycopg.Error where it cannot be."""
    return psycopg.connect(
        url,
        autocommit=True,  # a transaction where one is asked for
        connect_timeout=_CONNECT_S,
        tcp_user_timeout=_SILENCE_MS,
        keepalives_idle=_CONNECT_S,
        application_name="upstack",
    )


def describe(url: str, error: psycopg.Error) -> str:
    """Say what PostgreSQL meant. A URL that cannot be read is not quoted: it may hold a password."""
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        return "server.ledger is no URL that PostgreSQL understands: postgresql://USER@HOST:PORT/DATABASE"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return hushed(f"the ledger {shown(url)} failed: {reason}", url)


def foreign(database: psycopg.Connection) -> str | None:
    """Say what keeps a database from being a ledger that this version can use, or None."""
    version = version_of(database)
    if version > VERSION:
        return (
            f"was written by a newer Upstack (ledger version {version}, this one knows up to {VERSION}); "
            "update Upstack, or name another database in server.ledger"
        )
    if not version:
        for table in _TABLES:
            if _there(database, table):
                return f"has a table {table} of another application; name a database of its own in server.ledger"
    return None


def version_of(database: psycopg.Connection) -> int:
    """How many migrations a database has seen; 0: none."""
    if not _there(database, "upstack_version"):
        return 0
    row = database.execute("SELECT version_num FROM upstack_version").fetchone()
    return int(row[0]) if row is not None else 0


def _there(database: psycopg.Connection, table: str) -> bool:
    row = database.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return row is not None and bool(row[0])


def _prepare(database: psycopg.Connection, url: str) -> None:
    wrong = foreign(database)
    if wrong:
        raise LedgerError(f"{shown(url)} {wrong}")
    if version_of(database) < VERSION:
        migrate_apart(url)


def _take_chain(database: psycopg.Connection) -> int:
    """Hold the first chain that no writer has; begin a new one where all are held."""
    with database.transaction():
        database.execute("LOCK TABLE chains IN SHARE ROW EXCLUSIVE MODE")  # one writer chooses at a time
        known: list[int] = [row[0] for row in database.execute("SELECT id FROM chains ORDER BY id").fetchall()]
        for chain in known:
            if _hold(database, chain):
                return chain
        chain = known[-1] + 1 if known else 0
        database.execute(PostgresLedger.statements.new_chain.encode(), new_chain(chain))
        _hold(database, chain)
        return chain


def _hold(database: psycopg.Connection, chain: int) -> bool:
    row = database.execute("SELECT pg_try_advisory_lock(%s, %s)", (APPLICATION, chain)).fetchone()
    return row is not None and bool(row[0])
