"""Whether a promoted plan has got worse: a watch that rarely cries wolf, and soon where there is one. Pure.

The excess D of one check lies in [least, most] within [-1, 1], and bad is a mean above epsilon. Each of six bettors
believes that the change came at some check, with a prior on none:

    R <- (1 + R) (1 + lambda (D - epsilon)),    0 < lambda < 1 / (epsilon - least).

While no mean is above epsilon, R less the number of checks cannot be expected to grow, so that the mean of the six
reaches 1 / alpha after 1 / alpha checks at the earliest, on average. There the alarm is given.

Shiryaev-Roberts e-detector: Shin, Ramdas and Rinaldo, E-detectors: a nonparametric framework for sequential change
detection, New England Journal of Statistics in Data Science (2024).
"""

from __future__ import annotations

_SHARES = tuple(0.9 / 2**step for step in range(6))  # of the largest stake: for changes from sudden to slight
_FULL = 1e300  # far above any alarm; more would overflow


class Watch:
    """Evidence that the plan has got worse. `evidence` starts at 0; see `alarms`."""

    __slots__ = ("_each", "_epsilon", "_least", "_most", "_stakes", "checks", "evidence")

    def __init__(self, epsilon: float, least: float = -1.0, most: float = 1.0) -> None:
        """`epsilon` is the excess above which it is to be revoked, above `least` and below `most`."""
        if not least < epsilon < most:
            raise ValueError(f"epsilon {epsilon} is not between the bounds of an excess, {least} and {most}")
        self._epsilon, self._least, self._most = epsilon, least, most
        self._stakes = [share / (epsilon - least) for share in _SHARES]
        self._each = [0.0] * len(_SHARES)
        self.checks = 0
        self.evidence = 0.0

    def add(self, excess: float) -> None:
        """Take in one check. ValueError where the excess is out of its bounds, or NaN."""
        if not self._least <= excess <= self._most:
            raise ValueError(f"an excess of {excess} is not in {self._least} to {self._most}")
        gained = excess - self._epsilon
        self._each = [
            min((1.0 + each) * (1.0 + stake * gained), _FULL)
            for each, stake in zip(self._each, self._stakes, strict=True)
        ]
        self.checks += 1
        self.evidence = sum(self._each) / len(self._each)

    def alarms(self, false_alarm_checks: int) -> bool:
        """Whether it is time to revoke, where a false alarm may come every so many checks on average."""
        return self.evidence >= false_alarm_checks


def revoke_loss(max_loss: float) -> float:
    """The excess above which a plan promoted at `max_loss` is revoked: somewhat more, so that it does not flap."""
    return max(1.4 * max_loss, max_loss + 0.01)
