"""How well a learned score tells which requests need the reference: the RouteLLM paper's figures, out of fold."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from upstack.core.errors import EvidenceError
from upstack.inference.backtest.again import AGAIN
from upstack.inference.backtest.board import Board
from upstack.inference.backtest.tables import Learned
from upstack.inference.curve import curve
from upstack.inference.learning.training import RECIPES, out_of_fold
from upstack.inference.strategies.learned import Cascade, Precall


class Ranking(msgspec.Struct, frozen=True):
    """One candidate's; calls to the reference in percent."""

    candidate: str
    strategy: str  # "precall": before the call; "cascade": after the candidate's answer
    cpt50: float  # that recover half of the gap in quality
    cpt80: float
    apgr: float  # average gap recovered over all shares of calls, 0 to 1; chance gives 0.5


def ranking(board: Board, strategy: str, folds: NDArray[np.int64]) -> list[Ranking]:
    """Rank by each candidate's score: before the call, after its answer where there is one ("auto": both).

    No row is scored by what its own fold taught. A candidate no worse than the reference has no curve:
    there is no gap.
    """
    kinds = [kind for kind in (Precall, Cascade) if strategy in ("auto", kind.__name__.lower())]
    rows = np.arange(len(board.rows))
    found: list[Ranking] = []
    for route in (each for each in board.routes[1:] if not each.endswith(AGAIN)):
        for kind in kinds:
            if kind is Cascade and not board.has_content[route]:
                continue
            learned = Learned(board, kind, (route,))
            scored = [out_of_fold(learned.design(rows, recipe), folds, learned.targets)[0] for recipe in RECIPES]
            weak, strong = learned.targets[:, 0], learned.targets[:, 1]
            gains = min(scored, key=lambda each: float(((weak - strong - each) ** 2).mean()))
            try:
                drawn = curve(gains.tolist(), weak.tolist(), strong.tolist())
            except EvidenceError:
                continue
            found.append(Ranking(route, kind.__name__.lower(), 100 * drawn.cpt(0.5), 100 * drawn.cpt(0.8), drawn.apgr))
    return found
