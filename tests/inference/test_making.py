"""Graders by name, and which one recorded losses point to."""

from __future__ import annotations

from typing import Any

import pytest

from upstack.core.errors import ConfigError, EvidenceError
from upstack.inference.graders.making import guess_grader, make_grader


def raising(answer: str, truth: Any) -> float:
    """Not a grader to be proud of."""
    raise RuntimeError("no")


def told(answer: str, truth: Any) -> float:
    """Whether the truth is told."""
    return 0.0 if str(truth) in answer else 1.0


def _alike(one: str, other: str) -> bool:
    return one.rsplit(maxsplit=1)[-1] == other.rsplit(maxsplit=1)[-1]


told.same = _alike  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "answer", "truth", "loss"),
    [
        ("exact", "Seal ", "seal", 0.0),
        ("exact:number", "in all $1,200.50", 1200.5, 0.0),
        ("exact:answer,case", '{"reasoning": "3 + 4", "answer": "$7.00"}', 7, 0.0),
        ("exact:answer,latex", r'{"answer": "\frac{1}{2}"}', "1/2", 0.0),
        ("exact:answer,case", "So it is 3.\nFinal answer: B.", "b", 0.0),
        ("exact:answer", "#### 18", "18", 0.0),
        ("exact:answer,case,space", "['a', 1]", "['A',  1]", 0.0),
        ("contains:case", "It is the SEAL", "seal", 0.0),
        ("json", '{"part": "seal"}', {"part": "seal"}, 0.0),
        ("tests.inference.test_making:told", "the seal", "seal", 0.0),
    ],
)
def test_a_name_says_how_answers_are_graded(name: str, answer: str, truth: Any, loss: float) -> None:
    """With normalisers after a colon, in their order."""
    grader = make_grader(name)
    assert grader.loss(answer, truth) == loss
    assert grader.loss("something else 99", truth) == 1.0
    assert grader.same(answer, answer)


def test_two_answers_are_the_same_where_the_users_function_says_so() -> None:
    """By its attribute `same`."""
    grader = make_grader("tests.inference.test_making:told")
    assert grader.same("a seal", "the seal")
    assert not grader.same("a seal", "a pump")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("taste", 'no grader "taste"'),
        ("json:case", "the module json has no case"),
        ("exact:", None),
        ("exact:loud", 'no normaliser "loud"'),
        ("tests.inference.test_making:nothing", "has no nothing"),
        ("tests.inference.test_making:__doc__", "is no function"),
    ],
)
def test_what_is_no_grader_is_named(name: str, words: str | None) -> None:
    """With what there is."""
    if words is None:
        assert make_grader(name).loss("A", "a") == 0.0
        return
    with pytest.raises(ConfigError, match=words):
        make_grader(name)


def test_a_grader_that_raises_is_an_error_with_its_name() -> None:
    """And not a loss."""
    with pytest.raises(EvidenceError, match="test_making:raising raised RuntimeError"):
        make_grader("tests.inference.test_making:raising").loss("a", "b")


@pytest.mark.parametrize(
    ("answers", "losses", "truth", "name"),
    [
        (["It is 18.", "18", "$18.00", "9"], [0.0, 0.0, 0.0, 1.0], None, "exact:number"),
        (["Seal", "seal", "pump", "fan"], [0.0, 0.0, 1.0, 1.0], None, "exact:case,space"),
        (['{"answer": "[1, 2]"}', "[1, 2]", "[2, 2]", "[1, 3]"], [0.0, 0.0, 1.0, 1.0], None, "exact:answer,case,space"),
        (["The answer is (B)", "B", "(B)", "C"], [None] * 4, "B", "exact:choice"),
        (['{"a": 1, "b": 2}', '{"b": 2, "a": 1}', '{"a": 2}'], [None] * 3, {"a": 1, "b": 2}, "json"),
    ],
)
def test_recorded_losses_point_to_a_grader(
    answers: list[str], losses: list[float | None], truth: Any, name: str
) -> None:
    """What is the same has the same loss, and what is right is the same."""
    assert guess_grader([(answers, losses, truth)] * 3) == name
