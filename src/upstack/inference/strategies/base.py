"""The interface of a strategy, and what becomes of its proposals."""

from __future__ import annotations

from typing import Protocol

import msgspec

from upstack.inference.learning.signs import Answer


class Ask(msgspec.Struct, frozen=True):
    """Ask this route, and look again."""

    route: str


class Propose(msgspec.Struct, frozen=True):
    """Serve this route's answer, which may be yet to be asked for, if the score is low enough."""

    route: str
    score: float  # the higher, the less it is trusted


class Take(msgspec.Struct, frozen=True):
    """Ask this route, and serve whatever it says."""

    route: str


class Serve(msgspec.Struct, frozen=True):
    """This route's answer, which is there, goes out."""

    route: str


class Seen(Protocol):
    """One request, and the answers there are by now."""

    @property
    def prompt(self) -> str:
        """The request's text."""
        ...

    def answer(self, route: str) -> Answer | None:
        """What a route said, None before it was asked."""
        ...

    def same(self, one: str, other: str) -> bool:
        """Whether the grader takes the answers of two routes, both asked, for the same."""
        ...


class Strategy(Protocol):
    """Makes plans of one shape. What it learned is part of it; the threshold is not."""

    @property
    def arms(self) -> tuple[str, ...]:
        """The routes it may ask before the reference, in the order it would."""
        ...

    def step(self, seen: Seen) -> Ask | Propose:
        """Say what is next, by what has been seen."""
        ...


def next_step(strategy: Strategy, threshold: float, reference: str, seen: Seen) -> Ask | Take | Serve:
    """Say what a plan does next: it escalates to the reference where the score of a proposal is above the threshold."""
    step = strategy.step(seen)
    if isinstance(step, Ask):
        return step
    route = step.route if step.score <= threshold else reference
    return Take(route) if seen.answer(route) is None else Serve(route)
