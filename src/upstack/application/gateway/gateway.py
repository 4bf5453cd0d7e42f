"""What every request shares: the state, the ledger, the backends, health and counters."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal, Protocol

from msgspec.structs import replace

from upstack.application.gateway.auth import Keys
from upstack.application.gateway.limits.meters import Meters
from upstack.application.gateway.metrics import Metrics
from upstack.application.gateway.state import learn_route, reprice, reprice_at, target_keys, with_proved
from upstack.core.clock import Clock
from upstack.core.config import Config, ServerConfig
from upstack.core.errors import LedgerError, UpstackError
from upstack.core.store.base import Ledger
from upstack.core.telemetry import is_detailed
from upstack.core.types import Plan, Proved, Receipt, Request, State
from upstack.foundation.backends.base import Backend
from upstack.foundation.health import Health
from upstack.inference.router import configured

Receipts = Literal["required", "best-effort", "off"]


class Live(Protocol):
    """A request in flight, as far as its gateway must know it."""

    def expire(self) -> None:
        """End it now: the gateway stops."""


class Checking(Protocol):
    """Who makes requests checks, and has the other routes of these asked."""

    def toss(self, plan: Plan) -> Plan:
        """Toss the coin of a request; where it falls, its plan says so."""

    def see(self, plan: Plan, receipt: Receipt) -> None:
        """Take in how a request of a task that is proved has ended."""

    def ask(self, request: Request, plan: Plan, receipt: Receipt, heard: Mapping[str, bytes]) -> None:
        """Ask what the receipt does not answer for, nor what was `heard`."""


class Gateway:
    """One gateway on one event loop. `state` is swapped whole; a request keeps the plan it began with."""

    def __init__(
        self,
        config: Config,
        state: State,
        ledger: Ledger,
        backends: Mapping[str, Backend],
        meters: Meters,
        *,
        clock: Clock,
        new_id: Callable[[float], str],
        rng: random.Random,
    ) -> None:
        """`new_id` makes a receipt's id from Unix seconds."""
        self.config = config
        self.state = state
        self.ledger = ledger
        self.backends = backends
        self.meters = meters
        self.clock = clock
        self.new_id = new_id
        self.rng = rng
        self.loop = asyncio.get_running_loop()
        self.limits: ServerConfig = config.server
        self.receipts: Receipts = config.server.receipts
        self.keys = Keys.of(config)
        self.health = Health(self._health_changed)
        self.metrics = Metrics()
        self.live: set[Live] = set()
        self.checking: Checking | None = None  # None: no request becomes a check
        self.draining = False
        self.detailed = is_detailed()  # a line of the log for each request
        self.on_learned: Callable[[], None] = _nothing  # there may be a route that was not there before
        self._priced_at: datetime | None = None  # the last look

    def admit(self) -> None:
        """Refuse a request before any provider is asked, where its end is foreseeable."""
        if self.draining:
            raise UpstackError("The gateway is stopping", code="draining", status=503)
        if self.receipts == "required":
            if self.ledger.busy:
                raise LedgerError("The ledger does not keep up: too many receipts wait", code="ledger_busy")
            if self.ledger.failing is not None:
                raise LedgerError(self.ledger.failing)

    def state_for(self, model: str) -> State:
        """Return the state, with the route of a "provider/model" name that is asked for the first time."""
        if model not in self.state.plans:
            self.state = learn_route(self.state, model, self.config)
            self.on_learned()
        return self.state

    def listed(self) -> list[str]:
        """Names that may be asked for because they are configured; callers can make up any number of others."""
        return sorted(configured(self.state))

    def swap(self, config: Config, state: State, meters: Meters) -> None:
        """Take a new configuration: requests in flight finish on the plans they have."""
        self.config = config
        self.limits = config.server
        self.receipts = config.server.receipts
        self.keys = Keys.of(config)
        self.meters = meters
        state = replace(state, resting=self.health.resting, held=self.health.held)
        old = self.state
        self.state = with_proved(state, old.proved, old.students, config.loop.usd_per_hour)
        self.health.forget(target_keys(state.plans))

    def prove(self, proved: Mapping[str, Proved], students: Mapping[str, tuple[str, ...]]) -> None:
        """Take what is certified now, by which students: promotion and rollback are this swap."""
        self.state = with_proved(self.state, proved, students, self.config.loop.usd_per_hour)

    def reprice(self, now: datetime) -> None:
        """Take the prices of `now`, where one has changed by itself since the last look."""
        change = None if self._priced_at is None else reprice_at(self.state, self._priced_at)
        if self._priced_at is None or (change is not None and change <= now):
            self.state = reprice(self.state, self.config, now)
        self._priced_at = now

    def record(self, receipt: Receipt, done: Callable[[LedgerError | None], None] | None) -> None:
        """Write a receipt; `done` is called when it is durable, or at once where that is not required."""
        if self.receipts == "required":
            self.ledger.append(receipt, done or _nobody_waits)
            return
        if self.receipts == "best-effort":
            self.ledger.append(receipt, None)
        if done is not None:
            done(None)

    def record_opening(self, receipt: Receipt, done: Callable[[LedgerError | None], None] | None) -> None:
        """Note that a stream may begin; `done` as for `record`."""
        if self.receipts == "required":
            self.ledger.open(receipt, done)
            return
        if self.receipts == "best-effort":
            self.ledger.open(receipt, None)
        if done is not None:
            done(None)

    def _health_changed(self, resting: Mapping[str, float]) -> None:
        self.state = replace(self.state, resting=resting, held=self.health.held)


def _nothing() -> None:
    pass


def _nobody_waits(_: LedgerError | None) -> None:
    """Of a caller who has gone: what it asked for may have been paid for, so its receipt is kept like any other."""
