"""A ledger of a million receipts, made by the writer's own code, and what is asked of it."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from benchmarks.ledger.rows import Measured
from upstack.core.store.ids import ReceiptIds
from upstack.core.store.reading import list_receipts, read_receipt, spend_sums
from upstack.core.store.rows import to_row
from upstack.core.store.verify import verify
from upstack.core.store.writer import open_ledger
from upstack.testing.receipts import make_receipt

DAYS = 90  # that the receipts are spread over; the last is today
_BATCH = 2000
_KINDS = (("task", 5), ("route", 4), ("key", 20))
_CONTENT = json.dumps({"model": "task/triage", "messages": [{"role": "user", "content": "a pump at gate 7 " * 8}]})


def fill(place: str, count: int) -> list[str]:
    """Fill an empty ledger; the ids, oldest first."""
    ids, rng, now = ReceiptIds(), random.Random(7), time.time()
    ledger = open_ledger(place, 5.0)
    made: list[str] = []
    content = (_CONTENT.encode(), b'{"choices":[]}', "driver 17", False)
    tasks, routes, keys = ([f"{kind}-{n}" for n in range(many)] for kind, many in _KINDS)
    (attempt,) = make_receipt().attempts
    for begin in range(0, count, _BATCH):
        rows = []
        for number in range(begin, min(begin + _BATCH, count)):
            at = now - DAYS * 86_400 * (1 - number / count)
            route = rng.choice(routes)
            changes = {"id": ids(at), "created_at": at, "task": rng.choice(tasks), "key": rng.choice(keys)}
            changes |= {"route": route, "attempts": (replace(attempt, route=route),), "episode": None}
            rows.append(to_row(make_receipt(**changes)))
        failures = ledger.record((rows, [content] * len(rows), [], []))
        assert not failures, failures
        made += [row[0] for row in rows]
    ledger.close()
    return made


def measure(place: str, ids: list[str], label: str) -> list[Measured]:
    """What a person waits for."""
    rng = random.Random(11)
    some = rng.sample(ids, min(300, len(ids)))
    found = [
        _timed(f"{label}: spend by task", 20, lambda _: spend_sums(place, ("task",)), 300.0),
        _timed(f"{label}: a receipt by its id, with content", len(some), lambda n: read_receipt(place, some[n]), 5.0),
        _timed(f"{label}: the page of the 50 newest", 100, lambda _: list_receipts(place, 50), 20.0),
    ]
    if "://" not in place:
        command = [sys.executable, "-m", "upstack.cli", "spend", "--by", "task", "--json", "--ledger", place]
        run = lambda _: subprocess.run(command, check=True, capture_output=True)  # noqa: E731
        found.append(_timed(f"{label}: `upstack spend --by task`, Python's start included", 5, run, None))
    began = time.perf_counter()
    assert verify(place).found == 0
    found.append(Measured(f"{label}: `upstack ledger verify`", time.perf_counter() - began, "s", "once"))
    return found


def _timed(figure: str, times: int, what: Callable[[int], Any], limit: float | None) -> Measured:
    """Median, and the first and the worst; each call opens the ledger anew, as a command does."""
    taken = []
    for number in range(times):
        began = time.perf_counter()
        assert what(number) is not None
        taken.append(1000 * (time.perf_counter() - began))
    return Measured(figure, statistics.median(taken), "ms", f"first {taken[0]:.2f}, worst {max(taken):.2f}", limit)
