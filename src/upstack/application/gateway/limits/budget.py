"""What may be spent in a day, a month or at all."""

from __future__ import annotations

import math
import time

from upstack.application.gateway.explain import usd
from upstack.core.config import BudgetConfig
from upstack.core.errors import LimitError
from upstack.core.slots import Slot, fence
from upstack.core.types import Picodollars

_DAY_S = 86_400
_DAY, _DAY_SPENT, _MONTH, _MONTH_SPENT, _TOTAL_SPENT, _HELD = range(6)  # cells of the slot
_PERIODS = ((_DAY, _DAY_SPENT), (_MONTH, _MONTH_SPENT), (None, _TOTAL_SPENT))
# Cells of the slot of its lease: the first six are written by the process that keeps it alone.
_NUMBERS, _GRANTS, _FINAL, _DEMAND, _DEMANDED_AT = (0, 2, None), (1, 3, 4), 5, 6, 7
_NEARLY = 0.95
_DEMAND_MS = 1000  # for which a demand that nobody repeats is minded


class Calendar:
    """Numbers days and months of UTC. It never goes back, as a clock may: a budget would be granted twice."""

    def __init__(self) -> None:
        self.day = self.month = 0
        self._until = 0.0

    def look(self, now: float) -> None:
        """Set `day` and `month` to those of `now` (Unix seconds)."""
        if now >= self._until:
            self.day = int(now // _DAY_S)
            self._until = (self.day + 1) * _DAY_S
            year, month, *_ = time.gmtime(now)
            self.month = year * 12 + month - 1


class Budget:
    """What one key, team or task may spend."""

    __slots__ = ("_lease", "_limited", "_limits", "_mine", "_others", "_rows", "_who")

    def __init__(self, who: str, limits: BudgetConfig, slot: Slot, lease: Slot | None = None) -> None:
        """`lease`: where stands what this host may spend of it, where several hosts spend from it."""
        self._who = who
        self._lease = lease
        self._limits = tuple(
            math.inf if limit is None else round(limit * 10**12) for limit in (limits.day, limits.month, limits.total)
        )
        self._limited = tuple(index for index, limit in enumerate(self._limits) if limit != math.inf)
        self._mine, self._rows, self._others = slot.mine, slot.rows, slot.others

    def inherit(self, calendar: Calendar) -> None:
        """Book what a process that died had held: what it asked for may have been paid for."""
        held = self._mine[_HELD]
        self.settle(held, held, self._mine[_DAY], self._mine[_MONTH], calendar)

    def reserve(self, amount: Picodollars, calendar: Calendar) -> LimitError | None:
        """Hold an amount, or say what is exhausted."""
        mine = self._mine
        if mine[_DAY] != calendar.day:
            self._turn(calendar)
        held = mine[_HELD] + amount
        mine[_HELD] = held
        if self._others:
            fence()
            for row in self._others:
                held += row[_HELD]
        limits = self._limits if self._lease is None else self._leased(calendar)
        for index in self._limited:
            spent = self._spent(index, calendar)
            if spent + held > limits[index]:
                mine[_HELD] -= amount
                return self._refusal(index, amount, spent, held)
        return None

    def has_room(self, calendar: Calendar) -> bool:
        """Whether no period's limit is nearly used up."""
        return all(self.used(index, calendar) < _NEARLY * self._limits[index] for index in self._limited)

    def _spent(self, index: int, calendar: Calendar) -> Picodollars:
        """What was spent in a period, held amounts left out."""
        number, cell = _PERIODS[index]
        if number is None:
            return sum(row[cell] for row in self._rows)
        now = calendar.day if index == 0 else calendar.month
        spent = 0
        for row in self._rows:
            if row[number] == now:
                spent += row[cell]
        return spent

    def _refusal(self, index: int, amount: Picodollars, spent: Picodollars, held: Picodollars) -> LimitError:
        limit = self._limits[index]
        if self._lease is not None and spent + held <= limit and not self._is_final(index):
            self._demand(amount)
            return LimitError("Waiting for a share of the budget", pending=True)
        period = ("today", "this month", "in total")[index]
        here = "" if self._lease is None else " by this host"
        left = f"${usd(spent)} of ${usd(int(limit))} {period} are spent{here}"
        running = f", ${usd(held - amount)} held for what is under way" if held > amount else ""
        most = f"this may cost up to ${usd(amount)}; max_tokens lowers that"
        message = f"The budget of {self._who} does not suffice: {left}{running}, and {most}"
        return LimitError(message, code="budget_exceeded", status=402)

    def settle(self, held: Picodollars, cost: Picodollars, day: int, month: int, calendar: Calendar) -> None:
        """Book a cost on the day and month its request came in, in place of what was held."""
        mine = self._mine
        if mine[_DAY] != calendar.day:
            self._turn(calendar)
        if day == mine[_DAY]:
            mine[_DAY_SPENT] += cost
        if month == mine[_MONTH]:
            mine[_MONTH_SPENT] += cost
        mine[_TOTAL_SPENT] += cost
        mine[_HELD] -= held

    @property
    def subject(self) -> str:
        """Whose it is: key/NAME, team/NAME or task/NAME."""
        return self._who.replace(" ", "/", 1)

    def periods(self, calendar: Calendar) -> list[tuple[int, str, Picodollars]]:
        """The periods that have a limit: which, its name and the limit."""
        year, month = divmod(calendar.month, 12)
        day = time.strftime("%Y-%m-%d", time.gmtime(calendar.day * _DAY_S))
        names = (f"day {day}", f"month {year}-{month + 1:02}", "total")
        return [(index, names[index], int(limit)) for index, limit in enumerate(self._limits) if limit != math.inf]

    def used(self, index: int, calendar: Calendar) -> Picodollars:
        """What this host has spent in a period, and holds."""
        return self._spent(index, calendar) + sum(row[_HELD] for row in self._rows)

    def wanted(self) -> Picodollars:
        """The most that somebody waits for."""
        assert self._lease is not None  # noqa: S101 - asked of leased ones
        now = int(time.monotonic() * 1000)
        return max(row[_DEMAND] if now - row[_DEMANDED_AT] < _DEMAND_MS else 0 for row in self._lease.rows)

    def grant(self, index: int, amount: Picodollars, calendar: Calendar, *, final: bool) -> None:
        """Set what this host may spend in a period; `final`: there is no more to be had."""
        assert self._lease is not None  # noqa: S101 - asked of leased ones
        mine, number = self._lease.mine, _NUMBERS[index]
        mine[_GRANTS[index]] = amount
        if number is not None:
            mine[number] = calendar.day if index == 0 else calendar.month
        bit = 1 << index
        mine[_FINAL] = mine[_FINAL] | bit if final else mine[_FINAL] & ~bit
        fence()

    def shrink(self, index: int, amount: Picodollars, calendar: Calendar) -> None:
        """Let this host spend no more than `amount` in a period from now on."""
        if self._leased(calendar)[index] > amount:
            self.grant(index, amount, calendar, final=self._is_final(index))

    def _leased(self, calendar: Calendar) -> tuple[float, ...]:
        """What this host may spend in each period."""
        assert self._lease is not None  # noqa: S101 - asked of leased ones
        now = (calendar.day, calendar.month, None)
        found = []
        for index, limit in enumerate(self._limits):
            number, cell = _NUMBERS[index], _GRANTS[index]
            rows = [row for row in self._lease.rows if number is None or row[number] == now[index]]
            found.append(math.inf if limit == math.inf else sum(row[cell] for row in rows))
        return tuple(found)

    def _is_final(self, index: int) -> bool:
        assert self._lease is not None  # noqa: S101 - asked of leased ones
        return any(row[_FINAL] >> index & 1 for row in self._lease.rows)

    def _demand(self, amount: Picodollars) -> None:
        assert self._lease is not None  # noqa: S101 - asked of leased ones
        self._lease.mine[_DEMAND] = amount
        self._lease.mine[_DEMANDED_AT] = int(time.monotonic() * 1000)

    def undo(self, amount: Picodollars) -> None:
        """Take back what was held: the attempt is not made."""
        self._mine[_HELD] -= amount

    def _turn(self, calendar: Calendar) -> None:
        mine = self._mine
        mine[_DAY_SPENT] = 0  # first: who reads the new day must not find the old sum
        mine[_DAY] = calendar.day
        if mine[_MONTH] != calendar.month:
            mine[_MONTH_SPENT] = 0
            mine[_MONTH] = calendar.month
