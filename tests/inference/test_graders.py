"""Graders: what is right, how wrong the rest is, and which answers are worth the same whatever the truth is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstack.core.errors import EvidenceError
from upstack.inference.graders.base import Grader
from upstack.inference.graders.fields import Fields
from upstack.inference.graders.normal import NORMALISERS
from upstack.inference.graders.text import Contains, Exact

GRADERS: list[Grader] = [
    Exact(),
    Exact(["latex", "number"]),
    Exact(["choice"]),
    Contains(),
    Fields(),
    Fields({"a": 2.0, "b.c": 0.5, "d": 0.0}),
]
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["18", "$18.00", "The answer is (B).", "b", r"\boxed{\dfrac{1}{2}}", "1/2", '{"a": 1}', '{"a": 1.0}']
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["x", "y"]),
        lambda each: st.lists(each, max_size=2) | st.dictionaries(st.sampled_from("abcd"), each, max_size=3),
        max_leaves=6,
    ).map(json.dumps),
)


@pytest.mark.parametrize(
    ("name", "text", "normal"),
    [
        ("case", "Seal LEAK", "seal leak"),
        ("space", "  a\n\tb ", "a b"),
        ("number", "$1,250.50 in all", "1250.5"),
        ("number", "from 3 to 18.0", "18"),
        ("number", "-0.0", "0"),
        ("number", "\u22127", "-7"),
        ("number", "1e3 units", "1000"),
        ("number", ".5", "0.5"),
        ("number", "12,34", "34"),
        ("number", "none", "none"),
        ("latex", r"so $x = \boxed{\dfrac{1}{2}}$.", "1/2"),
        ("latex", r"\boxed{1} then \boxed{\frac{3}{\sqrt2}}", r"3/(\sqrt{2})"),
        ("latex", r"\left( 3, \text{ blue } \right)", "(3,blue)"),
        ("latex", r"\frac12", "1/2"),
        ("latex", r"45^\circ", "45"),
        ("latex", r"\boxed{1", r"\boxed{1"),
        ("latex", r"2 \cdot 3\%", "2*3%"),
        ("choice", "b", "B"),
        ("choice", "(C)", "C"),
        ("choice", "First (A) looks right, but the answer is **D**.", "D"),
        ("choice", "B. Because it leaks", "B"),
        ("choice", "Either (A) or (C)", "C"),
        ("choice", "A pump leaks", "A pump leaks"),
    ],
)
def test_what_means_the_same_becomes_the_same(name: str, text: str, normal: str) -> None:
    """What a normaliser does not understand it leaves alone."""
    assert NORMALISERS[name](text) == normal


@pytest.mark.parametrize(
    ("grader", "answer", "truth", "loss"),
    [
        (Exact(), " Seal  leak", "seal leak", 0.0),
        (Exact(), "seal", "seal leak", 1.0),
        (Exact(), "pump", ["seal", "Pump"], 0.0),
        (Exact(["number"]), "It is $18.00.", 18, 0.0),
        (Exact(), "TRUE", True, 0.0),
        (Contains(), "The seal of P-101 leaks", ["p-101", "seal", "bearing", "motor"], 0.5),
        (Contains(), "", "seal", 1.0),
        (Fields(), '{"a": 1.0, "b": "x", "more": 3}', {"a": 1, "b": "x"}, 0.0),
        (Fields(), '```json\n{"a": 2, "b": {"c": [1, 2]}}\n```', {"a": 1, "b": {"c": [1, 2]}}, 0.5),
        (Fields({"a": 3.0}), '{"a": 2, "b": 1}', '{"a": 1, "b": 1}', 0.75),
        (Fields({"b": 0.0}), '{"a": 1, "b": 7}', {"a": 1, "b": 1}, 0.0),
        (Fields(), '{"a": true}', {"a": 1}, 1.0),
        (Fields(), '{"a": [1, true]}', {"a": [1, 1]}, 1.0),
        (Fields(), "no JSON", {"a": 1}, 1.0),
        (Fields(), "[1]", {"a": 1}, 1.0),
        (Fields(), "[" * 100_000, {"a": 1}, 1.0),
    ],
)
def test_losses(grader: Grader, answer: str, truth: Any, loss: float) -> None:
    """From 0 to 1."""
    assert grader.loss(answer, truth) == loss


@pytest.mark.parametrize(
    ("grader", "truth"),
    [
        (Exact(), None),
        (Exact(), {"a": 1}),
        (Exact(), []),
        (Contains(), [None]),
        (Contains(), ["seal", " "]),
        (Fields(), "x"),
        (Fields(), {}),
        (Fields(), 3),
    ],
)
def test_a_truth_of_the_wrong_type_is_an_error(grader: Grader, truth: Any) -> None:
    """And never a loss: evidence must not be made of a mistake in the labels."""
    with pytest.raises(EvidenceError, match="A truth for this grader"):
        grader.loss("x", truth)


@pytest.mark.parametrize(
    "answer",
    [
        "1," + "111," * 250_000 + "1",
        "```" + "\n" * 1_000_000,
        "{" * 1_000_000,
        r"\frac{" * 150_000 + "}" * 150_000,
        r"\boxed{" * 150_000,
        "(A" * 500_000,
        " " * 1_000_000 + "A!",
        "answer" + " " * 1_000_000,
    ],
)
def test_a_hostile_answer_is_graded_at_once(answer: str) -> None:
    """A megabyte on which careless patterns would work for hours; the suite's time limit is what this stands under."""
    for grader in (*GRADERS, Exact(list(NORMALISERS))):
        assert grader.loss(answer, '{"a": 1}') in {0.0, 1.0}
        assert grader.same(answer, answer)


@pytest.mark.parametrize("nested", ["[" * 900 + "]" * 900, '{"b":' * 900 + "1" + "}" * 900])
def test_what_is_nested_too_deeply_to_be_compared_is_not_the_same(nested: str) -> None:
    """Neither right nor a crash: a disagreement waits for a label."""
    answer = f'{{"a": {nested}}}'
    assert not Fields().same(answer, answer)
    assert Fields().loss(answer, {"a": 1}) == 1.0


@pytest.mark.parametrize("grader", GRADERS)
@given(one=TEXTS, other=TEXTS, truth=TEXTS)
def test_what_is_the_same_has_the_same_loss(grader: Grader, one: str, other: str, truth: str) -> None:
    """Whatever the truth: otherwise an unlabelled agreement could not count as no excess."""
    assert grader.same(one, one)
    assert grader.same(one, other) == grader.same(other, one)
    if grader.same(one, other):
        try:
            losses = (grader.loss(one, truth), grader.loss(other, truth))
        except EvidenceError:
            return
        assert losses[0] == losses[1]
        assert 0.0 <= losses[0] <= 1.0
