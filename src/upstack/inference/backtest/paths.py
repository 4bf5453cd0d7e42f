"""Which paths are worth trying, by the rows to learn from alone: at most a few, with their thresholds in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import erfc, log, sqrt

import msgspec
import numpy as np
from numpy.typing import NDArray

from upstack.inference.backtest.again import AGAIN, may_pair
from upstack.inference.backtest.board import Board, Floats
from upstack.inference.backtest.tables import Learned, Rows, Table, plain_table, worths
from upstack.inference.learning.training import RECIPES, Trained, out_of_fold
from upstack.inference.strategies.base import Strategy
from upstack.inference.strategies.learned import Cascade, Precall
from upstack.inference.strategies.plain import Agree, Confidence, Single

_PAIRS = 60  # of the cheapest candidates that agreement is tried with
_UNSHRUNK = 20  # pairs that cannot say what is usual
_BEST_PAIRS = 8  # that a third is tried with
_THIRDS = 12
_LEARNED = 4  # candidates, and groups of them, that something is learned about
_FOLDS = 5
_FEWEST = 40  # rows to learn from
_GRID = np.linspace(0.05, 1.0, 39)  # shares of the rows to learn from that a threshold may serve
_STAKES = np.linspace(0.04, 0.98, 24)  # of the largest
_OFF = 0.0025  # how far off a score's expectation of an excess is, about
_STEP = 0.04  # share of what doing nothing costs, by which the next threshold has to be cheaper
_LEAST = 0.05  # chance of one that is worth trying
_START = 1.5  # what the bettors' wealth falls by before the right one is found, as a logarithm


class Option(msgspec.Struct, frozen=True):
    """A threshold under which a strategy may be put to the proof: what that costs, and how likely it passes."""

    threshold: float
    cost: float  # USD a request
    chance: float


class Prospect(msgspec.Struct, frozen=True):
    """A strategy with its arms: what the fit rows promise of it, and what it would do with all rows."""

    name: str
    arms: tuple[str, ...]
    fitted: Table  # with scores out of fold where there is something learned
    options: tuple[Option, ...]  # from the most to the least conservative
    doing_nothing: float  # USD a request
    plain: Strategy | None = None
    learned: Learned | None = None
    trained: Trained | None = None
    labels: bool = False  # people will say what is right, which the fit rows do not: all thresholds are worth trying

    def strategy(self) -> Strategy:
        """What is served, as trained on all fit rows."""
        if self.learned is not None and self.trained is not None:
            return self.learned.strategy(self.trained)
        assert self.plain is not None  # noqa: S101 - it is one or the other
        return self.plain

    def best(self) -> Option:
        """The threshold that promises to save most."""
        return max(self.options, key=lambda each: each.chance * (self.doing_nothing - each.cost))

    def path(self) -> list[Option]:
        """Those to be put to the proof one after the other: the cost falls step by step."""
        found: list[Option] = []
        for each in self.options:
            before = found[-1].cost if found else self.doing_nothing
            worth_it = self.labels or each.chance >= _LEAST
            if before - each.cost >= _STEP * self.doing_nothing and worth_it:
                found.append(each)
        return found

    def promise(self) -> float:
        """What that is expected to save, in USD a request."""
        path = self.path()
        costs = [self.doing_nothing, *(each.cost for each in path)]
        return sum(each.chance * (before - each.cost) for before, each in zip(costs, path, strict=False))

    def table(self) -> Table:
        """What it would do, as trained on all fit rows: nothing of it changes from here on."""
        if self.learned is None or self.trained is None:
            return self.fitted
        return self.learned.table(worths(*self.trained.gains(np.arange(len(self.learned.board.rows)))))


class Aim(msgspec.Struct, frozen=True):
    """What is to be proved, and with how much."""

    epsilon: float
    delta: float
    doing_nothing: float  # USD a request
    checks: int  # that there will be; 0: nothing is to be proved, the cheapest that seems no worse will do
    labels: bool = False  # people will say what is right of disagreements

    def chance(self, excess: Floats, shift: float | None = None) -> float:
        """How likely the evidence will prove a plan that did so on the fit rows, about.

        The best bettor's logarithm has to grow so much a check, on average; what the fit rows say of that is as
        uncertain as they are few. `shift` is what is known besides of how far off their mean is; without it, one full
        loss more tempers the hope. Where nothing will be proved the hope is tempered by a standard error: the best of
        many that were tried looks better than it is.
        """
        if not self.checks:
            doubt = max(float(excess.std()), 1e-9) / sqrt(len(excess))
            return 0.5 * erfc((float(excess.mean()) + (shift or 0.0)) / (doubt * sqrt(2)))
        if shift is None:
            excess, shift = np.append(excess, 1.0), 0.0
        stakes = _STAKES / (1.0 - self.epsilon)
        gains = np.log1p(np.outer(stakes, self.epsilon - excess))
        means = gains.mean(axis=1) - stakes * shift
        at = int(means.argmax())
        best = gains[at]
        lacking = (log(1 / self.delta) + _START) / self.checks - float(means[at])
        return 0.5 * erfc(lacking / float(max(best.std(), 1e-9) * sqrt(2 / len(best) + 2 / self.checks)))


def propose(board: Board, fit: Rows, cluster: NDArray[np.int64], wanted: str, aim: Aim) -> list[Prospect]:
    """Try strategies on the fit rows; the most promising first. `cluster` of all rows: none is in two folds."""

    def plain(each: Strategy) -> Prospect:
        return _plain(each, plain_table(board, each), fit, aim)

    found = [plain(Single(route)) for route in board.routes[1:] if not route.endswith(AGAIN)]
    if wanted in ("auto", "agree"):
        found += _agreeing(board, fit, aim)
    if wanted in ("auto", "cascade", "confidence"):
        found += [plain(each) for each in _confident(board, fit)]
    if wanted in ("auto", "cascade", "precall"):
        found += _learning(board, fit, cluster, wanted, aim, found)
    if wanted not in ("auto", "single"):
        found = [each for each in found if each.name != "single"]
    return sorted(found, key=lambda each: -each.promise())


def _plain(strategy: Strategy, table: Table, fit: Rows, aim: Aim, shifts: Sequence[float | None] = ()) -> Prospect:
    thresholds = sorted(set(table.scores[fit].tolist()))
    return Prospect(
        type(strategy).__name__.lower(),
        strategy.arms,
        table,
        _options(table, thresholds, fit, aim, shifts),
        aim.doing_nothing,
        strategy,
        labels=aim.labels,
    )


def _options(
    table: Table, thresholds: Sequence[float], fit: Rows, aim: Aim, shifts: Sequence[float | None] = ()
) -> tuple[Option, ...]:
    """Say what is to be expected of each threshold; one that serves less of the same is no less likely to pass."""
    chances, costs = [], []
    for at, threshold in enumerate(thresholds):
        excess, paid = table.at(threshold, fit)
        chances.append(aim.chance(excess, shifts[at] if shifts else None))
        costs.append(float(paid.mean()))
    nested = np.maximum.accumulate(chances[::-1])[::-1].tolist()
    return tuple(map(Option, thresholds, costs, nested))


def _agreeing(board: Board, fit: Rows, aim: Aim) -> list[Prospect]:
    """Pairs of the cheapest candidates, then a third beside the best of them."""
    losses, costs = board.losses[fit].mean(axis=0), board.costs[fit].mean(axis=0)
    usable = [at for at in range(1, len(board.routes)) if board.has_content[board.routes[at]] and costs[at] < costs[0]]
    pairs = [pair for pair in combinations(usable, 2) if may_pair(*(board.routes[at] for at in pair))]
    pairs = sorted(pairs, key=lambda pair: costs[list(pair)].sum())
    pairs = [pair for pair in pairs if costs[list(pair)].sum() < costs[0]][:_PAIRS]

    def tables(groups: Sequence[Sequence[int]]) -> list[tuple[Agree, Table]]:
        ordered = [(*sorted(group[:2], key=lambda at: losses[at]), *group[2:]) for group in groups]
        agrees = [Agree(tuple(board.routes[at] for at in group)) for group in ordered]
        return [(each, plain_table(board, each)) for each in agrees]

    def prospects(agreeing: list[tuple[Agree, Table]], known: list[list[float | None]]) -> list[Prospect]:
        return [_plain(each, table, fit, aim, shifts) for (each, table), shifts in zip(agreeing, known, strict=True)]

    two = tables(pairs)
    shifts = _shrunk(board, fit, two, 0.0)
    found = prospects(two, [[shift] * 3 for shift in shifts])
    best = sorted(zip(found, pairs, shifts, strict=True), key=lambda each: -each[0].promise())[:_BEST_PAIRS]
    thirds = [
        (pair, shift, third)
        for _, pair, shift in best
        for third in sorted(set(usable) - set(pair), key=lambda at: costs[at])[:_THIRDS]
        if not board.routes[third].endswith(AGAIN)
    ]
    three = tables([(*pair, third) for pair, _, third in thirds])
    more = _shrunk(board, fit, three, 1.0)
    pairs_alone = [shift for _, shift, _ in thirds]
    return found + prospects(three, [[one, other, other] for one, other in zip(pairs_alone, more, strict=True)])


def _shrunk(board: Board, fit: Rows, agreeing: Sequence[tuple[Agree, Table]], threshold: float) -> list[float | None]:
    """How much to move the excess of each pair: what few rows say of one is mostly chance.

    It goes towards what pairs with arms as good as these, which agree as often, have on average: Efron and Morris, Data
    analysis using Stein's estimator and its generalizations, JASA 70 (1975).
    """
    if len(agreeing) <= _UNSHRUNK:
        return [None] * len(agreeing)
    excess = np.array([table.at(threshold, fit)[0] for _, table in agreeing])
    seen, noise = excess.mean(axis=1), float((excess.var(axis=1) / len(fit)).mean())
    losses = board.losses[fit].mean(axis=0)
    arms = np.array([sorted(losses[board.column[arm]] for arm in each.arms) for each, _ in agreeing])
    agree = np.array([(table.scores[fit] <= threshold).mean() for _, table in agreeing])
    known = np.column_stack([np.ones(len(agreeing)), arms, agree, agree[:, None] * arms, agree**2])
    usual = known @ np.linalg.lstsq(known, seen, rcond=None)[0]
    left = max(0.0, float((seen - usual).var()) - noise)
    moved: list[float | None] = ((usual - seen) * noise / max(noise + left, 1e-12)).tolist()
    return moved


def _confident(board: Board, fit: Rows) -> Iterator[Confidence]:
    for route in board.routes[1:]:
        if any(board.answers[at][route].logprobs for at in fit):
            yield Confidence(route)


def _learning(
    board: Board, fit: Rows, cluster: NDArray[np.int64], wanted: str, aim: Aim, plain: Sequence[Prospect]
) -> Iterator[Prospect]:
    """Scores before the call, and after the answers of one to three routes."""
    if len(fit) < _FEWEST:
        return
    losses, costs = board.losses[fit].mean(axis=0), board.costs[fit].mean(axis=0)
    folds = np.array([place % _FOLDS for place in cluster])
    once = [at for at, route in enumerate(board.routes) if at and not route.endswith(AGAIN)]
    ranked = sorted(once, key=lambda at: losses[at] + costs[at] / max(costs[0], 1e-12))
    best = [board.routes[at] for at in ranked[:_LEARNED] if costs[at] < costs[0]]
    kinds: list[tuple[type[Cascade | Precall], tuple[str, ...]]] = []
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
    agreeing = sorted((each for each in plain if each.name == "agree"), key=lambda each: -each.promise())
    found: list[tuple[str, ...]] = []
    for size, most in ((2, _LEARNED), (3, _LEARNED // 2)):
        found += [each.arms for each in agreeing if len(each.arms) == size][:most]
    return found


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
    shifts = [_expected(table, each, fit, scored[best][0]) for each in thresholds]
    options = _options(table, thresholds, fit, aim, shifts)
    trained = Trained(designs[best], learned.targets)
    return Prospect(name, learned.arms, table, options, aim.doing_nothing, None, learned, trained)


def _expected(table: Table, threshold: float, fit: Rows, gains: Floats) -> float:
    """How much to move the excess of what is served: few rows say less of it than the gains that the score foretold.

    Both are weighed by how far off they are: the rows by their standard error, the score by what is usual.
    """
    excess, _ = table.at(threshold, fit)
    foretold = np.where(table.scores[fit] <= threshold, gains, 0.0)
    noise = float(excess.var()) / len(fit)
    return float(foretold.mean() - excess.mean()) * noise / (noise + _OFF**2)
