"""The excess loss that was measured: the mean difference to the reference on the same rows, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import msgspec

from upstack.core.traffic import TrafficRow

CONFIDENCE = 0.95
_FEW = 10  # rows that differ; below it the normal approximation is rough


class Excess(msgspec.Struct, frozen=True):
    """Mean excess loss in [-1, 1] with its interval, over `rows` rows; `differ` of them did not do equally well."""

    mean: float
    low: float
    high: float
    rows: int
    differ: int
    method: str


def loss_of(row: TrafficRow, name: str) -> float | None:
    """How bad a route's answer is, in [0, 1]: as recorded, else 0 where it equals the truth; None: unknown."""
    answer = row.answers[name]
    if answer.loss is not None:
        return answer.loss
    if isinstance(row.truth, (str, int, float)) and answer.content:
        return float(answer.content.strip() != str(row.truth).strip())
    return None


def excess(differences: Sequence[float]) -> Excess | None:
    """Average paired differences, each in [-1, 1]; None without any.

    The interval is the mean and 1.96 standard errors to both sides (paired, normal approximation, within [-1, 1]).
    Where no row differs the standard error says nothing, and the exact binomial bound on differing rows stands in.
    It holds for one look at rows drawn at random; it is no certificate.
    """
    count = len(differences)
    if not count:
        return None
    mean = math.fsum(differences) / count
    differ = sum(difference != 0 for difference in differences)
    if not differ:
        half = 1.0 - ((1.0 - CONFIDENCE) / 2.0) ** (1.0 / count)
        return Excess(0.0, -half, half, count, 0, "no row differs: exact binomial bound")
    if count == 1:
        return Excess(mean, -1.0, 1.0, 1, differ, "one row says nothing")
    variance = math.fsum((difference - mean) ** 2 for difference in differences) / (count - 1)
    half = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2.0) * math.sqrt(variance / count)
    rough = ", rough: few rows differ" if differ < _FEW else ""
    low, high = max(-1.0, mean - half), min(1.0, mean + half)
    return Excess(mean, low, high, count, differ, f"paired, 1.96 standard errors{rough}")
