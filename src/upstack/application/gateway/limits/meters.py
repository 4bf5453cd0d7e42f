"""The limits of a configuration, and what one request holds of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from upstack.application.gateway.auth import Caller
from upstack.application.gateway.limits.budget import Budget, Calendar
from upstack.application.gateway.limits.rate import Rate
from upstack.application.gateway.limits.worth import Worth
from upstack.core.config import BudgetConfig, Config, RateConfig
from upstack.core.errors import LimitError
from upstack.core.slots import Slots
from upstack.core.store.spending import NOTHING_SPENT, Spent
from upstack.core.types import Picodollars, Plan, Request, Task
from upstack.inference.cost import bound


class _Meters(msgspec.Struct, frozen=True):
    """Those that count for one caller and one task."""

    budgets: tuple[Budget, ...]
    rates: tuple[Rate, ...]
    worth: Worth | None


class Hold:
    """What one request holds. `reserved` is what an attempt may cost at most, `note` what its receipt should say."""

    __slots__ = ("_calendar", "_cost", "_day", "_meters", "_month", "_tokens", "note", "reserved")

    def __init__(self, meters: _Meters, calendar: Calendar, tokens: int, reserved: Picodollars | None) -> None:
        self._meters = meters
        self._calendar = calendar
        self._tokens = tokens
        self._day, self._month = calendar.day, calendar.month
        self._cost: Picodollars | None = 0
        self.reserved = reserved
        self.note: str | None = None

    def reserve(self, now: float) -> LimitError | None:
        """Hold what an attempt at `now` (monotonic) may use, or say what is exhausted."""
        meters, amount = self._meters, self.reserved or 0
        for index, rate in enumerate(meters.rates):
            refusal = rate.reserve(self._tokens, now)
            if refusal is not None:
                self._undo(index, 0)
                return refusal
        for index, budget in enumerate(meters.budgets):
            refusal = budget.reserve(amount, self._calendar)
            if refusal is not None:
                self._undo(len(meters.rates), index)
                return refusal
        return None

    def settle(self, cost: Picodollars | None, tokens: int | None, now: float) -> None:
        """Book what an attempt used; what is unknown (None) is booked as it was held."""
        held = self.reserved or 0
        charged = held if cost is None else cost
        for rate in self._meters.rates:
            rate.settle(self._tokens, self._tokens if tokens is None else tokens, now)
        for budget in self._meters.budgets:
            budget.settle(held, charged, self._day, self._month, self._calendar)
        self._cost = None if cost is None or self._cost is None else self._cost + cost

    def leave(self, *, answered: bool) -> None:
        """End the request."""
        for rate in self._meters.rates:
            rate.leave()
        worth = self._meters.worth
        if worth is not None and answered and self._cost is not None:
            worth.note(self._cost)

    def _undo(self, rates: int, budgets: int) -> None:
        for rate in self._meters.rates[:rates]:
            rate.undo(self._tokens)
        for budget in self._meters.budgets[:budgets]:
            budget.undo(self.reserved or 0)


class Meters:
    """All limits of a configuration. A reload makes new ones, on the same slots."""

    def __init__(
        self,
        config: Config,
        tasks: Mapping[str, Task],
        slots: Slots,
        spent: Mapping[str, Spent],
        *,
        leased: bool = False,
        anew: bool = False,
    ) -> None:
        """`spent` by "key/NAME", "team/NAME" and "task/NAME", as the ledger has it; it counts for new slots alone.

        `leased`: other hosts may spend from the budgets too, and `spent` is this one's alone. `anew`: the process has
        just begun, so that what its row still holds was another's, which died.
        """
        self.calendar = Calendar()
        self.calendar.look(time.time())
        self._reserve = config.server.default_reserve_tokens
        self._known: dict[tuple[str | None, str | None], _Meters | None] = {}
        self.budgets: dict[str, Budget] = {}
        self._rates: dict[str, Rate] = {}
        for kind, table in (("key", config.keys), ("team", config.teams), ("task", config.tasks)):
            for name, row in table.items():
                here = f"{kind}/{name}"
                if row.budget_usd != BudgetConfig():
                    known = spent.get(here, NOTHING_SPENT)
                    before = (self.calendar.day, known.day, self.calendar.month, known.month, known.total)
                    slot = slots.find(f"budget/{here}", before)
                    lease = slots.find(f"lease/{here}") if leased else None
                    self.budgets[here] = Budget(f"{kind} {name}", row.budget_usd, slot, lease)
                    if anew:
                        self.budgets[here].inherit(self.calendar)
                if row.rate != RateConfig():
                    slot = slots.find(f"rate/{here}")
                    self._rates[here] = Rate(f"{kind} {name}", row.rate, slot, anew=anew)
        self._worths: dict[str, Worth] = {}
        for name, task in tasks.items():
            if task.value is not None:
                known = spent.get(f"task/{name}", NOTHING_SPENT)
                slot = slots.find(f"worth/{name}", (known.requests, known.total))
                self._worths[name] = Worth(task, slot)

    def enter(self, caller: Caller | None, plan: Plan, request: Request, now: float) -> Hold | None:
        """Count a request that begins at `now` (Unix seconds); None where nothing limits it. Raises LimitError."""
        name = None if caller is None else caller.name
        meters = self._known.get((name, plan.task), _UNSEEN)
        if meters is _UNSEEN:
            meters = self._known[name, plan.task] = self._of(caller, plan.task)
        if not isinstance(meters, _Meters):
            return None
        self.calendar.look(now)
        tokens, reserved = bound(request, plan.ceiling, self._reserve)
        if reserved is None and meters.budgets:
            unpriced = ", ".join(dict.fromkeys(t.route.name for t in plan.targets if t.route.price is None))
            message = f"Budgets need prices, and that of {unpriced} is unknown: give it in [prices]"
            raise LimitError(message, code="price_unknown", status=402)
        hold = Hold(meters, self.calendar, tokens, reserved)
        if meters.worth is not None:
            hold.note = meters.worth.judge(reserved)
            if hold.note is not None and meters.worth.refuses:
                raise LimitError(f"Not asked: {hold.note}", code="not_worth_it", status=402)
        for index, rate in enumerate(meters.rates):
            refusal = rate.enter()
            if refusal is not None:
                for entered in meters.rates[:index]:
                    entered.leave()
                raise refusal
        return hold

    def _of(self, caller: Caller | None, task: str | None) -> _Meters | None:
        names = [f"task/{task}"]
        if caller is not None:
            names = [f"key/{caller.name}", f"team/{caller.team}", *names]
        budgets = tuple(self.budgets[name] for name in names if name in self.budgets)
        rates = tuple(self._rates[name] for name in names if name in self._rates)
        worth = self._worths.get(task) if task is not None else None
        return _Meters(budgets, rates, worth) if budgets or rates or worth is not None else None


_UNSEEN = object()
