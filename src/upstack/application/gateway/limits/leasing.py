"""Keeps this host's leases: asks for more before what it holds is used up, and gives back what it does not use."""

from __future__ import annotations

import asyncio
import contextlib
import time

from upstack.application.gateway.limits.budget import Budget, Calendar
from upstack.core.errors import LedgerError
from upstack.core.store.client import LedgerClient
from upstack.core.store.leases import Leases, Want

LOOK_S = 0.02  # between looks at whether a budget wants more
RENEW_S = 1.0  # between renewals that nobody waits for
SHARE = 50  # a host likes to hold this part of a budget beyond what it uses


class Leasing:
    """Renews the leases of some budgets, in the one process of a host that does so."""

    def __init__(self, ledger: LedgerClient, calendar: Calendar) -> None:
        self._ledger = ledger
        self._leases = Leases(ledger.place)
        self._calendar = calendar
        self._renewed_at = 0.0
        self._used: dict[tuple[str, str], int] = {}
        self.budgets: list[Budget] = []

    async def keep(self) -> None:
        """Renew for ever."""
        loop = asyncio.get_running_loop()
        while True:
            if not self.budgets:
                await asyncio.sleep(RENEW_S)
                continue
            if any(budget.wanted() for budget in self.budgets) or loop.time() > self._renewed_at + RENEW_S:
                await self.renew()
            await asyncio.sleep(LOOK_S)

    async def renew(self) -> None:
        """Renew once; while the database does not answer the leases stay as they are."""
        self._renewed_at = asyncio.get_running_loop().time()
        chain = self._ledger.chain
        if chain is None:
            return
        self._calendar.look(time.time())
        asked = [(budget, *each) for budget in self.budgets for each in budget.periods(self._calendar)]
        wants = [self._want(budget, index, period, limit) for budget, index, period, limit in asked]
        with contextlib.suppress(LedgerError):
            granted = await asyncio.to_thread(self._leases.renew, chain, wants)
            for (budget, index, _, _), want, amount in zip(asked, wants, granted, strict=True):
                budget.grant(index, amount, self._calendar, final=amount < want.used + want.more)

    def _want(self, budget: Budget, index: int, period: str, limit: int) -> Want:
        """What to ask for. What is to be given back is taken from this host first: nobody may spend it meanwhile."""
        used, wanted = budget.used(index, self._calendar), budget.wanted()
        idle = self._used.get((budget.subject, period)) == used and not wanted
        self._used[budget.subject, period] = used
        more = 0 if idle else max(4 * wanted, limit // SHARE)
        budget.shrink(index, used + more, self._calendar)
        return Want(budget.subject, period, limit, budget.used(index, self._calendar), more)
