"""Shares of budgets that several hosts spend from, kept in PostgreSQL: together they may spend no more than there is.

A host is the chain that its writer has. Its lease of a budget is all it may spend in the period, what it has spent
included. The lease of a host that is gone shrinks to what its receipts say.
"""

from __future__ import annotations

from typing import Any

import msgspec

from upstack.core.errors import LedgerError
from upstack.core.store import postgres
from upstack.core.types import Picodollars

_LOCK = 0x4C454153  # "LEAS": one host at a time
_CHARGED = "sum(cost_picodollars + unknown_reserved_picodollars)"
_COLUMNS = {"key": "key", "team": "team", "task": "task"}


class Want(msgspec.Struct, frozen=True):
    """What a host asks for: a budget in a period, what it has used of it, and how much more it would like to hold."""

    subject: str  # key/NAME, team/NAME or task/NAME
    period: str  # "day 2026-01-31", "month 2026-01" or "total"
    limit: Picodollars
    used: Picodollars
    more: Picodollars


class Leases:
    """A host's way to its leases. Blocks: for a thread. LedgerError where the database does not answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._database: Any = None

    def renew(self, chain: int, wants: list[Want]) -> list[Picodollars]:
        """Set what the host of `chain` may spend; the answers are in the order of `wants`, never below what is used."""
        try:
            if self._database is None:
                self._database = postgres.connect(self._url)
            with self._database.transaction():
                self._database.execute("SELECT pg_advisory_xact_lock(%s, 0)", (_LOCK,))
                alive = {row[0] for row in self._database.execute(_ALIVE, (postgres.APPLICATION,)).fetchall()}
                return [self._renew(self._database, chain, want, alive) for want in wants]
        except postgres.Error as error:
            self.close()
            raise LedgerError(postgres.describe(self._url, error)) from None

    def close(self) -> None:
        """End the session."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _renew(self, database: Any, chain: int, want: Want, alive: set[int]) -> Picodollars:
        spent = _spent(database, want)
        leased = dict(database.execute(_LEASED, (want.subject, want.period)).fetchall())
        others = 0
        for other in {*spent, *leased} - {chain}:
            known = spent.get(other, 0)
            if other in leased and other not in alive:
                database.execute(_SET, (want.subject, want.period, other, known))
            others += max(known, leased.get(other, 0) if other in alive else 0)
        granted = max(want.used, min(want.used + want.more, want.limit - others))
        if granted != leased.get(chain):
            database.execute(_SET, (want.subject, want.period, chain, granted))
        return granted


_ALIVE = (
    "SELECT objid::int FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_LEASED = "SELECT chain, picodollars FROM leases WHERE subject = %s AND period = %s"
_SET = (
    "INSERT INTO leases (subject, period, chain, picodollars) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (subject, period, chain) DO UPDATE SET picodollars = excluded.picodollars"
)


def _spent(database: Any, want: Want) -> dict[int, int]:
    """What the receipts of each chain say was spent in the period."""
    kind, _, name = want.subject.partition("/")
    days = f"{want.period.partition(' ')[2]}%"  # of a day itself, of a month all its days, in total all
    query = f"SELECT chain, {_CHARGED} FROM spend WHERE {_COLUMNS[kind]} = %s AND day LIKE %s GROUP BY chain"
    return {chain: int(spent) for chain, spent in database.execute(query, (name, days)).fetchall()}
