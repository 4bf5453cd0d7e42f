"""From a file of recorded traffic to what a policy would have cost and lost: each task by itself, and their sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from upstack.application.data.recorded import prices_beside, prices_of
from upstack.core.config import PriceConfig
from upstack.core.errors import ConfigError, EvidenceError
from upstack.core.store.checks import read_checks, requests_since
from upstack.core.traffic import RecordedAnswer, TrafficRow, read_traffic
from upstack.core.types import Price, Terms, Usage
from upstack.foundation.prices import load_prices_toml
from upstack.inference.backtest.again import AGAIN, asked_again
from upstack.inference.backtest.verdict import Assumed
from upstack.inference.backtest.wanted import Wanted
from upstack.inference.cost import cost
from upstack.inference.graders.base import Grader
from upstack.inference.graders.making import guess_grader, make_grader
from upstack.inference.router import shadow_task

if TYPE_CHECKING:
    from upstack.inference.backtest.ranking import Ranking
    from upstack.inference.backtest.run import Outcome
    from upstack.inference.backtest.verdict import Verdict

_PER_USD = 1e12
_LOOKED_AT = 400  # rows by which a grader is guessed


class Asked(msgspec.Struct, frozen=True):
    """What is to be tried."""

    traffic: Path
    reference: str
    candidates: tuple[str, ...]  # none: all other routes of the file
    grader: str | None  # None: the one that recorded losses point to
    weights: Mapping[str, float] | None  # of the JSON grader's fields
    prices: Path | None
    task: str | None  # None: all of the file
    curve: bool


class Period(msgspec.Struct, frozen=True):
    """Which checks of a ledger are looked at."""

    place: str
    keystore: str | None
    terms: Terms
    since: str  # the first id
    now: float  # Unix seconds


class Report(msgspec.Struct, frozen=True):
    """The sum, and what it is a sum of."""

    total: Verdict
    tasks: dict[str, Verdict]
    curves: dict[str, list[Ranking]]


def run(asked: Asked, wanted: Wanted, table: Mapping[str, PriceConfig], progress: Callable[[str], None]) -> Report:
    """Backtest every task of a file; `table` are the configuration's prices. ConfigError, EvidenceError."""
    if asked.grader is not None:
        make_grader(asked.grader, asked.weights)  # whatever is wrong with it is said before anything else is done
    tasks: dict[str, list[TrafficRow]] = {}
    for row in read_traffic(asked.traffic):
        if asked.task is None or row.task == asked.task:
            tasks.setdefault(row.task, []).append(row)
    if not any(row.answers for rows in tasks.values() for row in rows):
        raise ConfigError(f"{asked.traffic} holds no recorded answers{f' of task {asked.task}' if asked.task else ''}")
    prices = _priced(asked, table, tasks)
    trials = {}
    for name, rows in tasks.items():
        progress(f"{name}: {len(rows):,} rows")
        trials[name] = _task(asked, wanted, rows, list(prices), _priced_by(prices))
    verdicts = {name: verdict for name, (verdict, _, _) in trials.items()}
    outcomes = [outcome for _, outcome, _ in trials.values() if outcome is not None]
    curves = {name: curves for name, (_, _, curves) in trials.items() if curves}
    return Report(_sum(list(verdicts.values()), outcomes, wanted), verdicts, curves)


def _priced(
    asked: Asked, table: Mapping[str, PriceConfig], tasks: Mapping[str, Sequence[TrafficRow]]
) -> dict[str, Price]:
    """The prices of all routes that take part."""
    seen = {route: None for rows in tasks.values() for row in rows for route in row.answers}
    names = (asked.reference, *(asked.candidates or [route for route in seen if route != asked.reference]))
    unknown = [name for name in names if name not in seen]
    if unknown:
        raise ConfigError(f'{asked.traffic} has no answers of "{unknown[0]}". Routes there: {", ".join(sorted(seen))}')
    if asked.reference in asked.candidates:
        raise ConfigError(f'"{asked.reference}" is the reference, and cannot be a candidate too')
    file = asked.prices or prices_beside(asked.traffic)
    known = prices_of(names, {**table, **({} if file is None else load_prices_toml(file))})
    missing = [name for name, price in known.items() if price is None]
    if missing:
        raise ConfigError(
            f'"{missing[0]}" has no known price: give it one with --prices FILE, a TOML of'
            f' [prices."{missing[0]}"] with input and output in USD per million tokens'
        )
    return {name: price for name, price in known.items() if price is not None}


def verdict_of(asked: Asked, wanted: Wanted, rows: Sequence[TrafficRow], prices: Mapping[str, Price]) -> Verdict:
    """Backtest rows of one task; `prices` of the routes that take part."""
    return _task(asked, wanted, rows, list(prices), _priced_by(prices))[0]


def run_ledger(asked: Asked, wanted: Wanted, period: Period) -> Report:
    """Backtest a task by the checks in a ledger. What was asked of the other requests is assumed to be like them."""
    from upstack.application.proving.rows import cost_of, to_row  # noqa: PLC0415

    terms, task = period.terms, asked.task or ""
    checks = read_checks(period.place, task, shadow_task(task), period.since, period.keystore)
    rows = [row for row in (to_row(check, terms, period.now, 0.0) for check in checks) if row is not None]
    rows = [row for row in rows if all(row.is_known(route) for route in row.answers)]
    if not rows:
        raise ConfigError(f"The ledger holds no checks of task {task} in that time: `upstack tasks show {task}`")
    routes = [terms.reference[0], *(route for route, _ in terms.arms)]
    verdict, _, curves = _task(asked, wanted, rows, routes, cost_of)
    requests = requests_since(period.place, task, period.since)
    tested = max(1, verdict.n_test)
    others = max(0, requests - len(rows))
    assumed = Assumed(others, verdict.reference.cost_usd / tested * others, verdict.policy.cost_usd / tested * others)
    verdict = replace(verdict, measured_share=len(rows) / max(requests, len(rows)), assumed=assumed)
    return Report(verdict, {task: verdict}, {task: curves} if curves else {})


