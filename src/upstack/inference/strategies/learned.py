"""Strategies with a learned score."""

from __future__ import annotations

from itertools import combinations

import msgspec

from upstack.inference.learning.scorer import Scorer, worth
from upstack.inference.strategies.base import Ask, Propose, Seen
from upstack.inference.strategies.plain import Agree, Confidence


class Precall(msgspec.Struct, frozen=True, tag="precall"):
    """A model of the request picks the route before any is asked."""

    route: str
    scorer: Scorer

    @property
    def arms(self) -> tuple[str, ...]:
        """The cheap one."""
        return (self.route,)

    def step(self, seen: Seen) -> Ask | Propose:
        """Score the request."""
        return Propose(self.route, worth(*self.scorer.gain(seen.prompt)))


class Cascade(msgspec.Struct, frozen=True, tag="cascade"):
    """Cheap first: the answers are scored, by themselves and by how they agree. The first arm is the best one.

    Several are asked, and one of them is taken, as `Agree` does: a third only votes, where the first two differ.
    """

    arms: tuple[str, ...]  # one to three
    scorer: Scorer

    def step(self, seen: Seen) -> Ask | Propose:
        """Ask, then score the answers of the first two."""
        step = asking(self.arms).step(seen)
        if isinstance(step, Ask):
            return step
        answers = [answer for route in self.arms[:2] if (answer := seen.answer(route)) is not None]
        gain, cost = self.scorer.gain(seen.prompt, answers, _pairs(self.arms, seen))
        return Propose(step.route, worth(gain, cost))


def asking(arms: tuple[str, ...]) -> Agree | Confidence:
    """Whom a cascade asks before it scores: its score is not used."""
    return Agree(arms) if len(arms) > 1 else Confidence(arms[0])


def _pairs(arms: tuple[str, ...], seen: Seen) -> list[bool]:
    """Which pairs of answers are the same; one that was not asked is the same as none."""
    there = {route for route in arms if seen.answer(route) is not None}
    return [{one, other} <= there and seen.same(one, other) for one, other in combinations(arms, 2)]
