"""Where the limits of a configuration come from: counters, what the ledger knows to be spent, leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from upstack.application.gateway.limits.meters import Meters
from upstack.core.config import Config
from upstack.core.slots import Slots
from upstack.core.store.client import LedgerClient
from upstack.core.store.places import is_postgres
from upstack.core.store.reading import spent_by
from upstack.core.store.spending import Spent
from upstack.core.types import Task

if TYPE_CHECKING:
    from upstack.application.gateway.limits.leasing import Leasing


class MeterSource:
    """Makes the meters of a gateway, for one configuration after the other."""

    def __init__(self, slots: Slots, ledger: LedgerClient, *, recorded: bool, leads: bool) -> None:
        """`recorded`: receipts are kept. `leads`: this is the one process of a host that keeps its leases."""
        self._slots = slots
        self._ledger = ledger
        self._recorded = recorded
        self._leased = recorded and is_postgres(ledger.place)  # other hosts may spend from the same budgets
        self._leads = leads
        self._leasing: Leasing | None = None

    async def spent(self) -> dict[str, Spent]:
        """What the ledger knows to be spent; of leased budgets by this host."""
        if not self._recorded:
            return {}
        chain = self._ledger.chain if self._leased else None
        return await asyncio.to_thread(spent_by, self._ledger.place, time.time(), chain)

    def meters(
        self, config: Config, tasks: Mapping[str, Task], spent: Mapping[str, Spent], *, anew: bool = False
    ) -> Meters:
        """Make the meters of a configuration; `anew` as they have it."""
        meters = Meters(config, tasks, self._slots, spent, leased=self._leased, anew=anew)
        if self._leased and self._leads:
            if self._leasing is None:
                from upstack.application.gateway.limits.leasing import Leasing  # noqa: PLC0415 - needs PostgreSQL

                self._leasing = Leasing(self._ledger, meters.calendar)
            self._leasing.budgets = list(meters.budgets.values())
        return meters

    async def keep_leases(self) -> None:
        """Keep what this host may spend of shared budgets, for ever."""
        if self._leasing is not None:
            await self._leasing.keep()