def _priced_by(prices: Mapping[str, Price]) -> Callable[[str, RecordedAnswer], float]:
    def cost_of(route: str, answer: RecordedAnswer) -> float:
        price = prices[route.removesuffix(AGAIN)]
        if price.per_hour and answer.latency_s is None:
            raise EvidenceError(f'"{route}" is priced by the hour, and a recorded answer of it has no `latency_s`')
        paid = cost(Usage(answer.input_tokens, answer.output_tokens), price, answer.latency_s or 0.0)
        if paid is None:
            raise EvidenceError(f'The price of "{route}" does not say what an answer of this size costs')
        return paid / _PER_USD

    return cost_of


def _task(
    asked: Asked,
    wanted: Wanted,
    rows: Sequence[TrafficRow],
    names: Sequence[str],
    cost_of: Callable[[str, RecordedAnswer], float],
) -> tuple[Verdict, Outcome | None, list[Ranking]]:
    """Backtest one task; `names` of the routes that take part."""
    from upstack.inference.backtest.board import Board, complete  # noqa: PLC0415 - numpy is an extra's
    from upstack.inference.backtest.ranking import ranking  # noqa: PLC0415
    from upstack.inference.backtest.reasons import explained  # noqa: PLC0415
    from upstack.inference.backtest.run import backtest, nothing  # noqa: PLC0415
    from upstack.inference.backtest.split import folds_of, split  # noqa: PLC0415

    curves: list[Ranking] = []
    try:
        once = [name for name in names if name != asked.reference]
        rows, again = asked_again(rows, once)
        whole, candidates, gaps = complete(rows, asked.reference, [*once, *again])
        parts = split(whole, wanted.calibrate, wanted.seed)
        routes = (asked.reference, *candidates)
        grader, name = _grader(asked, [whole[at] for at in parts.fit], routes)
        board = Board(whole, routes, grader, cost_of)
        if asked.curve:
            curves = ranking(board, wanted.strategy, folds_of(whole))
        outcome = backtest(board, wanted, parts)
    except EvidenceError as error:
        return nothing(wanted, str(error), asked.reference), None, curves
    floor = replace(outcome.verdict, noise_floor=board.noise_floor(), grader=name)
    left = replace(floor, left_out=gaps.rows, left_out_candidates=gaps.candidates)
    return explained(left, board, wanted), outcome, curves


def _grader(asked: Asked, rows: Sequence[TrafficRow], routes: Sequence[str]) -> tuple[Grader, str]:
    """The grader asked for, else the one that the recorded losses and truths point to."""
    name = asked.grader or guess_grader(
        (
            [row.answers[route].content or "" for route in routes],
            [row.answers[route].loss for route in routes],
            row.truth,
        )
        for row in rows[:: max(1, len(rows) // _LOOKED_AT)]
    )
    return make_grader(name, asked.weights), name


def _sum(verdicts: Sequence[Verdict], outcomes: Sequence[Outcome], wanted: Wanted) -> Verdict:
    """Put tasks together: costs add up, losses by how many test rows there are. One task is its own sum."""
    import numpy as np  # noqa: PLC0415 - an extra's

    from upstack.inference.backtest.verdict import Policy, Side  # noqa: PLC0415
    from upstack.inference.certify import Interval, interval  # noqa: PLC0415

    if len(verdicts) == 1:
        return verdicts[0]
    if not outcomes:
        return replace(verdicts[0], why="; ".join(sorted({each.why or "" for each in verdicts})))
    parts = [each.verdict for each in outcomes]
    tests = sum(each.n_test for each in parts)

    def mean(of: Callable[[Verdict], float | None]) -> float | None:
        values = [of(each) for each in parts]
        known = [value * each.n_test for value, each in zip(values, parts, strict=True) if value is not None]
        return sum(known) / tests if len(known) == len(parts) else None

    reference = sum(each.reference.cost_usd for each in parts)
    paid = sum(each.policy.cost_usd for each in parts)
    asked, everything = (sum(each.asked_usd for each in outcomes), sum(each.all_usd for each in outcomes))
    excess = np.concatenate([each.excess for each in outcomes])
    served = any(each.policy.strategy != "reference" for each in parts)
    band = interval(excess.tolist(), wanted.confidence) if served else Interval(0.0, 0.0)
    routes = tuple(dict.fromkeys(route for each in parts for route in each.policy.routes))
    strategies = list(dict.fromkeys(each.policy.strategy for each in parts))
    certified = any(each.certified for each in parts)
    return replace(
        parts[0],
        reference=Side(reference, mean(lambda each: each.reference.loss)),
        policy=Policy(" + ".join(strategies), paid, mean(lambda each: each.policy.loss), routes),
        cost_ratio=paid / reference if reference else 1.0,
        cost_ratio_all_in=asked / everything if everything else 1.0,
        excess_loss=float(excess.mean()),
        excess_loss_interval=(band.low, band.high),
        certified=certified,
        n_fit=sum(each.n_fit for each in parts),
        n_evidence=sum(each.n_evidence for each in parts),
        n_test=tests,
        why=None if certified or not wanted.certified else "No task has a certificate; each says why",
        way_on=None,
        left_out=sum(each.left_out for each in verdicts),
        labelled_share=mean(lambda each: each.labelled_share) or 0.0,
        measured_share=mean(lambda each: each.measured_share) or 0.0,
        tried=(),
    )
