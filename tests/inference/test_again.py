"""Routes whose recorded answers have samples: asked twice, and trusted where they say the same."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from tests.inference.traffic import REFERENCE, cost_of, made_rows
from upstack.core.traffic import TrafficRow
from upstack.inference.backtest.again import AGAIN, asked_again, may_pair
from upstack.inference.backtest.board import Board, complete
from upstack.inference.backtest.run import backtest
from upstack.inference.backtest.split import split
from upstack.inference.backtest.wanted import Wanted
from upstack.inference.graders.text import Exact


def _rows(count: int, *, labelled: bool = True) -> list[TrafficRow]:
    """One route that says the same again where it is right, and something else where it is wrong."""
    draw = random.Random(5)
    found = []
    for row in made_rows(count, {REFERENCE: 0.05, "x/a": 0.2}, labelled=labelled):
        answer = row.answers["x/a"]
        other = answer.content if answer.content == row.truth else draw.choice(["E", "F", "G"])
        found.append(_with(row, str(other)))
    return found


def test_what_a_route_says_twice_is_trusted() -> None:
    """One route, wrong too often, is certified by itself: asked again it betrays where it is wrong."""
    rows, again = asked_again(_rows(1_200), ["x/a"])
    assert again == ["x/a" + AGAIN]
    whole, candidates, _ = complete(rows, REFERENCE, ["x/a", *again])

    def cost(route: str, answer: object) -> float:
        return cost_of(route.removesuffix(AGAIN), answer)  # type: ignore[arg-type]

    board = Board(whole, (REFERENCE, *candidates), Exact(), cost)
    said = backtest(board, Wanted("agree", 0.03), split(whole, 0.5, 0)).verdict
    assert said.certified
    assert said.policy.routes == ("x/a", "x/a" + AGAIN, REFERENCE)
    assert said.cost_ratio == pytest.approx(0.1 + said.policy.escalated, abs=0.02)
    alone = backtest(board, Wanted("single", 0.03), split(whole, 0.5, 0)).verdict
    assert not alone.certified


def test_what_a_second_answer_loses_is_known_or_a_full_loss() -> None:
    """With a truth it is graded; without one it loses as much where it says the same."""
    row = _rows(1)[0]
    answer = replace(row.answers["x/a"], content="A", loss=0.25, samples=("A",))
    for samples, truth, loss in ((("A",), None, 0.25), (("B",), None, 1.0), (("B",), "B", None), (("A",), "A", 0.25)):
        given = replace(row, truth=truth, answers={"x/a": replace(answer, samples=samples)})
        (found,), _ = asked_again([given], ["x/a"])
        assert found.answers["x/a" + AGAIN].loss == loss
        assert found.answers["x/a" + AGAIN].content == samples[0]


def test_a_route_with_few_second_answers_has_none() -> None:
    """Rows without one would be lost."""
    rows = _rows(20)
    few = [*rows[:17], *(_with(row) for row in rows[17:])]
    assert asked_again(few, ["x/a", "x/none"])[1] == []
    assert asked_again([*rows[:18], *few[18:]], ["x/a"])[1] == ["x/a" + AGAIN]


def _with(row: TrafficRow, *samples: str) -> TrafficRow:
    return replace(row, answers={**row.answers, "x/a": replace(row.answers["x/a"], samples=samples)})


def test_a_second_answer_stands_beside_its_first_alone() -> None:
    """Beside another route it says no more than the first does."""
    assert may_pair("x/a", "x/b")
    assert may_pair("x/a", "x/a" + AGAIN)
    assert not may_pair("x/b", "x/a" + AGAIN)
    assert not may_pair("x/a" + AGAIN, "x/b")
