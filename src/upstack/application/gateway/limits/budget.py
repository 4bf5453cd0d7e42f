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

    __slots__ = ("_limits", "_mine", "_rows", "_who")

    def __init__(self, who: str, limits: BudgetConfig, slot: Slot, *, anew: bool) -> None:
        self._who = who
        self._limits = tuple(
            math.inf if limit is None else round(limit * 10**12) for limit in (limits.day, limits.month, limits.total)
        )
        self._mine, self._rows = slot.mine, slot.rows
        if anew:
            self._mine[_HELD] = 0

    def reserve(self, amount: Picodollars, calendar: Calendar) -> LimitError | None:
        """Hold an amount, or say what is exhausted."""
        mine = self._mine
        self._turn(calendar)
        mine[_HELD] += amount
        fence()
        held, *spent = self._sums(calendar)
        for limit, used, period in zip(self._limits, spent, ("today", "this month", "in total"), strict=True):
            if used + held > limit:
                mine[_HELD] -= amount
                left = f"${usd(used)} of ${usd(int(limit))} {period} are spent"
                running = f", ${usd(held - amount)} held for what is under way" if held > amount else ""
                message = f"The budget of {self._who} is used up: {left}{running}, and this may cost ${usd(amount)}"
                return LimitError(message, code="budget_exceeded", status=402)
        return None

    def settle(self, held: Picodollars, cost: Picodollars, day: int, month: int, calendar: Calendar) -> None:
        """Book a cost on the day and month its request came in, in place of what was held."""
        mine = self._mine
        self._turn(calendar)
        if day == mine[_DAY]:
            mine[_DAY_SPENT] += cost
        if month == mine[_MONTH]:
            mine[_MONTH_SPENT] += cost
        mine[_TOTAL_SPENT] += cost
        mine[_HELD] -= held

    def undo(self, amount: Picodollars) -> None:
        """Take back what was held: the attempt is not made."""
        self._mine[_HELD] -= amount

    def _sums(self, calendar: Calendar) -> tuple[int, int, int, int]:
        held = day = month = total = 0
        for row in self._rows:
            held += row[_HELD]
            total += row[_TOTAL_SPENT]
            if row[_DAY] == calendar.day:
                day += row[_DAY_SPENT]
            if row[_MONTH] == calendar.month:
                month += row[_MONTH_SPENT]
        return held, day, month, total

    def _turn(self, calendar: Calendar) -> None:
        mine = self._mine
        if mine[_DAY] != calendar.day:
            mine[_DAY_SPENT] = 0  # first: who reads the new day must not find the old sum
            mine[_DAY] = calendar.day
            if mine[_MONTH] != calendar.month:
                mine[_MONTH_SPENT] = 0
                mine[_MONTH] = calendar.month
