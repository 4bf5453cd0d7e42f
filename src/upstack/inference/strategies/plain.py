"""Strategies that learn nothing."""

from __future__ import annotations

import msgspec

from upstack.inference.strategies.base import Ask, Propose, Seen


class Single(msgspec.Struct, frozen=True, tag="single"):
    """One route for all."""

    route: str

    @property
    def arms(self) -> tuple[str, ...]:
        """The one."""
        return (self.route,)

    def step(self, seen: Seen) -> Ask | Propose:  # noqa: ARG002 - whatever is asked
        """Propose it."""
        return Propose(self.route, 0.0)


class Agree(msgspec.Struct, frozen=True, tag="agree"):
    """Two cheap routes that say the same are trusted (score 0); then a third that sides with one of them (score 1).

    Where none agree the score is 2. The first arm is the better one: it speaks for both.
    """

    arms: tuple[str, ...]  # two or three

    def step(self, seen: Seen) -> Ask | Propose:
        """Ask the two, compare, and ask the third where they differ."""
        for route in self.arms[:2]:
            if seen.answer(route) is None:
                return Ask(route)
        first, second = self.arms[:2]
        if seen.same(first, second):
            return Propose(first, 0.0)
        for third in self.arms[2:]:
            if seen.answer(third) is None:
                return Ask(third)
            for route in (first, second):
                if seen.same(route, third):
                    return Propose(route, 1.0)
        return Propose(first, 2.0)


class Confidence(msgspec.Struct, frozen=True, tag="confidence"):
    """Cheap first: how sure the model itself is of its answer, without anything learned from other requests."""

    route: str

    @property
    def arms(self) -> tuple[str, ...]:
        """The cheap one."""
        return (self.route,)

    def step(self, seen: Seen) -> Ask | Propose:
        """Ask, and score by the mean log-probability of the answer's tokens; one without any is not trusted."""
        answer = seen.answer(self.route)
        if answer is None:
            return Ask(self.route)
        logprobs = answer.logprobs
        return Propose(self.route, -sum(logprobs) / len(logprobs) if logprobs else float("inf"))
