"""How much may be asked in a minute, and at once. A minute is the last 60 seconds: the window slides."""

from __future__ import annotations

from upstack.core.errors import LimitError
from upstack.core.slots import Slot, fence

_MINUTE_S = 60
_MINUTE, _THIS, _BEFORE = range(3)  # cells of a pace's slot: which minute, what was counted in it and in the one before


class Pace:
    """So many of something a minute: requests, or tokens."""

    __slots__ = ("_limit", "_mine", "_others", "_what", "_who")

    def __init__(self, who: str, what: str, limit: int, slot: Slot) -> None:
        self._who = who
        self._what = what
        self._limit = limit
        self._mine = slot.mine
        self._others = slot.others

    def reserve(self, amount: int, now: float) -> LimitError | None:
        """Count an amount at `now` (monotonic seconds), or say that it is too much."""
        mine = self._mine
        minute = int(now) // _MINUTE_S
        if mine[_MINUTE] != minute:
            self._turn(minute)
        this = mine[_THIS] + amount
        mine[_THIS] = this
        before = mine[_BEFORE]
        if self._others:
            fence()
            for row in self._others:
                number = row[_MINUTE]
                if number == minute:
                    this += row[_THIS]
                    before += row[_BEFORE]
                elif number == minute - 1:
                    before += row[_THIS]
        if before:
            elapsed = now - minute * _MINUTE_S
            if this + before * (1 - elapsed / _MINUTE_S) <= self._limit:
                return None
        elif this <= self._limit:
            return None
        self.settle(amount, 0, now)
        wait = _wait(self._limit - amount, this - amount, before, now - minute * _MINUTE_S)
        message = f"The limit of {self._who} is reached: {self._limit:,} {self._what} a minute"
        return LimitError(message, code="rate_limit_exceeded", retry_after=wait)

    def settle(self, reserved: int, used: int, now: float) -> None:
        """Put what was used in the place of what was counted, in the minute in which it was."""
        mine = self._mine
        minute = int(now) // _MINUTE_S
        if mine[_MINUTE] != minute:
            self._turn(minute)
        rest = max(mine[_THIS] + used - reserved, 0)
        if mine[_THIS] + used < reserved:  # it began in the minute before
            mine[_BEFORE] = max(mine[_BEFORE] + mine[_THIS] + used - reserved, 0)
        mine[_THIS] = rest

    def _turn(self, minute: int) -> None:
        mine = self._mine
        gone = minute - mine[_MINUTE]
        if gone > 0:
            mine[_BEFORE] = mine[_THIS] if gone == 1 else 0
            mine[_THIS] = 0
            mine[_MINUTE] = minute


class Parallel:
    """So many requests at once."""

    __slots__ = ("_limit", "_mine", "_others", "_who")

    def __init__(self, who: str, limit: int, slot: Slot) -> None:
        self._who = who
        self._limit = limit
        self._mine = slot.mine
        self._others = slot.others

    def inherit(self) -> None:
        """Forget the requests of a process that died."""
        self._mine[0] = 0

    def enter(self) -> LimitError | None:
        """Count a request that begins, or say that too many are under way."""
        self._mine[0] += 1
        fence()
        if self._mine[0] + sum(row[0] for row in self._others) <= self._limit:
            return None
        self._mine[0] -= 1
        message = f"The limit of {self._who} is reached: {self._limit:,} requests are under way"
        return LimitError(message, code="rate_limit_exceeded", retry_after=1.0)

    def leave(self) -> None:
        """Count a request that ends."""
        self._mine[0] -= 1


def _wait(room: int, this: int, before: int, elapsed: float) -> float:
    """Seconds until the window has slid so far that no more than `room` is in it, `elapsed` into its minute."""
    if room < 0:
        return float(_MINUTE_S)  # never; who asks again then is told so again
    if this <= room and before:
        return max(0.0, _MINUTE_S * (1 - (room - this) / before) - elapsed)
    rest = _MINUTE_S - elapsed
    return rest + _MINUTE_S * max(0.0, 1 - room / this) if this else rest
