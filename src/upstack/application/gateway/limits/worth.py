"""Whether a request is worth what it is expected to cost."""

from __future__ import annotations

from upstack.application.gateway.explain import usd
from upstack.core.slots import Slot
from upstack.core.types import Picodollars, Task


class Worth:
    """What a task's requests cost on the average, against what a good answer is worth."""

    __slots__ = ("_mine", "_rows", "_task", "refuses")

    def __init__(self, task: Task, slot: Slot) -> None:
        self._task = task
        self._mine, self._rows = slot.mine, slot.rows  # requests, their cost
        self.refuses = task.refuse_unprofitable

    def judge(self, reserved: Picodollars | None) -> str | None:
        """Say in words that a request is expected to cost more than it is worth; the mean starts with `reserved`."""
        value = self._task.value
        count = sum(row[0] for row in self._rows)
        expected = sum(row[1] for row in self._rows) // count if count else reserved
        if value is None or expected is None or expected <= value:
            return None
        source = f"the mean of {count:,}" if count else "as none was made yet, the most it may cost"
        return f"task {self._task.name} is worth ${usd(value)} and expected to cost ${usd(expected)} ({source})"

    def note(self, cost: Picodollars) -> None:
        """Count what a request cost."""
        self._mine[0] += 1
        self._mine[1] += cost
