"""Arithmetic that an answer shows, worked out again."""

from __future__ import annotations

from fractions import Fraction

import pytest

from upstack.inference.arithmetic import check_arithmetic, evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", Fraction(7)),
        ("(1 + 2) * 3 / 4", Fraction(9, 4)),
        ("-3 - -2", Fraction(-1)),
        ("1,000 / 3", Fraction(1000, 3)),
        (".5 * 4", Fraction(2)),
        ("7", None),
        ("1 / 0", None),
        ("1 + ", None),
        ("(1 + 2", None),
        ("1 2", None),
        ("2 + x", None),
        ("(" * 200 + "1+1" + ")" * 200, None),
        ("", None),
    ],
)
def test_what_it_comes_to(text: str, value: Fraction | None) -> None:
    """Exactly, and None for what is not plain arithmetic in two numbers."""
    assert evaluate(text) == value


@pytest.mark.parametrize(
    ("answer", "equations", "wrong"),
    [
        ("She sells 16 - 3 - 4 = 9 eggs, so 9 x $2 = $18.", 2, 0),
        ("That is 9 \u00d7 2 = 19.", 1, 1),
        ("20% of 50: 20% * 50 = 10", 1, 0),
        ("10 / 3 = 3.33", 1, 0),
        ("10 / 3 = 3.34", 1, 1),
        ("10 / 3 = 3", 1, 0),
        ("1,200 + 300 = 1,500 and 1,200 + 300 = 1,400", 2, 1),
        ("1. 5 + 3 = 8\n2. 8 \\times 2 = 16", 2, 0),
        ("x = 5, so n = 7 and 5 = 5", 0, 0),
        ("no numbers at all", 0, 0),
        ("", 0, 0),
    ],
)
def test_equations_are_found_and_checked(answer: str, equations: int, wrong: int) -> None:
    """As exact as what is claimed is written."""
    assert check_arithmetic(answer) == (equations, wrong)


@pytest.mark.parametrize(
    "answer", ["1+" * 500_000, "(" * 1_000_000, "1 + 1 = " * 100_000, " " * 1_000_000, "9" * 1_000_000]
)
def test_a_hostile_answer_is_done_at_once(answer: str) -> None:
    """A megabyte of it; the suite's time limit is what this stands under."""
    assert check_arithmetic(answer).wrong <= check_arithmetic(answer).equations
