"""Whether a plan has proved good enough: a test that stays valid however often anyone looks. Pure.

The excess D of one check is the loss of the plan less that of the reference, in [least, most] within [-1, 1]. The claim
that is refuted is "its mean is epsilon or more at every check". Each of 21 bettors stakes a fixed share lambda on that
being wrong and is left with

    prod_t (1 + lambda (epsilon - D_t)),    0 < lambda <= 1 / (most - epsilon),

which no one can expect to grow while the claim is true. Their weighted sum W is the wealth. By Ville's inequality it
reaches 1 / delta with a probability of at most delta, at any time whatever: then the plan is promoted.

Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

_STEPS = 20
_WEIGHT = 0.045  # of each step; together 0.9
_BOLD = 0.10  # of the one that stakes all it may: it pays most where nothing is ever lost, and one full loss ruins it
_WEIGHTS = (*[_WEIGHT] * _STEPS, _BOLD)
_IN_SIGHT = 1_000_000  # checks
_SHARES = (*((step + 0.5) / _STEPS for step in range(_STEPS)), 1.0)  # of the largest stake


class Wealth:
    """What the bettors have, as a natural logarithm; 0 at the start."""

    __slots__ = ("_each", "_epsilon", "_gains", "_least", "_most", "_stakes", "checks", "highest", "log")

    def __init__(self, epsilon: float, most: float = 1.0, least: float = -1.0) -> None:
        """`epsilon` is the excess that is tolerated, above `least` and below `most`, the bounds of an excess."""
        if not least < epsilon < most:
            raise ValueError(f"epsilon {epsilon} is not between the bounds of an excess, {least} and {most}")
        self._epsilon, self._most, self._least = epsilon, most, least
        self._stakes = [share / (most - epsilon) for share in _SHARES]
        self._each = [math.log(weight) for weight in _WEIGHTS]
        self._gains: dict[float, list[float]] = {}  # by excess: there are few different ones
        self.checks = 0
        self.log = self.highest = 0.0

    def add(self, excess: float) -> None:
        """Settle the bets on one check. ValueError where the excess is out of its bounds, or NaN."""
        gains = self._gains.get(excess)
        if gains is None:
            if not self._least <= excess <= self._most:
                raise ValueError(f"an excess of {excess} is not in {self._least} to {self._most}")
            gains = self._gains[excess] = [_log1p(stake * (self._epsilon - excess)) for stake in self._stakes]
        self._each = [log + gain for log, gain in zip(self._each, gains, strict=True)]
        self.checks += 1
        self.log = log_sum(self._each)
        self.highest = max(self.highest, self.log)

    def proves(self, delta: float) -> bool:
        """Whether it has ever refuted the claim at an error probability of `delta`."""
        return self.highest >= -math.log(delta)

    def checks_left(self, delta: float) -> int | None:
        """How many more checks it takes if they go on as they went; None where that is not in sight.

        One more check, in which epsilon was just met, tempers the hope that a few good ones raise.
        """
        rates = [(log - math.log(weight)) / (self.checks + 1) for log, weight in zip(self._each, _WEIGHTS, strict=True)]

        def after(count: int) -> float:
            return log_sum([log + count * rate for log, rate in zip(self._each, rates, strict=True)])

        if self.proves(delta):
            return 0
        few, many = 0, 1
        while after(many) < -math.log(delta):
            few, many = many, many * 2
            if many > _IN_SIGHT:
                return None
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (middle, many) if after(middle) < -math.log(delta) else (few, middle)
        return many


def wealth_of(excesses: Iterable[float], epsilon: float, most: float = 1.0, least: float = -1.0) -> Wealth:
    """Bet on these checks in their order, from the start; an excess that is not known yet stands as `most`."""
    wealth = Wealth(epsilon, most, least)
    for excess in excesses:
        wealth.add(excess)
    return wealth


def share_of(delta: float, submission: int, paths: int = 1) -> float:
    """The error probability that one of `paths` may use in a task's `submission`-th attempt to certify, from 1.

    delta / (k (k + 1)) sums to delta over all attempts there will ever be; the paths of one share it evenly.
    """
    if submission < 1 or paths < 1:
        raise ValueError("submissions and paths are counted from 1")
    return delta / (submission * (submission + 1)) / paths


def furthest(proved: Sequence[bool]) -> int | None:
    """The index of the last of a path's thresholds up to which all are proved, None where the first is not.

    They stand from the most to the least conservative, as chosen before any evidence was read. So tested, one after
    the other, they need no correction for how many there are.
    """
    count = next((index for index, one in enumerate(proved) if not one), len(proved))
    return count - 1 if count else None


class Interval(msgspec.Struct, frozen=True):
    """Bounds of a mean excess."""

    low: float
    high: float


def interval(excesses: Sequence[float], confidence: float, least: float = -1.0, most: float = 1.0) -> Interval:
    """Bound the mean over all checks so far of their expected excesses, which may move from one to the next.

    The bounds of all lengths hold at once with probability `confidence`, so that they may be watched. Empirical
    Bernstein, with a mixture over fixed rates: Howard, Ramdas, McAuliffe and Sekhon, Time-uniform, nonparametric,
    nonasymptotic confidence sequences, Annals of Statistics 49 (2021), theorem 4.
    """
    count = len(excesses)
    if not count:
        return Interval(least, most)
    spread = most - least
    variance, total, guess = 0.0, 0.0, 0.5  # of the excess moved into [0, 1]; the guess knows only what came before
    for number, excess in enumerate(excesses, 1):
        moved = (excess - least) / spread
        variance += (moved - guess) ** 2
        total += moved
        guess = (total + 0.5) / (number + 1)
    reach = _reach(variance, math.log(2 / (1 - confidence))) / count
    mean = total / count
    return Interval(
        max(least, least + spread * (mean - reach)),
        min(most, least + spread * (mean + reach)),
    )


def log_sum(logs: Sequence[float]) -> float:
    """The logarithm of the sum of what `logs` are the logarithms of."""
    most = max(logs)
    return most if math.isinf(most) else most + math.log(sum(math.exp(log - most) for log in logs))


def _log1p(value: float) -> float:
    return math.log1p(value) if value > -1.0 else -math.inf


_RATES = tuple(0.9 * 0.6**step for step in range(16))  # geometric, down to where 10^6 checks are decided
_SHARE = -math.log(len(_RATES))
_COSTS = tuple(-math.log1p(-rate) - rate for rate in _RATES)


def _reach(variance: float, log: float) -> float:
    """How far a sum may be from what it is expected to be: where the mixture's wealth is exp(log)."""
    low, high = 0.0, max(1.0, math.sqrt(variance) + log) * 100
    for _ in range(60):
        middle = (low + high) / 2
        wealth = log_sum([_SHARE + rate * middle - cost * variance for rate, cost in zip(_RATES, _COSTS, strict=True)])
        if wealth < log:
            low = middle
        else:
            high = middle
    return high
