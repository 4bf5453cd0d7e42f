"""A clock that moves only when it is told to."""

from __future__ import annotations


class FakeClock:
    """Wall and monotonic time, in seconds, that stand still between calls of `advance`.

    `set_wall` lets the wall clock jump, as a machine's may; the monotonic one never goes back.
    """

    __slots__ = ("_monotonic", "_wall")

    def __init__(self, wall: float = 1_750_000_000.0, monotonic: float = 1_000.0) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def time(self) -> float:
        """Seconds since the Unix epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds since an arbitrary start."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let both clocks move on; ValueError for less than 0 seconds."""
        if seconds < 0:
            raise ValueError(f"time does not go back: advance({seconds})")
        self._wall += seconds
        self._monotonic += seconds

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock, forward or back, and leave the monotonic one alone."""
        self._wall = seconds
