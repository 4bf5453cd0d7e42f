"""Which paths are worth trying, by the rows to learn from alone: at most a few, with their thresholds in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import erfc, log, sqrt

import msgspec
import numpy as np
from numpy.typing import NDArray

from upstack.inference.backtest.board import Board, Floats
from upstack.inference.backtest.tables import Learned, Rows, Table, plain_table, worths
from upstack.inference.learning.training import RECIPES, Trained, out_of_fold
from upstack.inference.strategies.base import Strategy
from upstack.inference.strategies.learned import Cascade, Precall
from upstack.inference.strategies.plain import Agree, Confidence, Single

STRATEGIES = ("auto", "single", "agree", "cascade", "precall")
_PAIRS = 60  # of the cheapest candidates that agreement is tried with
_BEST_PAIRS = 8  # that a third is tried with
_THIRDS = 12
_LEARNED = 4  # candidates, and groups of them, that something is learned about
_FOLDS = 5
_FEWEST = 40  # rows to learn from
_POINTS = 12  # thresholds of a path
_GRID = np.linspace(0.05, 1.0, 39)  # shares of the rows to learn from that a threshold may serve
_STAKES = np.linspace(0.04, 0.98, 24)  # of the largest
_HOPE = 0.2  # of the best threshold's chance, below which the path ends
_START = 1.5  # what the bettors' wealth falls by before the right one is found, as a logarithm


class Path(msgspec.Struct, frozen=True):
    """A strategy with its thresholds from the most to the least conservative, as they were fixed on the fit rows."""

    name: str
    arms: tuple[str, ...]
    table: Table
    thresholds: tuple[float, ...]
    learned: Learned | None = None
    trained: Trained | None = None
    plain: Strategy | None = None

    def strategy(self) -> Strategy:
        """Make what is served."""
        if self.plain is not None:
            return self.plain
        assert self.learned is not None
        assert self.trained is not None
        return self.learned.strategy(self.trained)


class Prospect(msgspec.Struct, frozen=True):
    """A path before its last training: what the fit rows promise of it."""

    path: Path
    fitted: Table  # with scores out of fold where there is something learned
    thresholds: tuple[float, ...]
    expected: float  # USD a request, what is not likely to pass at the reference's cost
    chance: float  # that its first threshold passes


class Aim(msgspec.Struct, frozen=True):
    """What is to be proved, and with how much."""

    epsilon: float
    delta: float
    checks: int  # that there will be; 0: nothing is to be proved, the cheapest that seems no worse will do

    def chance(self, excess: Floats) -> float:
        """How likely the evidence will prove a plan that did so on the fit rows, about.

        The best bettor's logarithm has to grow so much a check, on average; what the fit rows say of that is as uncertain
        as they are few. One full loss more tempers it.
        """
        if not self.checks:
            return float(np.append(excess, 1.0).mean() <= 0.0)
        bets = np.outer(_STAKES / (1.0 - self.epsilon), self.epsilon - np.append(excess, 1.0))
        gains = np.log1p(bets)
        best = gains[gains.mean(axis=1).argmax()]
        lacking = (log(1 / self.delta) + _START) / self.checks - float(best.mean())
        return 0.5 * erfc(lacking / float(best.std() * sqrt(2 / len(best) + 2 / self.checks)))


def propose(board: Board, fit: Rows, cluster: NDArray[np.int64], wanted: str, aim: Aim) -> list[Prospect]:
    """Try strategies on the fit rows; the most promising first. `cluster` of all rows: none is in two folds."""
    found = [_prospect("single", Single(route), board, fit, aim) for route in board.routes[1:]]
    if wanted in ("auto", "agree"):
        found += _agreeing(board, fit, aim)
    if wanted in ("auto", "cascade"):
        found += [_prospect("confidence", each, board, fit, aim) for each in _confident(board, fit)]
    if wanted in ("auto", "cascade", "precall"):
        found += _learning(board, fit, cluster, wanted, aim, found)
    if wanted not in ("auto", "single"):
        found = [each for each in found if each.path.name != "single"]
    return sorted(found, key=lambda each: each.expected)


def finish(prospect: Prospect, fit: Rows) -> Path:
    """Train what is learned on all fit rows, and fix the thresholds: nothing of the path changes from here on."""
    path = prospect.path
    if path.learned is None:
        return msgspec.structs.replace(path, thresholds=prospect.thresholds)
    assert path.trained is not None
    rows = np.arange(len(path.learned.board.rows))
    scores = worths(*path.trained.gains(rows))
    return msgspec.structs.replace(path, thresholds=prospect.thresholds, table=path.learned.table(scores))


def _prospect(name: str, strategy: Strategy, board: Board, fit: Rows, aim: Aim) -> Prospect:
    table = plain_table(board, strategy)
    return _judged(Path(name, strategy.arms, table, (), plain=strategy), table, sorted(set(table.scores[fit].tolist())), fit, aim, board.costs[fit, 0].mean())


def _judged(
    path: Path, table: Table, thresholds: Sequence[float], fit: Rows, aim: Aim, doing_nothing: float
) -> Prospect:
    """Begin the path at the threshold that is likeliest to pass, and end it where there is little hope."""
    under = [table.at(threshold, fit) for threshold in thresholds]
    chances = [aim.chance(excess) for excess, _ in under]
    if not aim.checks:
        fine = [at for at in range(len(chances)) if chances[at]] or [0]
        best = min(fine, key=lambda at: under[at][1].mean())
        expected = float(under[best][1].mean()) if chances[best] else doing_nothing
        return Prospect(path, table, (thresholds[best],), expected, chances[best])
    start = max(range(len(chances)), key=lambda at: chances[at])
    hopeful = [at for at in range(start, len(chances)) if chances[at] > _HOPE * chances[start]] or [start]
    picked = np.unique(np.linspace(start, hopeful[-1], min(_POINTS, hopeful[-1] - start + 1)).round().astype(int))
    passing = np.minimum.accumulate([chances[at] for at in picked])
    costs = [float(under[at][1].mean()) for at in picked]
    stops = passing - np.append(passing[1:], 0.0)  # how likely each is the furthest that passes
    expected = float(stops @ costs) + (1.0 - float(passing[0])) * doing_nothing
    return Prospect(path, table, tuple(thresholds[at] for at in picked), expected, chances[start])


def _agreeing(board: Board, fit: Rows, aim: Aim) -> list[Prospect]:
    """Pairs of the cheapest candidates, then a third beside the best of them."""
    losses, costs = board.losses[fit].mean(axis=0), board.costs[fit].mean(axis=0)
    usable = [at for at in range(1, len(board.routes)) if board.has_content[board.routes[at]] and costs[at] < costs[0]]
    pairs = sorted(combinations(usable, 2), key=lambda pair: costs[list(pair)].sum())
    pairs = [pair for pair in pairs if costs[list(pair)].sum() < costs[0]][:_PAIRS]

    def tried(columns: Sequence[int]) -> Prospect:
        first, second = sorted(columns[:2], key=lambda at: losses[at])
        arms = tuple(board.routes[at] for at in (first, second, *columns[2:]))
        return _prospect("agree", Agree(arms), board, fit, aim)

    two = sorted(((tried(pair), pair) for pair in pairs), key=lambda each: each[0].expected)
    three = [
        tried((*pair, third))
        for _, pair in two[:_BEST_PAIRS]
        for third in sorted(set(usable) - set(pair), key=lambda at: costs[at])[:_THIRDS]
    ]
    return [each for each, _ in two] + three


def _confident(board: Board, fit: Rows) -> Iterator[Confidence]:
    for route in board.routes[1:]:
        if any(board.answers[at][route].logprobs for at in fit):
            yield Confidence(route, "logprobs")


def _learning(
    board: Board, fit: Rows, cluster: NDArray[np.int64], wanted: str, aim: Aim, plain: Sequence[Prospect]
) -> Iterator[Prospect]:
    """Scores before the call, and after the answers of one to three routes."""
    if len(fit) < _FEWEST:
        return
    losses, costs = board.losses[fit].mean(axis=0), board.costs[fit].mean(axis=0)
    folds = np.array([place % _FOLDS for place in cluster])
    ranked = sorted(range(1, len(board.routes)), key=lambda at: losses[at] + costs[at] / max(costs[0], 1e-12))
    best = [board.routes[at] for at in ranked[:_LEARNED] if costs[at] < costs[0]]
    kinds: list[tuple[type[Cascade] | type[Precall], tuple[str, ...]]] = []
    if wanted in ("auto", "precall"):
        kinds += [(Precall, (route,)) for route in best]
    if wanted in ("auto", "cascade"):
        kinds += [(Cascade, (route,)) for route in best if board.has_content[route]]
        agreeing = plain if wanted == "auto" else _agreeing(board, fit, aim)
        kinds += [(Cascade, arms) for arms in _groups(agreeing)]
    for kind, arms in kinds:
        learned = Learned(board, kind, arms)
        yield _learned_prospect(learned, fit, folds, aim)


def _groups(plain: Sequence[Prospect]) -> list[tuple[str, ...]]:
    """Pairs and threes of routes that agree best."""
    agreeing = sorted((each for each in plain if each.path.name == "agree"), key=lambda each: each.expected)
    two = [each.path.arms for each in agreeing if len(each.path.arms) == 2][:_LEARNED]  # noqa: PLR2004 - a pair
    three = [each.path.arms for each in agreeing if len(each.path.arms) == 3][: _LEARNED // 2]  # noqa: PLR2004
    return two + three


def _learned_prospect(learned: Learned, fit: Rows, folds: NDArray[np.int64], aim: Aim) -> Prospect:
    """Take the recipe that foretells best out of fold."""
    designs = [learned.design(fit, recipe) for recipe in RECIPES]
    scored = [out_of_fold(design, folds, learned.targets) for design in designs]
    truth = learned.targets[fit, 0] - learned.targets[fit, 1]
    best = min(range(len(designs)), key=lambda at: float(((truth - scored[at][0]) ** 2).mean()))
    scores = np.zeros(len(folds))
    scores[fit] = worths(*scored[best])
    table = learned.table(scores)
    thresholds = sorted({float(np.quantile(scores[fit], share)) for share in _GRID})
    name = "precall" if learned.kind is Precall else "cascade"
    path = Path(name, learned.arms, table, (), learned, Trained(designs[best], learned.targets))
    return _judged(path, table, thresholds, fit, aim, learned.board.costs[fit, 0].mean())
