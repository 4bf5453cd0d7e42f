"""What is learned from graded rows, and that it is served as it was trained."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from tests.inference.traffic import REFERENCE, cost_of, made_rows
from upstack.core.grams import pieces, runs, shorten
from upstack.inference.backtest.board import Board, View
from upstack.inference.backtest.tables import Learned, plain_table, worths
from upstack.inference.graders.text import Exact
from upstack.inference.learning import signs
from upstack.inference.learning.scorer import Scorer
from upstack.inference.learning.signs import Answer
from upstack.inference.learning.training import RECIPES, Design, Recipe, Trained, out_of_fold
from upstack.inference.strategies.base import Ask, Propose
from upstack.inference.strategies.learned import Cascade, Precall
from upstack.inference.strategies.plain import Agree

ROUTES = (REFERENCE, "x/a", "x/b", "x/c")
KINDS = [(Precall, ("x/a",)), (Cascade, ("x/a",)), (Cascade, ("x/a", "x/b")), (Cascade, ("x/a", "x/b", "x/c"))]


@pytest.fixture(scope="module")
def board() -> Board:
    """Rows in which the cheap routes are misled by two words."""
    wrong = {REFERENCE: 0.1, "x/a": 0.15, "x/b": 0.2, "x/c": 0.25}
    return Board(made_rows(300, wrong, hard=("seal", "gear")), ROUTES, Exact(), cost_of)


def test_runs_of_words_and_characters_are_counted_in_lower_case() -> None:
    """Words of two letters on, characters within words."""
    assert pieces("words", "Pump P leaks") == ["pump", "leaks", "pump leaks"]
    assert runs("words", "pump leaks") == ["pump leaks"]
    assert pieces("characters", "AB c") == ["ab", "c"]
    assert runs("characters", "ab") == [" a", "ab", "b ", " ab "]
    assert len(shorten("x" * 10_000)) == 3_001


@pytest.mark.parametrize(
    "text", ["", " ", "\ud800", "1" * 5_000, "\x00", "((((" * 2_000, "٣ = ٣", "1/0 = 3", "=" * 30_000]
)
def test_signs_of_odd_texts_are_finite(text: str) -> None:
    """Whatever is asked and answered."""
    row = signs.of_prompt(text) + signs.of_answer(text, Answer(text, logprobs=(-1e9, 0.0)))
    assert all(math.isfinite(value) for value in row)


def test_wrong_arithmetic_and_unknown_numbers_are_signs() -> None:
    """What is not in the request, and what does not add up."""
    right = signs.of_answer("3 pumps and 4 valves", Answer("3 + 4 = 7"))
    wrong = signs.of_answer("3 pumps and 4 valves", Answer("3 + 5 = 9"))
    assert right != wrong
    assert sum(value != other for value, other in zip(right, wrong, strict=True)) >= 3


@pytest.mark.parametrize(("kind", "arms"), KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_served_scores_as_what_was_trained(
    board: Board, kind: type[Cascade | Precall], arms: tuple[str, ...], recipe: Recipe
) -> None:
    """Also after it has been written and read again; proposal, score, cost: all as the backtest has them."""
    learned = Learned(board, kind, arms)
    rows = np.arange(200)
    trained = Trained(Design(learned.sheet, rows, recipe), learned.targets)
    table = learned.table(worths(*trained.gains(np.arange(300))))
    made = learned.strategy(trained)
    strategy = msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=type(made))
    assert strategy.scorer.digest() == made.scorer.digest()
    for row in range(180, 220):
        view = View(board, row)
        while isinstance(step := strategy.step(view), Ask):
            view.asked.append(step.route)
        assert isinstance(step, Propose)
        assert step.score == pytest.approx(table.scores[row], abs=1e-5, rel=1e-4)
        assert board.column[step.route] == table.routes[row]


@pytest.mark.parametrize("recipe", RECIPES)
def test_few_rows_turned_are_learned_from_as_they_are(
    board: Board, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short way gives what the long way gives."""
    rows = np.arange(150)

    def gains() -> np.ndarray:
        learned = Learned(Board(board.rows, ROUTES, Exact(), cost_of), Precall, ("x/a",))
        return Trained(Design(learned.sheet, rows, recipe), learned.targets).gains(np.arange(300))[0]

    turned = gains()
    monkeypatch.setattr("upstack.inference.learning.training._TURNED", 0)
    assert np.abs(gains() - turned).max() < 2e-3


def test_a_row_is_not_scored_by_what_its_own_fold_taught(board: Board) -> None:
    """Labels turned around in one fold leave its scores as they were."""
    learned = Learned(board, Precall, ("x/a",))
    rows, folds = np.arange(300), np.arange(300) % 5
    design = Design(learned.sheet, rows, RECIPES[2])
    before, _ = out_of_fold(design, folds, learned.targets)
    other = learned.targets.copy()
    other[folds == 2, :2] = 1.0 - other[folds == 2, :2]
    after, _ = out_of_fold(design, folds, other)
    assert (before[folds == 2] == after[folds == 2]).all()
    assert (before[folds != 2] != after[folds != 2]).any()


def test_it_learns_which_words_mislead_the_cheap_route(board: Board) -> None:
    """On rows it has not seen, and nothing where there is one class only."""
    learned = Learned(board, Precall, ("x/a",))
    trained = Trained(Design(learned.sheet, np.arange(200), RECIPES[0]), learned.targets)
    gains, _ = trained.gains(np.arange(200, 300))
    hard = np.array(["seal" in prompt or "gear" in prompt for prompt in board.prompts[200:]])
    assert gains[hard].mean() > gains[~hard].mean() + 0.1
    same = learned.targets.copy()
    same[:, :2] = 0.0
    none, _ = Trained(Design(learned.sheet, np.arange(200), RECIPES[0]), same).gains(np.arange(300))
    assert np.ptp(none) == 0.0


def test_a_table_says_what_stepping_through_the_rows_does(board: Board) -> None:
    """Cost with and without the reference, excess, score."""
    table = plain_table(board, Agree(("x/a", "x/b", "x/c")))
    for row in range(50):
        said = board.contents[row]
        costs = board.costs[row]
        agreed = 0.0 if said[1] == said[2] else 1.0 if said[3] in said[1:3] else 2.0
        speaker = 2 if agreed == 1.0 and said[3] == said[2] else 1
        assert table.scores[row] == agreed
        assert table.routes[row] == speaker
        assert table.served[row] == pytest.approx(costs[1] + costs[2] + (costs[3] if agreed else 0.0))
        assert table.escalated[row] == pytest.approx(table.served[row] + costs[0])
        assert table.excess[row] == board.losses[row, speaker] - board.losses[row, 0]


def test_a_scorer_is_named_by_what_it_is(board: Board) -> None:
    """Another training, another name."""
    learned = Learned(board, Precall, ("x/a",))
    one, other = (
        Trained(Design(learned.sheet, np.arange(count), RECIPES[2]), learned.targets).scorer() for count in (200, 201)
    )
    assert isinstance(one, Scorer)
    assert one.digest() != other.digest()
