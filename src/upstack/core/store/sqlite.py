"""The ledger in SQLite, as its one writer holds it. It imports little: the writer's memory and start are counted.

WAL and synchronous = FULL: what is committed survives a power cut. One transaction a batch.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from upstack.core.errors import LedgerError
from upstack.core.store.frames import WHOLE_BATCH, Batch, Failures
from upstack.core.store.lock import Lock
from upstack.core.store.places import cannot_open, make, place_of
from upstack.core.store.rows import COLUMNS
from upstack.core.store.schema import foreign, migrate, stamp

_PAGE_BYTES = 8192  # half the system calls of 4096; beyond it single rows cost more
_CACHE_KIB = 1024  # a writer at the right edge needs little
_CHECKPOINT_PAGES = 500  # 4 MB; at ten times that a checkpoint holds up a commit for 50 ms
_BUSY_S = 5.0

_MARKS = ", ".join("?" * len(COLUMNS))
_NAMES = ", ".join(COLUMNS)
_INSERT = f"INSERT INTO receipts ({_NAMES}) VALUES ({_MARKS})"
_INSERT_NEW = _INSERT + " ON CONFLICT (id) DO NOTHING"
_INSERT_CONTENT = "INSERT INTO contents VALUES (?, ?, ?)"
_INSERT_OPENING = f"INSERT OR REPLACE INTO openings ({_NAMES}, request) VALUES ({_MARKS}, ?) "
_LEFT_OPEN = f"SELECT {_NAMES}, request FROM openings WHERE id > ? ORDER BY id LIMIT 20"
_DELETE_OPENING = "DELETE FROM openings WHERE id = ?"
_ID, _STATE, _STREAM, _ERROR = (COLUMNS.index(name) for name in ("id", "state", "stream", "error"))

_ROW_ERRORS = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}  # of one row, not of the file
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; make room, it is tried again with the next request",
    sqlite3.SQLITE_BUSY: "it is locked by another program; close that one",
    sqlite3.SQLITE_READONLY: "it is read-only; make it writable for this user, or name another file in server.ledger",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check the folder and its permissions, or change server.ledger",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; name another file in server.ledger",
    sqlite3.SQLITE_CORRUPT: "it is damaged; move it away and restore a backup",
}
_Refused = (sqlite3.Error, OverflowError, UnicodeError)


def describe(path: str, error: Exception) -> str:
    """Say in words what SQLite meant, and the remedy."""
    reason = _REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error))
    return f"the ledger {path} failed: {reason}"


class SqliteLedger:
    """An open ledger, for the one process that writes it."""

    def __init__(self, path: str, lock: Lock | None = None) -> None:
        """Open or make the file; LedgerError names it and the remedy. `lock` is minded as long as it is open."""
        self.path = path
        self._lock = lock
        self._database: sqlite3.Connection | None = None
        self._place: tuple[int, int] | None = None  # of the file that is open
        self._connection()

    def recover(self) -> int:
        """Turn the openings that a crash left into truncated receipts, and return how many there were."""
        total, last = 0, ""
        try:
            while left := self._connection().execute(_LEFT_OPEN, (last,)).fetchall():
                rows = [_truncated(row[:-1]) for row in left]
                contents = [None if row[-1] is None else (row[-1], None) for row in left]
                self._transact(_insert_each, rows, contents, [])
                total, last = total + len(left), left[-1][_ID]
        except sqlite3.Error as error:
            raise LedgerError(describe(self.path, error)) from None
        return total

    def record(self, batch: Batch) -> Failures:
        """Make a batch durable in one commit, and return the rows that could not be. A receipt known by id is kept.

        An empty batch writes all the same, to find out whether that is possible.
        """
        try:
            failures = self._write(batch)
            if self._lock is not None:
                self._lock.keep()
            if place_of(self.path) != self._place:  # deleted or replaced: what we wrote went with the old file
                self.close()
                failures = self._transact(_insert_each, *batch)
        except LedgerError as error:
            return [(WHOLE_BATCH, error.message)]
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                self.close()  # a handle that has met a full or failing disk is not trusted; the next batch opens anew
            return [(WHOLE_BATCH, describe(self.path, error))]
        return failures

    def _write(self, batch: Batch) -> Failures:
        try:
            return self._transact(_insert_all, *batch)
        except _Refused as error:
            if not _is_of_a_row(error):
                raise
        return self._transact(_insert_each, *batch)

    def close(self) -> None:
        """Let go of the file; what is committed stays."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = _open(self.path)
            self._place = place_of(self.path)
        return self._database

    def _transact(self, insert: Any, rows: list[Any], contents: list[Any], openings: list[Any]) -> Failures:
        database = self._connection()
        database.execute("BEGIN IMMEDIATE")
        try:
            failures: Failures = insert(database, rows, contents)
            failed = {index for index, _ in failures}
            _keep_openings(database, [row for index, row in enumerate(rows) if index not in failed], openings)
            if not rows and not openings:
                stamp(database)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        return failures


