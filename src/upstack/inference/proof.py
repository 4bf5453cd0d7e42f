"""How a task's plans come to be put to the proof, and how they stand: what a worker repeats over the ledger. Pure.

Plans are made of the fit rows alone and stand in one fixed order. Only then is evidence read, row after row in the
order of the requests, and again from the start whenever a row is known better. The furthest plan such that all before
it are proved may serve. Later rows watch it. Needs the extra `learn`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from upstack.core.types import Terms
from upstack.inference.backtest.board import Board, Floats
from upstack.inference.backtest.paths import Aim, propose
from upstack.inference.backtest.run import in_order
from upstack.inference.backtest.tables import Rows, Table, plain_table
from upstack.inference.certify import furthest, interval, wealth_of
from upstack.inference.drift import Watch
from upstack.inference.graders.judge import most_judged
from upstack.inference.strategies.policy import Policy

FEWEST = 20  # fit rows to choose plans by
_HORIZON = 400  # checks that plans are chosen for, where there are fewer


class Standing(msgspec.Struct, frozen=True):
    """What the evidence says of one plan."""

    policy: Policy
    checks: int
    excess: float  # mean
    low: float
    high: float
    cost_ratio: float  # to the reference's
    escalated: float  # share of the checks
    unjudged: tuple[int, ...]  # rows: disagreements without a label, each of which counts as a full loss
    proved: bool
    checks_left: int | None  # until it is, if it goes on so; None: not in sight


class Watched(msgspec.Struct, frozen=True):
    """How the plan in service has done since."""

    checks: int
    excess: float
    evidence: float  # that it has got worse; revoked at `alarm`
    alarm: float
    waiting: int  # checks that are not known yet

    @property
    def alarmed(self) -> bool:
        """Whether it is to be revoked."""
        return self.evidence >= self.alarm


def most_of(terms: Terms) -> float:
    """The largest excess that a check can have: a judge's word that is put right counts more than once."""
    return 1.0 if terms.judge is None else most_judged(terms.label_rate)


def plans_of(board: Board, fit: Sequence[int], cluster: Sequence[int], terms: Terms, delta: float) -> list[Policy]:
    """Choose plans and their order, by the fit rows alone; `cluster` of all rows of the board."""
    rows = np.array(fit)
    aim = Aim(terms.max_loss, delta, float(board.costs[rows, 0].mean()), max(_HORIZON, len(rows)), terms.labelled)
    choices = in_order(propose(board, rows, np.array(cluster), terms.strategy, aim))
    strategy = choices[0].prospect.strategy() if choices else None
    return [msgspec.convert({"strategy": strategy, "threshold": each.threshold}, Policy) for each in choices]


def standings(board: Board, policies: Sequence[Policy], terms: Terms, delta: float) -> list[Standing]:
    """Put plans to the proof with all rows of the board, which are evidence."""
    tables: dict[bytes, Table] = {}  # thresholds of one strategy share what it says of each row
    found = []
    for policy in policies:
        key = msgspec.msgpack.encode(policy.strategy)
        if key not in tables:
            tables[key] = plain_table(board, policy.strategy)
        found.append(_standing(board, policy, tables[key], terms, delta))
    return found


def best(standing: Sequence[Standing], aim: float = 1.0) -> int | None:
    """The place of the cheapest plan that may serve; None where none may, or none is cheaper than the reference.

    One whose mean excess is above `aim` does not.

    All up to the furthest are proved at once, so that the choice among them is free.
    """
    last = furthest([each.proved for each in standing])
    may = [at for at in range(0 if last is None else last + 1) if standing[at].excess <= aim]
    found = min(may, key=lambda at: standing[at].cost_ratio, default=None)
    return found if found is not None and standing[found].cost_ratio < 1.0 else None


def watch(board: Board, policy: Policy, terms: Terms, waits: Sequence[bool]) -> Watched:
    """Watch a plan by the rows since it was promoted, up to the first that `waits` for something.

    A disagreement counts once it is labelled, or will not be in time.
    """
    watching = Watch(terms.revoke_loss, -most_of(terms), most_of(terms))
    excess, _ = plain_table(board, policy.strategy).at(policy.threshold, _all(board))
    until = next((at for at, each in enumerate(waits) if each), len(waits))
    for each in excess[:until]:
        watching.add(float(each))
    mean = float(excess[:until].mean()) if until else 0.0
    return Watched(until, mean, watching.evidence, float(terms.false_alarm_checks), len(waits) - until)


def disagreements(board: Board, policy: Policy) -> list[int]:
    """Which rows a label would tell something of: the plan does not say what the reference does, and nobody judged."""
    return _unjudged(board, plain_table(board, policy.strategy).at(policy.threshold, _all(board))[0])


def _unjudged(board: Board, excess: Floats) -> list[int]:
    return [int(at) for at in np.flatnonzero((excess != 0) & ~board.labelled)]


def _all(board: Board) -> Rows:
    return np.arange(len(board.rows))


def _standing(board: Board, policy: Policy, table: Table, terms: Terms, delta: float) -> Standing:
    excess, costs = table.at(policy.threshold, _all(board))
    most = most_of(terms)
    wealth = wealth_of(excess.tolist(), terms.max_loss, most, -most)
    band = interval(excess.tolist(), terms.confidence, -most, most)
    reference = float(board.costs[:, 0].sum()) if board.rows else 0.0
    return Standing(
        policy=policy,
        checks=len(board.rows),
        excess=float(excess.mean()) if board.rows else 0.0,
        low=band.low,
        high=band.high,
        cost_ratio=float(costs.sum()) / reference if reference else 1.0,
        escalated=float((table.scores > policy.threshold).mean()) if board.rows else 0.0,
        unjudged=tuple(_unjudged(board, excess)),
        proved=wealth.proves(delta),
        checks_left=wealth.checks_left(delta),
    )
