"""Group commit: receipts of 4 KB through the gateway's side, the socket and the writer, against a bare sqlite3 loop.

Both commit the same number of rows at a time to a file of the same file system, in turns; synchronous = FULL in both.
The bare loop inserts a number, an id and one text of 4 KB, in the one process, with no chain, no sums and nobody to
wait for; all else is SQLite's default. Ours has one batch under way and the next being gathered: the callers of one
come again when it is durable.
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
from upstack.core.store.client import LedgerClient
from upstack.testing.receipts import make_receipt

RECEIPT_BYTES = 4096
AT_ONCE = (1, 16, 64)
_ROW_BYTES = 1000  # about what a receipt has beside its content


def measure(folder: Path, commits: int, rounds: int) -> list[Measured]:
    """Rates at several sizes of a commit, and their ratio within each round."""
    found = []
    for size in AT_ONCE:
        ours, bare = [], []
        for number in range(rounds):
            ours.append(asyncio.run(_ours(folder / f"ours-{size}-{number}.db", commits, size)))
            bare.append(_bare(folder / f"bare-{size}-{number}.db", commits, size))
        ratios = [one / other for one, other in zip(ours, bare, strict=True)]
        rate = statistics.median(ours)
        unit = "of the bare loop's rate"
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}; {rate:,.0f} against {statistics.median(bare):,.0f} a second"
        name = f"receipts of 4 KB, {size} to a commit"
        found.append(Measured(name, statistics.median(ratios), unit, spread, 0.5, most=False))
    return found


async def _ours(path: Path, commits: int, size: int) -> float:
    """Receipts a second."""
    ledger = LedgerClient(path)
    await ledger.start()
    content = os.urandom((RECEIPT_BYTES - _ROW_BYTES) // 4).hex().encode()
    receipts = [make_receipt(request=content, answer=content) for _ in range(commits * size)]
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