def _insert_all(database: sqlite3.Connection, rows: list[Any], contents: list[Any]) -> Failures:
    """Insert a batch as it is; the caller goes row by row where one of them is refused."""
    (last,) = database.execute("SELECT max(seq) FROM receipts").fetchone()
    database.executemany(_INSERT, rows)
    first = (last or 0) + 1  # SQLite numbers on from the last, and nobody else writes within this transaction
    try:
        texts = [
            (seq, request and request.decode(), answer and answer.decode())
            for seq, (request, answer) in enumerate(contents, first)
        ]
    except (TypeError, UnicodeDecodeError):  # a receipt without content, or one that is not text
        texts = [(seq, _text(c[0]), _text(c[1])) for seq, c in enumerate(contents, first) if c is not None]
    database.executemany(_INSERT_CONTENT, texts)
    return []


def _insert_each(database: sqlite3.Connection, rows: list[Any], contents: list[Any]) -> Failures:
    """Insert row by row, so that one that is refused does not take the others with it."""
    failures: Failures = []
    for index, (row, content) in enumerate(zip(rows, contents, strict=True)):
        database.execute("SAVEPOINT row")
        try:
            cursor = database.execute(_INSERT_NEW, row)
            if cursor.rowcount == 1 and content is not None:
                database.execute(_INSERT_CONTENT, (cursor.lastrowid, _text(content[0]), _text(content[1])))
        except _Refused as error:
            if not _is_of_a_row(error):
                raise
            database.execute("ROLLBACK TO row")
            failures.append((index, f"the ledger refused this receipt: {error}"))
        database.execute("RELEASE row")
    return failures


def _keep_openings(database: sqlite3.Connection, rows: list[Any], openings: list[Any]) -> None:
    ended = {row[_ID] for row in rows if row[_STREAM]}
    if openings:
        for row in openings:
            if row[_ID] not in ended:
                # one that is refused leaves it to its receipt to tell; the others go on
                with contextlib.suppress(OverflowError, UnicodeError, sqlite3.IntegrityError):
                    database.execute(_INSERT_OPENING, (*row[:-1], _text(row[-1])))
    if ended:
        database.executemany(_DELETE_OPENING, [(receipt_id,) for receipt_id in ended])


def _truncated(row: tuple[Any, ...]) -> tuple[Any, ...]:
    values = list(row)
    values[_STATE], values[_ERROR], values[_STREAM] = "truncated", "gateway_restarted", 1
    return tuple(values)


def _text(content: bytes | str | None) -> bytes | str | None:
    """Show as text what is text."""
    if not isinstance(content, bytes):
        return content
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _is_of_a_row(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _ROW_ERRORS


def _open(path: str) -> sqlite3.Connection:
    try:
        make(path)
        # absolute: ":memory:" is a name like others
        database = sqlite3.connect(Path(path).absolute(), timeout=_BUSY_S, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(cannot_open(path, error)) from None
    try:
        wrong = foreign(database)
        if wrong is None:
            _prepare(database)
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
    migrate(database)
    database.execute("BEGIN IMMEDIATE")  # a file that cannot be written is found out now, not at the first receipt
    database.execute("ROLLBACK")
