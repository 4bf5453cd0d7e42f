"""A backtest of one task: learn and propose, prove, and see what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from upstack.core.errors import EvidenceError
from upstack.inference.backtest.board import Board, Floats
from upstack.inference.backtest.paths import Aim, Path, Prospect, finish, propose
from upstack.inference.backtest.split import Split, split
from upstack.inference.backtest.tables import Rows
from upstack.inference.backtest.verdict import Policy, Side, Tried, Verdict
from upstack.inference.certify import Wealth, furthest, interval, share_of, wealth_of

_PATHS = 1  # that share the error probability
_SHOWN = 12  # plans that were not chosen
_FEWEST = 20  # rows of each part


class Wanted(msgspec.Struct, frozen=True):
    """What is asked of a backtest."""

    strategy: str = "auto"
    max_loss: float = 0.02  # epsilon: tolerated excess loss
    confidence: float = 0.95  # 1 - delta
    calibrate: float = 0.5  # share of the rows that are learned from or are evidence
    seed: int = 0
    certified: bool = True


class Choice(msgspec.Struct, frozen=True):
    """A plan that serves."""

    path: Path
    threshold: float


class Outcome(msgspec.Struct, frozen=True):
    """What came of it, row by row of the test: what sums over tasks are made of."""

    verdict: Verdict
    excess: Floats
    asked_usd: float  # with calibration
    all_usd: float  # of the reference on all rows
    choice: Choice | None


def backtest(board: Board, wanted: Wanted) -> Outcome:
    """Run it. EvidenceError where there are too few rows for any part."""
    parts = split([*board.rows], wanted.calibrate, wanted.seed)
    short = min(len(parts.fit), len(parts.evidence), len(parts.test))
    if short < _FEWEST:
        raise EvidenceError(
            f"Too few rows: {len(parts.fit)} to learn from, {len(parts.evidence)} as evidence and {len(parts.test)} to test"
            f" on; each part needs {_FEWEST}"
        )
    if wanted.certified:
        aim = Aim(wanted.max_loss, share_of(1.0 - wanted.confidence, 1, _PATHS), len(parts.evidence))
        fit = np.array(parts.fit)
    else:
        aim = Aim(wanted.max_loss, 1.0 - wanted.confidence, 0)
        fit = np.array(sorted({*parts.fit, *parts.evidence}))
    prospects = propose(board, fit, np.array(parts.cluster), wanted.strategy, aim)
    paths = [finish(each, fit) for each in prospects[:_PATHS]]
    if wanted.certified:
        choice, proofs = _proved(board, paths, np.array(parts.evidence), wanted, aim)
    else:
        likely = prospects[0].chance > 0
        choice, proofs = (Choice(paths[0], paths[0].thresholds[0]) if likely else None), []
    tried = [*proofs, *_promised(board, prospects, fit, wanted)]
    return _outcome(board, wanted, parts, choice, paths, tried)


def nothing(wanted: Wanted, why: str, reference: str) -> Verdict:
    """Say that nothing was done, and why."""
    return Verdict(
        reference=Side(0.0, None),
        policy=Policy("reference", 0.0, None, (reference,)),
        cost_ratio=1.0,
        cost_ratio_all_in=1.0,
        excess_loss=0.0,
        excess_loss_interval=(-1.0, 1.0),
        certified=False,
        n_fit=0,
        n_evidence=0,
        n_test=0,
        measured_share=0.0,
        seed=wanted.seed,
        why=why,
    )


def _proved(
    board: Board, paths: Sequence[Path], evidence: Rows, wanted: Wanted, aim: Aim
) -> tuple[Choice | None, list[Tried]]:
    """Bet on each threshold of each path; the cheapest of the furthest that are proved serves."""
    found: list[tuple[float, Choice]] = []
    tried: list[Tried] = []
    doing_nothing = board.costs[evidence, 0].mean()
    for path in paths:
        proved = []
        for threshold in path.thresholds:
            excess, costs = path.table.at(threshold, evidence)
            wealth = wealth_of(excess.tolist(), aim.epsilon)
            proved.append(wealth.proves(aim.delta))
            tried.append(_tried(board, path, threshold, excess, costs.mean() / doing_nothing, wanted, wealth, aim.delta))
        last = furthest(proved)
        if last is not None:
            threshold = path.thresholds[last]
            found.append((float(path.table.at(threshold, evidence)[1].mean()), Choice(path, threshold)))
    cheapest = min(found, key=lambda each: each[0], default=None)
    if cheapest is None or cheapest[0] >= doing_nothing:
        return None, tried
    return cheapest[1], tried


def _promised(board: Board, prospects: Sequence[Prospect], fit: Rows, wanted: Wanted) -> Iterator[Tried]:
    doing_nothing = board.costs[fit, 0].mean()
    for prospect in prospects[:_SHOWN]:
        threshold = prospect.thresholds[-1]
        excess, costs = prospect.fitted.at(threshold, fit)
        yield _tried(board, prospect.path, threshold, excess, costs.mean() / doing_nothing, wanted)


def _tried(
    board: Board,
    path: Path,
    threshold: float,
    excess: Floats,
    ratio: float,
    wanted: Wanted,
    wealth: Wealth | None = None,
    delta: float = 0.0,
) -> Tried:
    band = interval(excess.tolist(), wanted.confidence)
    return Tried(
        path.name,
        (*path.arms, board.routes[0]),
        threshold,
        float(ratio),
        float(excess.mean()),
        band.low,
        band.high,
        "fit" if wealth is None else "evidence",
        wealth is not None and wealth.proves(delta),
        None if wealth is None else wealth.checks_left(delta),
    )


def _outcome(
    board: Board, wanted: Wanted, parts: Split, choice: Choice | None, paths: Sequence[Path], tried: list[Tried]
) -> Outcome:
    """See what came of it on the test rows, and what all of it cost."""
    test = np.array(parts.test)
    reference = board.costs[test, 0]
    if choice is None:
        excess, costs = np.zeros(len(test)), reference
        policy = Policy("reference", 0.0, None, (board.routes[0],))
    else:
        table = choice.path.table
        excess, costs = table.at(choice.threshold, test)
        routes = (*choice.path.arms, board.routes[0])
        escalated = float((table.scores[test] > choice.threshold).mean())
        policy = Policy(choice.path.name, 0.0, None, routes, choice.threshold, escalated)
    calibration = _calibration(board, parts, paths if wanted.certified else [], certified=wanted.certified)
    asked = calibration + float(costs.sum())
    everything = float(board.costs[:, 0].sum())
    labelled = bool(board.labelled.any())
    loss = float(board.losses[test, 0].mean())
    band = interval(excess.tolist(), wanted.confidence)
    certified = choice is not None and wanted.certified
    return Outcome(
        Verdict(
            reference=Side(float(reference.sum()), loss if labelled else None),
            policy=msgspec.structs.replace(
                policy, cost_usd=float(costs.sum()), loss=loss + float(excess.mean()) if labelled else None
            ),
            cost_ratio=float(costs.sum() / reference.sum()) if reference.sum() else 1.0,
            cost_ratio_all_in=asked / everything if everything else 1.0,
            excess_loss=float(excess.mean()),
            excess_loss_interval=(band.low, band.high),
            certified=certified,
            n_fit=len(parts.fit) if wanted.certified else len(parts.fit) + len(parts.evidence),
            n_evidence=len(parts.evidence) if wanted.certified else 0,
            n_test=len(test),
            measured_share=1.0,
            seed=wanted.seed,
            labelled_share=float(board.labelled.mean()),
            tried=tuple(tried),
        ),
        excess,
        asked,
        everything,
        choice,
    )


def _calibration(board: Board, parts: Split, paths: Sequence[Path], *, certified: bool) -> float:
    """What calibration cost: the reference served, and beside it all candidates were asked, or those under test."""
    calibration = [at for at in range(len(board.rows)) if at not in set(parts.test)]
    total = float(board.costs[calibration, 0].sum() + board.costs[parts.fit, 1:].sum())
    arms = {arm for path in paths for arm in path.arms} if certified else set(board.routes[1:])
    columns = sorted(board.column[arm] for arm in arms)
    return total + float(board.costs[np.ix_(parts.evidence, columns)].sum())
