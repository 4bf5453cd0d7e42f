"""A backtest of one task: learn and propose, prove, and see what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from upstack.core.errors import EvidenceError
from upstack.inference.backtest.board import Board, Floats
from upstack.inference.backtest.paths import Aim, Prospect, propose
from upstack.inference.backtest.split import Split
from upstack.inference.backtest.tables import Rows, Table
from upstack.inference.backtest.verdict import Policy, Side, Tried, Verdict
from upstack.inference.backtest.wanted import Wanted
from upstack.inference.certify import Interval, Wealth, furthest, interval, wealth_of

_SHOWN = 12  # plans that were not chosen
_FEWEST = 20  # rows of each part
_LIKELY = 0.5  # chance of being no worse, with which a plan is taken where nothing is to be proved


class Choice(msgspec.Struct, frozen=True):
    """A plan, and what it does with each row."""

    prospect: Prospect
    threshold: float
    chance: float
    table: Table


class Outcome(msgspec.Struct, frozen=True):
    """What came of it, row by row of the test: what sums over tasks are made of."""

    verdict: Verdict
    excess: Floats
    asked_usd: float  # with calibration
    all_usd: float  # of the reference on all rows


def backtest(board: Board, wanted: Wanted, parts: Split) -> Outcome:
    """Run it. EvidenceError where there are too few rows for any part."""
    short = min(len(parts.fit), len(parts.evidence), len(parts.test))
    if short < _FEWEST:
        raise EvidenceError(
            f"Too few rows: {len(parts.fit)} to learn from, {len(parts.evidence)} as evidence and {len(parts.test)} to"
            f" test on; each part needs {_FEWEST}"
        )
    known = parts.fit if wanted.certified else sorted({*parts.fit, *parts.evidence})
    fit = np.array(known)
    # A backtest is one attempt, which no other one will follow: it may use all of the error probability.
    aim = Aim(
        wanted.max_loss,
        1.0 - wanted.confidence,
        float(board.costs[fit, 0].mean()),
        len(parts.evidence) if wanted.certified else 0,
    )
    prospects = propose(board, fit, np.array(parts.cluster), wanted.strategy, aim)
    tries = in_order(prospects)
    if wanted.certified:
        choice, proofs = _proved(board, tries, np.array(parts.evidence), wanted, aim)
    else:
        likely = [each for each in tries if each.chance >= _LIKELY]
        choice, proofs = (likely[-1] if likely else None), []
    return _outcome(board, wanted, parts, choice, tries, [*proofs, *_promised(board, prospects, fit, wanted)])


def in_order(prospects: Sequence[Prospect]) -> list[Choice]:
    """Which plans are put to the proof, each only if all before it passed: those of the most promising strategy.

    So tested, any number of plans may share one error probability without a correction: to promote one that is not good
    enough, the first such one has to pass. Maurer, Hothorn and Lehmacher, Multiple comparisons in drug clinical trials
    and preclinical assays: a-priori ordered hypotheses, 1995.
    """
    if not prospects:
        return []
    table = prospects[0].table()
    return [Choice(prospects[0], each.threshold, each.chance, table) for each in prospects[0].path()]


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
    board: Board, tries: Sequence[Choice], evidence: Rows, wanted: Wanted, aim: Aim
) -> tuple[Choice | None, list[Tried]]:
    """Bet on each plan; the furthest in the order such that all before it are proved serves."""
    proved = []
    tried: list[Tried] = []
    doing_nothing = board.costs[evidence, 0].mean()
    for each in tries:
        excess, costs = each.table.at(each.threshold, evidence)
        wealth = wealth_of(excess.tolist(), aim.epsilon)
        proved.append(wealth.proves(aim.delta))
        tried.append(_tried(board, each, (excess, costs / (doing_nothing or 1.0)), wanted, wealth, aim.delta))
    last = furthest(proved)
    return None if last is None else tries[last], tried


def _promised(board: Board, prospects: Sequence[Prospect], fit: Rows, wanted: Wanted) -> Iterator[Tried]:
    doing_nothing = board.costs[fit, 0].mean()
    for prospect in prospects[:_SHOWN]:
        best = prospect.best()
        excess, costs = prospect.fitted.at(best.threshold, fit)
        yield _tried(
            board,
            Choice(prospect, best.threshold, best.chance, prospect.fitted),
            (excess, costs / (doing_nothing or 1.0)),
            wanted,
        )


def _tried(
    board: Board,
    each: Choice,
    rows: tuple[Floats, Floats],
    wanted: Wanted,
    wealth: Wealth | None = None,
    delta: float = 0.0,
) -> Tried:
    excess, ratios = rows
    band = interval(excess.tolist(), wanted.confidence)
    return Tried(
        each.prospect.name,
        (*each.prospect.arms, board.routes[0]),
        each.threshold,
        float(ratios.mean()),
        float(excess.mean()),
        band.low,
        band.high,
        "fit" if wealth is None else "evidence",
        wealth is not None and wealth.proves(delta),
        None if wealth is None else wealth.checks_left(delta),
    )


def _outcome(
    board: Board, wanted: Wanted, parts: Split, choice: Choice | None, tries: Sequence[Choice], tried: list[Tried]
) -> Outcome:
    """See what came of it on the test rows, and what all of it cost."""
    test = np.array(parts.test)
    reference = board.costs[test, 0]
    if choice is None:
        excess, costs = np.zeros(len(test)), reference
        policy = Policy("reference", 0.0, None, (board.routes[0],))
    else:
        table = choice.table
        excess, costs = table.at(choice.threshold, test)
        routes = (*choice.prospect.arms, board.routes[0])
        escalated = float((table.scores[test] > choice.threshold).mean())
        policy = Policy(choice.prospect.name, 0.0, None, routes, choice.threshold, escalated)
    calibration = _calibration(board, parts, tries, certified=wanted.certified)
    asked = calibration + float(costs.sum())
    everything = float(board.costs[:, 0].sum())
    known = board.labelled[test]
    loss = float(board.losses[test[known], 0].mean()) if known.any() else None
    served = None if loss is None else loss + float(excess[known].mean())
    band = Interval(0.0, 0.0) if choice is None else interval(excess.tolist(), wanted.confidence)
    certified = choice is not None and wanted.certified
    return Outcome(
        Verdict(
            reference=Side(float(reference.sum()), loss),
            policy=replace(policy, cost_usd=float(costs.sum()), loss=served),
            cost_ratio=float(costs.sum() / reference.sum()) if reference.sum() else 1.0,
            cost_ratio_all_in=asked / everything if everything else 1.0,
            excess_loss=float(excess.mean()),
            excess_loss_interval=(band.low, band.high),
            certified=certified,
            n_fit=len(parts.fit) if wanted.certified else len(parts.fit) + len(parts.evidence),
            n_evidence=len(parts.evidence) if wanted.certified else 0,
            n_test=len(test),
            measured_share=float(known.mean()),
            seed=wanted.seed,
            labelled_share=float(board.labelled.mean()),
            tried=tuple(tried),
        ),
        excess,
        asked,
        everything,
    )


def _calibration(board: Board, parts: Split, tries: Sequence[Choice], *, certified: bool) -> float:
    """What calibration cost: the reference served, and beside it all candidates were asked, or those under test."""
    tested = set(parts.test)
    calibration = [at for at in range(len(board.rows)) if at not in tested]
    total = float(board.costs[calibration, 0].sum() + board.costs[parts.fit, 1:].sum())
    arms = {arm for each in tries for arm in each.prospect.arms} if certified else set(board.routes[1:])
    columns = sorted(board.column[arm] for arm in arms)
    return total + float(board.costs[np.ix_(parts.evidence, columns)].sum())
