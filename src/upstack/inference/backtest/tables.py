"""What a strategy would have done with each row, for every threshold at once."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from upstack.core.grams import KINDS
from upstack.inference.backtest.board import Board, Floats, View
from upstack.inference.learning.training import Design, Recipe, Sheet, Trained
from upstack.inference.strategies.base import Ask, Strategy
from upstack.inference.strategies.learned import Cascade, Precall, asking
from upstack.inference.strategies.plain import Single

Rows = NDArray[np.int64]


class Table(msgspec.Struct, frozen=True):
    """A row each: the score, and excess loss and cost in USD where the proposal is served, and where it is not."""

    scores: Floats
    excess: Floats  # of the proposal; what is escalated has none
    served: Floats
    escalated: Floats
    routes: NDArray[np.int64]  # the column of the proposal

    def at(self, threshold: float, rows: Rows) -> tuple[Floats, Floats]:
        """Give excess and cost of these rows under a plan."""
        trusted = self.scores[rows] <= threshold
        return np.where(trusted, self.excess[rows], 0.0), np.where(trusted, self.served[rows], self.escalated[rows])


def plain_table(board: Board, strategy: Strategy) -> Table:
    """Let a strategy that learns nothing see every row."""
    scores, routes, asked = [], [], []
    for row in range(len(board.rows)):
        view = View(board, row)
        step = strategy.step(view)
        while isinstance(step, Ask):
            view.asked.append(step.route)
            step = strategy.step(view)
        scores.append(step.score)
        routes.append(board.column[step.route])
        asked.append(sum(board.costs[row, board.column[route]] for route in view.asked))
        if step.route not in view.asked:
            asked[-1] += board.costs[row, routes[-1]]
    return _table(board, np.array(scores), np.array(routes, np.int64), np.array(asked), np.array(asked))


class Learned:
    """A strategy with a learned score, before and after it is trained."""

    def __init__(self, board: Board, kind: type[Cascade | Precall], arms: tuple[str, ...]) -> None:
        """`arms` from the best on."""
        self.board, self.kind, self.arms = board, kind, arms
        self._table = plain_table(board, Single(arms[0]) if kind is Precall else asking(arms))
        reference = board.losses[:, 0]
        self.targets = np.stack([reference + self._table.excess, reference, np.maximum(board.costs[:, 0], 1e-12)], 1)
        self.sheet = self._sheet()

    def design(self, rows: Rows, recipe: Recipe) -> Design:
        """Describe what is to be learned from these rows."""
        return Design(self.sheet, rows, recipe)

    def strategy(self, trained: Trained) -> Cascade | Precall:
        """Make what is served."""
        scorer = trained.scorer()
        return Precall(self.arms[0], scorer) if self.kind is Precall else Cascade(self.arms, scorer)

    def table(self, scores: Floats) -> Table:
        """Say what becomes of all rows under these scores."""
        return replace(self._table, scores=scores)

    def _sheet(self) -> Sheet:
        board = self.board
        arms = () if self.kind is Precall else self.arms
        columns = [board.column[arm] for arm in arms]
        same = [board.classes[:, one] == board.classes[:, other] for one, other in combinations(columns, 2)]
        same[1:] = [each & ~same[0] for each in same[1:]]  # a third is asked where the first two differ
        parts = [board.prompt_signs, *map(board.answer_signs, arms[:2]), *(each[:, None] for each in same)]
        sources = [(-1, -1), (0, columns[0])] if len(arms) == 1 else [(-1, -1)]
        texts = [(source, partial(board.counted, at, kind)) for source, at in sources for kind in KINDS]
        return Sheet(len(arms), np.hstack(parts).astype(float), len(same), texts)


def worths(gains: Floats, costs: Floats) -> Floats:
    """Rank by what is gained for what it costs, as `scorer.worth` does."""
    return np.where(gains > 0, gains / costs, gains * costs)


def _table(board: Board, scores: Floats, routes: NDArray[np.int64], own: Floats, tried: Floats) -> Table:
    """`own`: what is asked until the proposal is served; `tried`: until it is escalated, the reference apart."""
    excess = board.losses[np.arange(len(board.rows)), routes] - board.losses[:, 0]
    return Table(scores, excess, own, tried + board.costs[:, 0], routes)
