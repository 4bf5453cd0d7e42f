"""The ledger in SQLite, as its one writer holds it. It imports little: the writer's memory and start are counted.

WAL and synchronous = FULL: what is committed survives a power cut. One transaction a batch.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upstack.core.errors import LedgerError
from upstack.core.store.chain import new_chain
from upstack.core.store.frames import WHOLE_BATCH, Batch, Failures
from upstack.core.store.lock import Lock
from upstack.core.store.places import cannot_open, keystore_of, make, place_of
from upstack.core.store.recording import Recorder, Statements
from upstack.core.store.schema import VERSION, create, foreign, migrate_apart, stamp, version_of

_PAGE_BYTES = 8192  # half the system calls of 4096; beyond it single rows cost more
_CACHE_KIB = 1024  # a writer at the right edge needs little
_CHECKPOINT_PAGES = 500  # 4 MB; at ten times that a checkpoint holds up a commit for 50 ms
_BUSY_S = 5.0
_LOOK_AGAIN_S = 0.0002

_ROW_ERRORS = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}  # of one row, not of the file
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; make room, it is tried again with the next request",
    sqlite3.SQLITE_BUSY: "it is locked by another program; close that one",
    sqlite3.SQLITE_READONLY: "it is read-only; make it writable for this user, or name another file in server.ledger",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check the folder and its permissions, or change server.ledger",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; name another file in server.ledger",
    sqlite3.SQLITE_CORRUPT: "it is damaged; move it away and restore a backup",
}


def describe(path: str, error: Exception) -> str:
    """Say in words what SQLite meant, and the remedy."""
    reason = _REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error))
    return f"the ledger {path} failed: {reason}"


class SqliteLedger(Recorder):
    """A ledger in a file."""

    statements = Statements("?")
    refusals = (sqlite3.Error, OverflowError, UnicodeError)

    def __init__(self, path: str, lock: Lock | None = None, keystore: str | None = None) -> None:
        """Open or make the file; LedgerError names it and the remedy. `lock` is minded as long as it is open."""
        super().__init__(keystore_of(path, keystore))
        self.path = path
        self._lock = lock
        self._database: sqlite3.Connection | None = None
        self._place: tuple[int, int] | None = None  # of the file that is open
        self._connection()

    def recover(self) -> int:
        """Turn the openings that a crash left into truncated receipts, and return how many there were."""
        total, last = 0, ""
        try:
            while True:
                with _transaction(self._connection()) as database:
                    head, count, last = self.close_openings(database, self.chain, last)
                self.head = head
                total += count
                if not count:
                    return total
        except sqlite3.Error as error:
            raise LedgerError(describe(self.path, error)) from None

    def abandon(self, receipt_ids: list[str]) -> None:
        """Turn openings whose gateway has died into truncated receipts."""
        try:
            with _transaction(self._connection()) as database:
                head = self.close_these(database, receipt_ids)
            self.head = head
        except sqlite3.Error as error:
            raise LedgerError(describe(self.path, error)) from None

    def record(self, batch: Batch) -> Failures:
        """Make a batch durable in one commit, and return the rows that could not be."""
        try:
            failures = self._record(batch)
            if self._lock is not None:
                self._lock.keep()
            if place_of(self.path) != self._place:  # deleted or replaced: what we wrote went with the old file
                self._release()
                failures = self._transact(batch, singly=True)
        except LedgerError as error:
            return [(WHOLE_BATCH, error.message)]
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                self._release()  # a handle that met a full or failing disk is not trusted; the next batch opens anew
            return [(WHOLE_BATCH, describe(self.path, error))]
        return failures

    def close(self) -> None:
        """Let go of the file; what is committed stays."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):  # of a file that is gone or full; the next writer finds the head
                self.mark_head(self._database)
            self._release()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _release(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def of_a_row(self, error: Exception) -> bool:
        """Whether a refusal is about one row's values; what has no code was found while binding them."""
        code = getattr(error, "sqlite_errorcode", None)
        return code is None or code & 0xFF in _ROW_ERRORS

    def many(self, database: sqlite3.Connection, statement: str, rows: list[Any]) -> None:
        """Execute a statement for each row."""
        database.executemany(statement, rows)

    def stored(self, content: bytes | str | None) -> bytes | str | None:
        """Show as text what is text."""
        if not isinstance(content, bytes):
            return content
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content

    def _record(self, batch: Batch) -> Failures:
        try:
            return self._transact(batch)
        except self.refusals as error:
            if not self.of_a_row(error):
                raise
        return self._transact(batch, singly=True)

    def _transact(self, batch: Batch, *, singly: bool = False) -> Failures:
        with _transaction(self._connection()) as database:
            head, failures = self.write(database, batch, singly=singly)
            if not any(batch):
                stamp(database)
        self.head = head
        return failures

    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = _open(self.path)
            self._place = place_of(self.path)
            self.find_head(self._database)
            self._database.execute("PRAGMA busy_timeout = 0")
        return self._database


def _begin(database: sqlite3.Connection) -> None:
    """Begin to write. Who else writes does so for a moment; SQLite itself would look again after 1, 2, 5 ms."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_LOOK_AGAIN_S)
        else:
            return


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    _begin(database)
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _open(path: str) -> sqlite3.Connection:
    database = _connect(path)
    try:
        if 0 < version_of(database) < VERSION:
            database.close()
            migrate_apart(path)
            database = _connect(path)
        _prepare(database)
    except sqlite3.Error as error:
        database.close()
        raise LedgerError(describe(path, error)) from None
    return database


def _connect(path: str) -> sqlite3.Connection:
    """Open the file, an empty one where there is none; LedgerError where it is no ledger that we know."""
    try:
        make(path)
        # absolute: ":memory:" is a name like others
        database = sqlite3.connect(Path(path).absolute(), timeout=_BUSY_S, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(cannot_open(path, error)) from None
    try:
        wrong = foreign(database)
    except sqlite3.Error as error:
        wrong = describe(path, error)
    else:
        wrong = wrong and f"{path} {wrong}"
    if wrong:
        database.close()
        raise LedgerError(wrong)
    return database


def _prepare(database: sqlite3.Connection) -> None:
    database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    database.execute("PRAGMA secure_delete = ON")  # nothing is left of an opening's request when it goes
    if version_of(database) == 0:
        create(database)
    # One writer at a time, hence one chain. A file that cannot be written is found out now, not at the first receipt.
    with _transaction(database):
        if database.execute(SqliteLedger.statements.head, (0,)).fetchone() is None:
            database.execute(SqliteLedger.statements.new_chain, new_chain(0))
