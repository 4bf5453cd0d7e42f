"""Backtests: what is proved, what is only hoped, and that nothing bad is promoted more often than it says."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from tests.inference.traffic import REFERENCE, cost_of, made_rows
from upstack.core.errors import EvidenceError
from upstack.core.traffic import RecordedAnswer
from upstack.inference.backtest.board import Board, as_answer, complete
from upstack.inference.backtest.paths import Aim, propose
from upstack.inference.backtest.plot import draw
from upstack.inference.backtest.ranking import ranking
from upstack.inference.backtest.reasons import explained
from upstack.inference.backtest.run import Outcome, backtest, in_order
from upstack.inference.backtest.split import folds_of, split
from upstack.inference.backtest.wanted import Wanted
from upstack.inference.graders.text import Exact


def _board(count: int, wrong: dict[str, float], seed: int = 0, **options: Any) -> Board:
    rows = made_rows(count, {REFERENCE: 0.05, **wrong}, seed, **options)
    return Board(rows, (REFERENCE, *wrong), Exact(), cost_of)


def _run(board: Board, **wanted: Any) -> Outcome:
    asked = Wanted(**wanted)
    return backtest(board, asked, split(board.rows, asked.calibrate, asked.seed))


def test_no_cluster_is_in_two_parts_and_evidence_has_one_row_of_each() -> None:
    """A request that came three times is learned from, or is evidence once, or is tested on."""
    rows = made_rows(200, {REFERENCE: 0.1}) * 3
    parts = split(rows, 0.5, 1)
    texts = [{str(rows[at].messages) for at in part} for part in (parts.fit, parts.evidence, parts.test)]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]
    assert len(parts.evidence) == len(texts[1]) > 30
    assert len(parts.test) == 3 * len(texts[2])
    assert parts == split(rows, 0.5, 1) != split(rows, 0.5, 2)


def test_a_cheap_route_as_good_as_the_reference_is_certified() -> None:
    """And what it cost and lost on rows that nobody looked at before is told, with a band."""
    outcome = _run(_board(1_200, {"x/good": 0.05, "x/bad": 0.5}), strategy="single", max_loss=0.1)
    said = outcome.verdict
    assert said.certified
    assert said.policy.routes == ("x/good", REFERENCE)
    assert said.cost_ratio == pytest.approx(0.05)
    low, high = said.excess_loss_interval
    assert low < said.excess_loss < high
    assert said.n_fit + said.n_evidence + said.n_test == 1_200
    assert said.cost_ratio_all_in > said.cost_ratio
    assert any(each.proved for each in said.tried)


def test_a_route_that_loses_too_much_is_not_and_it_says_why() -> None:
    """The reference serves, at its own cost; the way on is named."""
    board = _board(900, {"x/bad": 0.5})
    said = explained(_run(board, strategy="single", max_loss=0.05).verdict, board, Wanted("single", 0.05))
    assert not said.certified
    assert said.policy.strategy == "reference"
    assert (said.cost_ratio, said.excess_loss, said.excess_loss_interval) == (1.0, 0.0, (0.0, 0.0))
    assert said.why is not None
    assert "too weak" in said.why
    assert said.way_on is not None


def test_too_few_checks_are_told_with_how_many_more_it_takes() -> None:
    """At the present rate, in checks and USD."""
    board = _board(260, {"x/good": 0.03}, 5)
    said = explained(_run(board, strategy="single", max_loss=0.03).verdict, board, Wanted("single", 0.03))
    assert not said.certified
    assert said.why is not None
    assert said.why.startswith("Too few labels")
    assert said.way_on is not None


def test_without_labels_every_difference_counts_as_a_loss() -> None:
    """Two that err alone differ twice as often as one loses."""
    board = _board(800, {"x/good": 0.02}, labelled=False)
    assert not board.labelled.any()
    assert board.losses[:, 0].sum() == 0
    differ = np.array([said[0] != said[1] for said in board.contents])
    assert (board.losses[:, 1] == differ).all()
    said = _run(board, strategy="single", max_loss=0.2).verdict
    assert said.certified
    assert said.policy.loss is None
    assert said.labelled_share == 0.0


@pytest.mark.parametrize("truth", ["A", None])
@pytest.mark.parametrize("content", ["", None])
def test_empty_answers_prove_nothing(content: str | None, truth: str | None) -> None:
    """All alike, and as wrong or as unknown as the reference: that is no reason to promote any of them."""
    answers = {name: RecordedAnswer(content, 10, 0) for name in (REFERENCE, "x/a", "x/b")}
    rows = [replace(row, answers=answers, truth=truth) for row in made_rows(600, {})]
    board = Board(rows, (REFERENCE, "x/a", "x/b"), Exact(), cost_of)
    said = _run(board, max_loss=0.2).verdict
    assert not said.certified
    assert said.measured_share == 0.0


def test_log_probabilities_of_any_shape_are_read_as_far_as_they_are_numbers() -> None:
    """What a provider or a file has there is not ours."""
    odd: list[Any] = [
        {"logprob": -1},
        {"logprob": -9999.0},
        {"logprob": "x"},
        {"logprob": None},
        {},
        3,
        {"logprob": 2.0},
    ]
    assert as_answer(RecordedAnswer("a", 1, 1, logprobs={"content": odd})).logprobs == (-1.0, -100.0, 0.0)
    for none in ({}, {"content": None}, {"content": 3}, None):
        assert as_answer(RecordedAnswer("a", 1, 1, logprobs=none)).logprobs == ()


def test_a_route_that_tells_how_sure_it_is_is_trusted_where_it_is() -> None:
    """Its wrong answers have low log-probabilities."""
    rows = []
    for row in made_rows(1_200, {REFERENCE: 0.05, "x/a": 0.3}):
        answer = row.answers["x/a"]
        sure = {"content": [{"logprob": -2.0 if answer.loss else -0.01}]}
        rows.append(replace(row, answers={**row.answers, "x/a": replace(answer, logprobs=sure)}))
    board = Board(rows, (REFERENCE, "x/a"), Exact(), cost_of)
    said = _run(board, strategy="cascade", max_loss=0.05).verdict
    assert said.certified
    assert said.excess_loss < 0
    assert any(each.strategy == "confidence" for each in said.tried)


def test_a_learned_path_serves_what_is_easy() -> None:
    """Before the call: requests with a word that misleads the cheap route go to the reference."""
    said = _run(
        _board(1_500, {"x/a": 0.03}, hard=("seal",)), strategy="precall", max_loss=0.05, calibrate=0.7, confidence=0.9
    ).verdict
    assert said.certified
    assert said.policy.strategy == "precall"
    assert 0.2 < said.policy.escalated < 0.9
    assert said.cost_ratio < 0.95


def test_agreeing_routes_are_served_and_others_escalated() -> None:
    """Two that err by chance seldom err alike."""
    said = _run(_board(1_200, {"x/a": 0.15, "x/b": 0.15}), strategy="agree", max_loss=0.05).verdict
    assert said.certified
    assert said.policy.strategy == "agree"
    assert said.cost_ratio == pytest.approx(0.1 + said.policy.escalated, abs=0.02)


def test_uncertified_takes_the_cheapest_that_seems_no_worse() -> None:
    """All calibration rows are learned from, and nothing is claimed."""
    said = _run(_board(900, {"x/good": 0.01, "x/bad": 0.5}), certified=False, strategy="single").verdict
    assert not said.certified
    assert said.policy.routes == ("x/good", REFERENCE)
    assert said.n_evidence == 0
    assert said.why is None


def test_the_same_seed_gives_the_same_verdict() -> None:
    """Bit by bit, with all that is learned."""
    first, second = (_run(_board(500, {"x/a": 0.1, "x/b": 0.12}), max_loss=0.05, seed=3).verdict for _ in range(2))
    assert first == second
    assert first != _run(_board(500, {"x/a": 0.1, "x/b": 0.12}), max_loss=0.05, seed=4).verdict


def test_too_few_rows_are_an_error() -> None:
    """With how many there are of each part."""
    with pytest.raises(EvidenceError, match="Too few rows: "):
        _run(_board(60, {"x/a": 0.1}))


def test_rows_and_candidates_that_lack_answers_are_left_out() -> None:
    """A candidate that most rows lack, then rows that lack one of the others."""
    rows = made_rows(100, {REFERENCE: 0.1, "x/a": 0.1, "x/b": 0.1})
    for row in rows[:70]:
        del row.answers["x/b"]
    for row in rows[:10]:
        del row.answers["x/a"]
    kept, candidates, gaps = complete(rows, REFERENCE, ["x/a", "x/b"])
    assert (len(kept), candidates) == (90, ["x/a"])
    assert (gaps.rows, gaps.candidates) == (10, ("x/b",))
    with pytest.raises(EvidenceError, match='"x/c"'):
        complete(rows, "x/c", ["x/a"])


def test_the_plans_of_one_strategy_are_tried_from_the_likely_to_the_cheap() -> None:
    """Each is cheaper than the one before it, all than doing nothing, and none is likelier to pass."""
    board = _board(600, {"x/a": 0.15, "x/b": 0.15}, hard=("seal",))
    parts = split(board.rows, 0.7, 0)
    fit = np.array(parts.fit)
    aim = Aim(0.05, 0.1, float(board.costs[fit, 0].mean()), len(parts.evidence))
    found = propose(board, fit, np.array(parts.cluster), "auto", aim)
    assert len({each.name for each in found}) > 1
    assert [each.promise() for each in found] == sorted((each.promise() for each in found), reverse=True)
    for prospect in found:
        costs = [aim.doing_nothing, *(each.cost for each in prospect.path())]
        assert all(after < before for before, after in pairwise(costs))
        assert all(after.chance <= before.chance for before, after in pairwise(prospect.path()))
        assert 0 <= prospect.promise() <= aim.doing_nothing - costs[-1]
    tried = in_order(found)
    assert {each.prospect.name for each in tried} == {found[0].name}
    assert [each.threshold for each in tried] == [each.threshold for each in found[0].path()]
    assert in_order([]) == []


def test_a_curve_says_how_well_the_score_ranks() -> None:
    """Better than chance where words tell; an error where the candidate is no worse."""
    board = _board(600, {"x/a": 0.02}, hard=("seal",))
    (found,) = ranking(board, "precall", folds_of(board.rows))
    assert found.apgr > 0.6
    assert 0 < found.cpt50 < found.cpt80 < 100
    assert ranking(_board(100, {"x/a": 0.0}), "precall", np.arange(100) % 5) == []


def test_the_drawing_shows_every_plan_and_doing_nothing() -> None:
    """As SVG; names that look like tags are texts."""
    said = _run(_board(400, {"x/a": 0.1, "x/b": 0.1}), strategy="agree", max_loss=0.05).verdict
    drawn = draw(said, "<task>", 0.05)
    assert drawn.count("<circle") >= len(said.tried)
    assert "&lt;task&gt;" in drawn
    assert "do nothing" in drawn


@pytest.mark.timeout(180)
def test_fifty_candidates_at_the_boundary_are_seldom_promoted() -> None:
    """Through the same choice as any other: at most delta, within the noise of 120 runs."""
    wrong = {f"x/{number}": 0.15 for number in range(50)}
    runs = 120
    promoted = 0
    for seed in range(runs):
        rows = made_rows(260, {REFERENCE: 0.05, **wrong}, seed)
        board = Board(rows, (REFERENCE, *wrong), Exact(), cost_of)
        promoted += _run(board, strategy="single", max_loss=0.1, confidence=0.9, seed=seed).verdict.certified
    assert promoted / runs <= 0.1 + 2 * (0.1 * 0.9 / runs) ** 0.5
