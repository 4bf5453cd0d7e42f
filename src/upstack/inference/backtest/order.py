"""In which order plans are put to the proof, each only if all before it passed. Fixed on the fit rows. Pure.

So tested, one after the other, any number of plans may share one error probability without a correction: to promote one
that is not good enough, the first such one in the order has to pass. Maurer, Hothorn and Lehmacher, Multiple
comparisons in drug clinical trials and preclinical assays: a-priori ordered hypotheses, 1995.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import msgspec

_MOST = 40  # plans among which the order is sought
_LEAST = 0.05  # chance of one that is worth a place


class Option(msgspec.Struct, frozen=True):
    """A plan that may be put to the proof: what it costs, and how likely it is to pass."""

    prospect: int  # which strategy with which arms
    threshold: float
    cost: float  # USD a request
    chance: float


def order(options: Sequence[Option], doing_nothing: float) -> list[Option]:
    """Order those that are expected to save most: from the likely and dear to the daring and cheap.

    What passed makes its like likelier to pass: the next threshold of the same arms as if nothing else could go wrong,
    a plan of others half so.
    """
    frontier: list[Option] = []
    for option in sorted(options, key=lambda each: (-each.chance, each.cost)):
        if option.cost < min((each.cost for each in frontier), default=doing_nothing) and option.chance >= _LEAST:
            frontier.append(option)
    step = max(1, len(frontier) // _MOST)
    frontier = frontier[::step] if step > 1 else frontier
    saved = [0.0] * len(frontier)  # what is expected beyond this one, once it has passed
    follows: list[int | None] = [None] * len(frontier)
    for at in reversed(range(len(frontier))):
        for after in range(at + 1, len(frontier)):
            gain = _given(frontier[after], frontier[at]) * (frontier[at].cost - frontier[after].cost + saved[after])
            if gain > saved[at]:
                saved[at], follows[at] = gain, after
    starts = [each.chance * (doing_nothing - each.cost + later) for each, later in zip(frontier, saved, strict=True)]
    following = max(range(len(frontier)), key=lambda each: starts[each], default=None)
    found: list[Option] = []
    while following is not None:
        found.append(frontier[following])
        following = follows[following]
    return found


def _given(one: Option, passed: Option) -> float:
    if one.prospect == passed.prospect:
        return one.chance / passed.chance
    return one.chance / sqrt(passed.chance)
