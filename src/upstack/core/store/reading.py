"""Reading a ledger beside a gateway that writes it: by read-only connections, opened for each call."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from upstack.core.errors import LedgerError
from upstack.core.store.rows import COLUMNS, to_receipt
from upstack.core.store.schema import APPLICATION_ID, foreign
from upstack.core.store.sqlite import describe
from upstack.core.types import Receipt

_WAIT_S = 5.0
_NAMES = ", ".join(COLUMNS)
_COUNT = len(COLUMNS)
_FINISHED = f"""SELECT {_NAMES}, CAST(request AS BLOB), CAST(answer AS BLOB)
    FROM receipts LEFT JOIN contents ON receipt_seq = seq WHERE id = ?"""
_OPEN = f"SELECT {_NAMES}, CAST(request AS BLOB), NULL FROM openings WHERE id = ?"
_NEWEST = f"SELECT {_NAMES} FROM receipts ORDER BY seq DESC LIMIT ?"
_BEFORE = f"SELECT {_NAMES} FROM receipts WHERE seq < (SELECT seq FROM receipts WHERE id = ?) ORDER BY seq DESC LIMIT ?"


def read_receipt(path: Path | str, receipt_id: str) -> Receipt | None:
    """Find a receipt by its id, that of an open stream included; LedgerError where the file cannot be read."""
    with _reading(str(path)) as database:
        for query in (_FINISHED, _OPEN, _FINISHED):  # a stream may end between the first look and the second
            row = database.execute(query, (receipt_id,)).fetchone()
            if row is not None:
                return to_receipt(row[:_COUNT], row[_COUNT:])
    return None


def list_receipts(path: Path | str, limit: int, before: str | None = None) -> list[Receipt]:
    """List finished receipts, newest first, without request and answer; those older than the id `before`, if given."""
    with _reading(str(path)) as database:
        if before is None:
            rows = database.execute(_NEWEST, (limit,)).fetchall()
        else:
            rows = database.execute(_BEFORE, (before, limit)).fetchall()
    return [to_receipt(row) for row in rows]


@contextmanager
def _reading(path: str) -> Iterator[sqlite3.Connection]:
    if not Path(path).exists():
        raise LedgerError(f"there is no ledger {path}; name the file in server.ledger, or serve a request first")
    if Path(path).is_dir():
        raise LedgerError(f"the ledger {path} is a folder; name a file in server.ledger")
    try:
        uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)) as database:
            wrong = foreign(database)
            if wrong is None and database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                wrong = "has no receipts yet; serve a request first"
            if wrong:
                raise LedgerError(f"{path} {wrong}")
            yield database
    except sqlite3.Error as error:
        raise LedgerError(describe(path, error)) from None
