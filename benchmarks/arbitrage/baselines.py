"""Simple ways to save, on the same rows and splits: a pair that agrees, and word counts before the call."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from upstack.inference.backtest.board import Board, Floats
from upstack.inference.backtest.split import Split
from upstack.inference.backtest.tables import Table, plain_table
from upstack.inference.certify import wealth_of
from upstack.inference.curve import Curve, curve
from upstack.inference.strategies.plain import Agree


class Pairs:
    """Every pair of candidates that agree, else the reference: the cheapest that was no worse is taken."""

    def __init__(self, board: Board) -> None:
        """The better one speaks for both."""
        self._board = board
        losses, costs = board.losses.mean(axis=0), board.costs.mean(axis=0)
        pairs = [sorted(pair, key=lambda at: losses[at]) for pair in combinations(range(1, len(board.routes)), 2)]
        pairs = [pair for pair in pairs if costs[pair].sum() < costs[0]]
        self._tables = [plain_table(board, Agree(tuple(board.routes[at] for at in pair))) for pair in pairs]

    def uncertified(self, parts: Split) -> tuple[float, float]:
        """Cost ratio and excess on the test rows."""
        table = self._best(np.array(sorted({*parts.fit, *parts.evidence})))
        return (1.0, 0.0) if table is None else self._test(table, parts)

    def certified(self, parts: Split, epsilon: float, delta: float) -> tuple[float, float] | None:
        """The same where the pair is proved on the evidence rows, else None."""
        table = self._best(np.array(parts.fit))
        if table is None:
            return None
        excess, _ = table.at(0.0, np.array(parts.evidence))
        return self._test(table, parts) if wealth_of(excess.tolist(), epsilon).proves(delta) else None

    def _best(self, rows: NDArray[np.int64]) -> Table | None:
        under = [(table.at(0.0, rows), table) for table in self._tables]
        fine = [(float(costs.mean()), table) for (excess, costs), table in under if excess.mean() <= 0]
        return min(fine, key=lambda each: each[0])[1] if fine else None

    def _test(self, table: Table, parts: Split) -> tuple[float, float]:
        test = np.array(parts.test)
        excess, costs = table.at(0.0, test)
        return float(costs.sum() / self._board.costs[test, 0].sum()), float(excess.mean())


def words(texts: list[str], losses: Floats, folds: NDArray[np.int64]) -> Curve:
    """TF-IDF of words and pairs, two logistic regressions as they come; `losses`: weak and strong."""
    counted = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2)).fit_transform(texts)
    weak, strong = (
        cross_val_predict(
            LogisticRegression(max_iter=400), counted, losses[:, at], cv=PredefinedSplit(folds), method="predict_proba"
        )[:, 1]
        for at in range(2)
    )
    return curve((weak - strong).tolist(), losses[:, 0].tolist(), losses[:, 1].tolist())
