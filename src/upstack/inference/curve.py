"""How well scores tell which requests need the strong route: cost against quality, as in the RouteLLM paper. Pure.

A router sends the requests with the highest scores to the strong route and the others to the weak one. The *gap
recovered* (PGR) at a share of strong calls is how much of the difference in quality between the two it wins back.

Ong et al., RouteLLM: Learning to Route LLMs with Preference Data, arXiv 2406.18665, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

import msgspec

from upstack.core.errors import EvidenceError


class Curve(msgspec.Struct, frozen=True):
    """Points of (share of strong calls, gap recovered), both from 0 to 1 at the ends, with lines between them."""

    points: tuple[tuple[float, float], ...]

    @property
    def apgr(self) -> float:
        """The average gap recovered, over all shares of strong calls: 0.5 is what chance gives."""
        return sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in pairwise(self.points))

    def cpt(self, recovered: float) -> float:
        """The least share of strong calls that recovers so much of the gap, both in 0 to 1 (CPT50 is `cpt(0.5)`)."""
        before = (0.0, 0.0)
        for x, y in self.points:
            if y >= recovered:
                x0, y0 = before
                return x if y == y0 else x0 + (x - x0) * max(0.0, recovered - y0) / (y - y0)
            before = (x, y)
        raise ValueError(f"a gap recovered of {recovered} is above 1")


def curve(scores: Sequence[float], weak_losses: Sequence[float], strong_losses: Sequence[float]) -> Curve:
    """Send the highest scores to the strong route first. Equal ones go together, in an order that is left to chance.

    EvidenceError where the strong route is no better than the weak one on these rows: then there is no gap.
    """
    gains = [weak - strong for weak, strong in zip(weak_losses, strong_losses, strict=True)]
    gap = sum(gains)
    if not gains or gap <= 0:
        raise EvidenceError("The strong route is no better than the weak one on these rows: there is no gap to recover")
    points = [(0.0, 0.0)]
    sent, won = 0, 0.0
    ranked = sorted(zip(scores, gains, strict=True), key=lambda row: -row[0])
    for _, group in groupby(ranked, key=lambda row: row[0]):
        together = [gain for _, gain in group]
        sent += len(together)
        won += sum(together)
        points.append((sent / len(gains), won / gap))
    return Curve(tuple(points))
