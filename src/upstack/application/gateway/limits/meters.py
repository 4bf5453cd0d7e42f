"""The limits of a configuration, and what one request holds of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import msgspec

from upstack.application.gateway.auth import Caller
from upstack.application.gateway.limits.budget import Budget, Calendar
from upstack.application.gateway.limits.rate import Pace, Parallel
from upstack.application.gateway.limits.worth import Worth
from upstack.core.config import UNCERTIFIED, BudgetConfig, Config, KeyConfig, RateConfig, TaskConfig, TeamConfig
from upstack.core.errors import LimitError
from upstack.core.slots import Slots
from upstack.core.store.spending import NOTHING_SPENT, Spent
from upstack.core.types import Picodollars, Plan, Request, Task
from upstack.inference.cost import bound
from upstack.inference.router import shadow_task


class _Meters(msgspec.Struct, frozen=True):
    """Those that count for one caller and one task."""

    budgets: tuple[Budget, ...]
    requests: tuple[Pace, ...]
    tokens: tuple[Pace, ...]
    parallel: tuple[Parallel, ...]
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
        meters = self._meters
        taken = 0
        refusal = None
        for pace in meters.requests:
            refusal = refusal or pace.reserve(1, now)
            taken += refusal is None
        for pace in meters.tokens:
            refusal = refusal or pace.reserve(self._tokens, now)
            taken += refusal is None
        for budget in meters.budgets:
            refusal = refusal or budget.reserve(self.reserved or 0, self._calendar)
            taken += refusal is None
        if refusal is not None:
            self._undo(taken, now)
        return refusal

    def settle(self, cost: Picodollars | None, tokens: int | None, now: float) -> None:
        """Book what an attempt used; what is unknown (None) is booked as it was held."""
        held = self.reserved or 0
        for pace in self._meters.tokens:
            pace.settle(self._tokens, self._tokens if tokens is None else tokens, now)
        for budget in self._meters.budgets:
            budget.settle(held, held if cost is None else cost, self._day, self._month, self._calendar)
        self._cost = None if cost is None or self._cost is None else self._cost + cost

    def leave(self, *, answered: bool) -> None:
        """End the request."""
        for parallel in self._meters.parallel:
            parallel.leave()
        worth = self._meters.worth
        if worth is not None and answered and self._cost is not None:
            worth.note(self._cost)

    def _undo(self, taken: int, now: float) -> None:
        """Take back what the first so many meters had counted."""
        meters = self._meters
        undoing = [
            *((pace, 1) for pace in meters.requests),
            *((pace, self._tokens) for pace in meters.tokens),
        ]
        for pace, amount in undoing[:taken]:
            pace.settle(amount, 0, now)
        for budget in meters.budgets[: max(taken - len(undoing), 0)]:
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
        self._requests: dict[str, Pace] = {}
        self._tokens: dict[str, Pace] = {}
        self._parallel: dict[str, Parallel] = {}
        for kind, table in (("key", config.keys), ("team", config.teams), ("task", config.tasks)):
            for name, row in table.items():
                here = f"{kind}/{name}"
                for subject, limits in _budgets(here, name, row):
                    known = spent.get(subject, NOTHING_SPENT)
                    before = (self.calendar.day, known.day, self.calendar.month, known.month, known.total)
                    slot = slots.find(f"budget/{subject}", before)
                    lease = slots.find(f"lease/{subject}") if leased else None
                    self.budgets[subject] = Budget(subject.replace("/", " ", 1), limits, slot, lease)
                    if anew:
                        self.budgets[subject].inherit(self.calendar)
                self._add_rates(here, f"{kind} {name}", row.rate, slots, anew=anew)
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
        for index, parallel in enumerate(meters.parallel):
            refusal = parallel.enter()
            if refusal is not None:
                for entered in meters.parallel[:index]:
                    entered.leave()
                raise refusal
        return hold

    def has_room(self, task: str) -> bool:
        """Whether the budget of a task, if there is one, is far from spent."""
        budget = self.budgets.get(f"task/{task}")
        return budget is None or budget.has_room(self.calendar)

    def _add_rates(self, here: str, who: str, rate: RateConfig, slots: Slots, *, anew: bool) -> None:
        if rate.requests_per_minute is not None:
            slot = slots.find(f"requests/{here}")
            self._requests[here] = Pace(who, "requests", rate.requests_per_minute, slot)
        if rate.tokens_per_minute is not None:
            self._tokens[here] = Pace(who, "tokens", rate.tokens_per_minute, slots.find(f"tokens/{here}"))
        if rate.parallel_requests is not None:
            self._parallel[here] = Parallel(who, rate.parallel_requests, slots.find(f"parallel/{here}"))
            if anew:
                self._parallel[here].inherit()

    def _of(self, caller: Caller | None, task: str | None) -> _Meters | None:
        names = [f"task/{task}"]
        if caller is not None:
            names = [f"key/{caller.name}", f"team/{caller.team}", *names]
        found = _Meters(
            budgets=tuple(self.budgets[name] for name in names if name in self.budgets),
            requests=tuple(self._requests[name] for name in names if name in self._requests),
            tokens=tuple(self._tokens[name] for name in names if name in self._tokens),
            parallel=tuple(self._parallel[name] for name in names if name in self._parallel),
            worth=self._worths.get(task) if task is not None else None,
        )
        return found if found != _NONE else None


def _budgets(here: str, name: str, row: KeyConfig | TeamConfig | TaskConfig) -> Iterator[tuple[str, BudgetConfig]]:
    """The budgets of a row, with whose they are: its own, and that of a task's checks."""
    if row.budget_usd != BudgetConfig():
        yield here, row.budget_usd
    if isinstance(row, TaskConfig) and row.strategy not in UNCERTIFIED and row.shadow_budget_usd != BudgetConfig():
        yield f"task/{shadow_task(name)}", row.shadow_budget_usd


_NONE = _Meters((), (), (), (), None)
_UNSEEN = object()
