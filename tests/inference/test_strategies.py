"""Strategies: what is asked, what is proposed, when it is escalated."""

from __future__ import annotations

import pytest

from upstack.inference.learning.scorer import Scorer
from upstack.inference.learning.signs import Answer, of_answer, of_prompt
from upstack.inference.strategies.base import Ask, Propose, Serve, Strategy, Take, next_step
from upstack.inference.strategies.learned import Cascade, Precall
from upstack.inference.strategies.plain import Agree, Confidence, Single

REFERENCE = "big/reference"


class Seen:
    """A request of which some answers are there."""

    def __init__(self, **answers: str | Answer) -> None:
        self._answers = {
            name: answer if isinstance(answer, Answer) else Answer(answer) for name, answer in answers.items()
        }

    @property
    def prompt(self) -> str:
        """The request's text."""
        return "What leaks?"

    def answer(self, route: str) -> Answer | None:
        """What a route said."""
        return self._answers.get(route.partition("/")[2])

    def same(self, one: str, other: str) -> bool:
        """Equal texts."""
        first, second = self.answer(one), self.answer(other)
        assert first is not None
        assert second is not None
        return first.content == second.content


def _scorer(bias: float, arms: int) -> Scorer:
    width = len(of_prompt("")) + arms * len(of_answer("", Answer(""))) + (arms == 2)
    zeros = (0.0,) * width
    return Scorer(arms, zeros, (1.0,) * width, (zeros,) * 3, (bias, 0.0, 0.0))


@pytest.mark.parametrize(
    ("strategy", "seen", "step"),
    [
        (Single("x/a"), Seen(), Propose("x/a", 0.0)),
        (Agree(("x/a", "x/b")), Seen(), Ask("x/a")),
        (Agree(("x/a", "x/b")), Seen(a="1"), Ask("x/b")),
        (Agree(("x/a", "x/b")), Seen(a="1", b="1"), Propose("x/a", 0.0)),
        (Agree(("x/a", "x/b")), Seen(a="1", b="2"), Propose("x/a", 2.0)),
        (Agree(("x/a", "x/b", "x/c")), Seen(a="1", b="2"), Ask("x/c")),
        (Agree(("x/a", "x/b", "x/c")), Seen(a="1", b="2", c="2"), Propose("x/b", 1.0)),
        (Agree(("x/a", "x/b", "x/c")), Seen(a="1", b="2", c="3"), Propose("x/a", 2.0)),
        (Confidence("x/a"), Seen(), Ask("x/a")),
        (Confidence("x/a"), Seen(a=Answer("1", logprobs=(-0.5, -1.5))), Propose("x/a", 1.0)),
        (Confidence("x/a"), Seen(a="1"), Propose("x/a", float("inf"))),
        (Precall("x/a", _scorer(0.0, 0)), Seen(), Propose("x/a", 0.0)),
        (Cascade(("x/a",), _scorer(0.0, 1)), Seen(), Ask("x/a")),
        (Cascade(("x/a",), _scorer(0.0, 1)), Seen(a="1"), Propose("x/a", 0.0)),
        (Cascade(("x/a", "x/b"), _scorer(0.0, 2)), Seen(a="1"), Ask("x/b")),
    ],
)
def test_a_strategy_asks_in_order_and_proposes_with_a_score(
    strategy: Strategy, seen: Seen, step: Ask | Propose
) -> None:
    """The score is what the threshold is compared with."""
    assert strategy.step(seen) == step


def test_what_scores_above_the_threshold_goes_to_the_reference() -> None:
    """Which is asked then, and served once it has answered."""
    agree = Agree(("x/a", "x/b"))
    assert next_step(agree, 0.0, REFERENCE, Seen(a="1", b="1")) == Serve("x/a")
    assert next_step(agree, 0.0, REFERENCE, Seen(a="1", b="2")) == Take(REFERENCE)
    assert next_step(agree, 0.0, REFERENCE, Seen(a="1", b="2", reference="2")) == Serve(REFERENCE)
    assert next_step(agree, 2.0, REFERENCE, Seen(a="1", b="2")) == Serve("x/a")


def test_before_the_call_only_one_route_is_asked() -> None:
    """The cheap one where little is to be gained, else the reference."""
    assert next_step(Precall("x/a", _scorer(-2.0, 0)), 0.0, REFERENCE, Seen()) == Take("x/a")
    assert next_step(Precall("x/a", _scorer(2.0, 0)), 0.0, REFERENCE, Seen()) == Take(REFERENCE)


def test_a_third_is_asked_where_two_differ_and_what_most_say_is_proposed() -> None:
    """Not what the first arm says, where the two others agree."""
    width = len(of_prompt("")) + 2 * len(of_answer("", Answer(""))) + 3
    zeros = (0.0,) * width
    scorer = Scorer(3, zeros, (1.0,) * width, (zeros,) * 3, (0.0, 0.0, 0.0))
    cascade = Cascade(("x/a", "x/b", "x/c"), scorer)
    assert cascade.step(Seen(a="1", b="1")) == Propose("x/a", 0.0)
    assert cascade.step(Seen(a="1", b="2")) == Ask("x/c")
    assert cascade.step(Seen(a="1", b="2", c="2")) == Propose("x/b", 0.0)
