"""How much may be asked in a minute, and at once. A minute is the last 60 seconds: the window slides."""

from __future__ import annotations

from upstack.core.config import RateConfig
from upstack.core.errors import LimitError
from upstack.core.slots import Slot, fence

_MINUTE_S = 60.0
# Cells of the slot: of this minute and of the one before it.
_MINUTE, _REQUESTS, _REQUESTS_BEFORE, _TOKENS, _TOKENS_BEFORE, _TOKENS_HELD, _LIVE = range(7)


class Rate:
    """How much one key, team or task may ask."""

    __slots__ = ("_limits", "_mine", "_rows", "_who")

    def __init__(self, who: str, limits: RateConfig, slot: Slot, *, anew: bool) -> None:
        self._who = who
        self._limits = limits
        self._mine, self._rows = slot.mine, slot.rows
        if anew:
            self._mine[_TOKENS_HELD] = self._mine[_LIVE] = 0

    def enter(self) -> LimitError | None:
        """Count a request that begins, or say that too many are under way."""
        limit = self._limits.parallel_requests
        self._mine[_LIVE] += 1
        if limit is None:
            return None
        fence()
        if sum(row[_LIVE] for row in self._rows) <= limit:
            return None
        self._mine[_LIVE] -= 1
        return self._refusal(f"{limit} requests are under way", 1.0)

    def leave(self) -> None:
        """Count a request that ends."""
        self._mine[_LIVE] -= 1

    def reserve(self, tokens: int, now: float) -> LimitError | None:
        """Count an attempt at `now` (monotonic) and hold its tokens, or say what is exhausted."""
        mine, limits = self._mine, self._limits
        minute, elapsed = divmod(now, _MINUTE_S)
        self._turn(int(minute))
        mine[_REQUESTS] += 1
        mine[_TOKENS_HELD] += tokens
        fence()
        for limit, cell, held, what in (
            (limits.requests_per_minute, _REQUESTS, None, "requests"),
            (limits.tokens_per_minute, _TOKENS, _TOKENS_HELD, "tokens"),
        ):
            if limit is None:
                continue
            this, before = self._window(int(minute), cell)
            asked = sum(row[held] for row in self._rows) if held is not None else 0
            if this + asked + before * (1 - elapsed / _MINUTE_S) > limit:
                self.undo(tokens)
                wait = _wait(limit, this - (0 if held is not None else 1), before, elapsed)
                return self._refusal(f"{limit:,} {what} a minute", wait)
        return None

    def settle(self, held: int, tokens: int, now: float) -> None:
        """Count the tokens that an attempt used, in place of those that were held."""
        self._turn(int(now // _MINUTE_S))
        self._mine[_TOKENS] += tokens
        self._mine[_TOKENS_HELD] -= held

    def undo(self, tokens: int) -> None:
        """Take back an attempt that is not made."""
        self._mine[_REQUESTS] -= 1
        self._mine[_TOKENS_HELD] -= tokens

    def _refusal(self, what: str, wait: float) -> LimitError:
        return LimitError(f"The limit of {self._who} is reached: {what}", code="rate_limit_exceeded", retry_after=wait)

    def _window(self, minute: int, cell: int) -> tuple[int, int]:
        """Sums of this minute and of the one before."""
        this = before = 0
        for row in self._rows:
            if row[_MINUTE] == minute:
                this += row[cell]
                before += row[cell + 1]
            elif row[_MINUTE] == minute - 1:
                before += row[cell]
        return this, before

    def _turn(self, minute: int) -> None:
        mine = self._mine
        gone = minute - mine[_MINUTE]
        if gone > 0:
            for cell in (_REQUESTS, _TOKENS):
                mine[cell + 1] = mine[cell] if gone == 1 else 0
                mine[cell] = 0
            mine[_MINUTE] = minute


def _wait(limit: int, this: int, before: int, elapsed: float) -> float:
    """Seconds until one more fits into a window that slides."""
    if limit < 1:
        return _MINUTE_S
    if this < limit and before:
        return max(0.0, _MINUTE_S * (1 - (limit - this - 1) / before) - elapsed)
    rest = _MINUTE_S - elapsed
    return rest + _MINUTE_S * max(0.0, 1 - (limit - 1) / this) if this else rest
