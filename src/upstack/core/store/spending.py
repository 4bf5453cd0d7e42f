"""Sums over receipts: what was spent on which day, by which key, team and task, on which route.

The writer adds to them in the transaction that records the receipts, so that they are right whenever they are read.
Cost is booked where it arose: each attempt's on its own route. A request is counted where it ended.
"""

from __future__ import annotations

import msgspec

from upstack.core.store.rows import COLUMNS, Row
from upstack.core.types import Picodollars

KEYS = ("day", "chain", "key", "team", "task", "route", "provider", "model")
SUMS = (
    "requests",
    "attempts",
    "input_tokens",
    "output_tokens",
    "cost_picodollars",
    "unknown_attempts",
    "unknown_reserved_picodollars",
)

_MOST = 2**63 - 1  # what a column holds
_CREATED, _TASK, _ATTEMPTS, _KEY, _TEAM, _RESERVED = (
    COLUMNS.index(name) for name in ("created_at", "task", "attempts", "key", "team", "reserved_picodollars")
)


class Spent(msgspec.Struct, frozen=True):
    """What a key, team or task has spent, what was held for costs that are unknown included. Picodollars."""

    day: Picodollars
    month: Picodollars
    total: Picodollars
    requests: int


NOTHING_SPENT = Spent(0, 0, 0, 0)


class _Tokens(msgspec.Struct, gc=False):
    input_tokens: int
    output_tokens: int


class _Spent(msgspec.Struct, gc=False):
    """What matters here of an attempt."""

    route: str
    provider: str
    model: str
    usage: _Tokens | None = None
    cost_picodollars: Picodollars | None = None


_decode = msgspec.json.Decoder(list[_Spent]).decode


class Tally:
    """Gathers what a batch of receipts adds to the sums of one chain."""

    __slots__ = ("_chain", "_sums")

    def __init__(self, chain: int) -> None:
        self._chain = chain
        self._sums: dict[tuple[str | int, ...], list[int]] = {}

    def add(self, row: Row) -> None:
        """Count a receipt."""
        attempts = _decode(row[_ATTEMPTS])
        about = (row[_CREATED][:10], self._chain, row[_KEY] or "", row[_TEAM] or "", row[_TASK] or "")
        sums = None
        for attempt in attempts:
            sums = self._of((*about, attempt.route, attempt.provider, attempt.model))
            sums[1] += 1
            if attempt.usage is not None:
                sums[2] += attempt.usage.input_tokens
                sums[3] += attempt.usage.output_tokens
            if attempt.cost_picodollars is not None:
                sums[4] += attempt.cost_picodollars
            else:
                sums[5] += 1
                sums[6] += row[_RESERVED] or 0
        if sums is None:
            sums = self._of((*about, "", "", ""))
        sums[0] += 1

    def rows(self) -> list[tuple[str | int, ...]]:
        """Values of KEYS and SUMS."""
        return [(*key, *(min(value, _MOST) for value in sums)) for key, sums in self._sums.items()]

    def _of(self, key: tuple[str | int, ...]) -> list[int]:
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = [0] * len(SUMS)
        return sums


def upsert(mark: str) -> str:
    """The statement that adds a row of a tally to the table; `mark` stands for a value."""
    marks = ", ".join([mark] * (len(KEYS) + len(SUMS)))
    added = ", ".join(
        f"{name} = CASE WHEN spend.{name} > {_MOST} - excluded.{name} THEN {_MOST}"
        f" ELSE spend.{name} + excluded.{name} END"
        for name in SUMS
    )
    return (
        f"INSERT INTO spend ({', '.join(KEYS + SUMS)}) VALUES ({marks})"
        f" ON CONFLICT ({', '.join(KEYS)}) DO UPDATE SET {added}"
    )
