"""Strategies with a learned score."""

from __future__ import annotations

from itertools import combinations

import msgspec

from upstack.inference.learning.scorer import Scorer, worth
from upstack.inference.learning.signs import Answer
from upstack.inference.strategies.base import Ask, Propose, Seen


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
    """Cheap first: the answers are scored, by themselves and by how they agree. The first arm is the best one."""

    arms: tuple[str, ...]  # one to three
    scorer: Scorer

    def step(self, seen: Seen) -> Ask | Propose:
        """Ask all arms, then score what most of them say."""
        answers: list[Answer] = []
        for route in self.arms:
            answer = seen.answer(route)
            if answer is None:
                return Ask(route)
            answers.append(answer)
        return Propose(
            spokesman(self.arms, seen), worth(*self.scorer.gain(seen.prompt, answers, pairs(self.arms, seen)))
        )


def pairs(arms: tuple[str, ...], seen: Seen) -> list[bool]:
    """Which pairs of answers are the same."""
    return [seen.same(one, other) for one, other in combinations(arms, 2)]


def spokesman(arms: tuple[str, ...], seen: Seen) -> str:
    """The first of those whose answer most others share."""
    votes = {one: sum(seen.same(one, other) for other in arms if other != one) for one in arms}
    return max(arms, key=lambda one: votes[one])
