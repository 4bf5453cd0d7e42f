"""Group commit: receipts of 4 KB through the gateway's side, the socket and the writer, against a bare sqlite3 loop.

Both commit the same number of rows at a time to a file of the same file system, in turns; synchronous = FULL in both.
The bare loop inserts a number, an id and one text of 4 KB, in the one process, with no chain, no sums and nobody to
wait for; all else is SQLite's default. A second one inserts the very rows of a ledger, made before, into its tables.
Ours has one batch under way and the next being gathered: the callers of one come again when it is durable.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import time
from contextlib import closing
from pathlib import Path

from benchmarks.ledger.rows import Measured
from upstack.core.store.chain import seal
from upstack.core.store.client import LedgerClient
from upstack.core.store.rows import to_row
from upstack.core.store.sqlite import SqliteLedger
from upstack.core.types import Receipt
from upstack.testing.receipts import make_receipt

RECEIPT_BYTES = 4096
AT_ONCE = (1, 16, 64)
_ROW_BYTES = 1000  # about what a receipt has beside its content


def measure(folder: Path, commits: int, rounds: int) -> list[Measured]:
    """Rates at several sizes of a commit, and their ratio within each round."""
    found = []
    for size in AT_ONCE:
        ours, bare, rows = [], [], []
        for number in range(rounds):
            ours.append(asyncio.run(_ours(folder / f"ours-{size}-{number}.db", commits, size)))
            bare.append(_bare(folder / f"bare-{size}-{number}.db", commits, size))
            rows.append(_bare_rows(folder / f"rows-{size}-{number}.db", commits, size))
        name = f"receipts of 4 KB, {size} to a commit"
        found.append(_compared(name, "of the bare loop's rate", ours, bare, 0.5))
        found.append(_compared(f"the same, {size} to a commit", "of a bare loop with the same rows", ours, rows, None))
    return found


def _compared(name: str, unit: str, ours: list[float], other: list[float], limit: float | None) -> Measured:
    ratios = [one / each for one, each in zip(ours, other, strict=True)]
    rates = f"{statistics.median(ours):,.0f} against {statistics.median(other):,.0f} a second"
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}; {rates}"
    return Measured(name, statistics.median(ratios), unit, spread, limit, most=False)


async def _ours(path: Path, commits: int, size: int) -> float:
    """Receipts a second."""
    ledger = LedgerClient(path)
    await ledger.start()
    receipts = _receipts(commits * size)
    loop = asyncio.get_running_loop()
    groups = [receipts[begin : begin + size] for begin in range(0, len(receipts), size)]
    last = loop.create_future()
    left = len(receipts)

    def send() -> None:
        for receipt in groups.pop() if groups else ():
            ledger.append(receipt, done)

    def done(error: Exception | None) -> None:
        nonlocal left
        assert error is None, error
        left -= 1
        if left % size == 0:
            loop.call_soon(send)  # not before the batch that waits has gone
        if not left:
            last.set_result(None)

    began = time.perf_counter()
    send()
    loop.call_soon(loop.call_soon, send)  # comes together while the first is being written
    await last
    seconds = time.perf_counter() - began
    await ledger.close()
    return len(receipts) / seconds


def _receipts(count: int) -> list[Receipt]:
    content = os.urandom((RECEIPT_BYTES - _ROW_BYTES) // 4).hex().encode()
    return [make_receipt(request=content, answer=content) for _ in range(count)]


def _bare(path: Path, commits: int, size: int) -> float:
    """Rows a second."""
    content = os.urandom(RECEIPT_BYTES // 2).hex()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE rows (seq INTEGER PRIMARY KEY, id TEXT, content TEXT)")
        began = time.perf_counter()
        for begin in range(0, commits * size, size):
            database.execute("BEGIN")
            rows = [(None, f"row-{begin + number}", content) for number in range(size)]
            database.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
            database.execute("COMMIT")
        return commits * size / (time.perf_counter() - began)


def _bare_rows(path: Path, commits: int, size: int) -> float:
    """Rows a second."""
    ledger = SqliteLedger(str(path))
    head, statements = ledger.head, ledger.statements
    ledger.close()
    receipts = _receipts(commits * size)
    contents = [(each.request, each.answer, None, None) for each in receipts]
    _, rows, kept = seal(head, [to_row(each) for each in receipts], contents)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = FULL")
        began = time.perf_counter()
        for begin in range(0, commits * size, size):
            database.execute("BEGIN")
            database.executemany(statements.insert, rows[begin : begin + size])
            database.executemany(statements.insert_content, kept[begin : begin + size])
            database.execute("COMMIT")
        return commits * size / (time.perf_counter() - began)
