"""What could be proved of the demo's traffic: a backtest of its rows, beside what the configured order did."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec
from msgspec.structs import replace

from upstack.application.backtest import Asked, verdict_of
from upstack.application.data.generate import generate_traffic
from upstack.application.demo.scenario import SIMULATED_PLACES, SIMULATED_REQUESTS, Scenario
from upstack.core.errors import UpstackError
from upstack.inference.backtest.wanted import Wanted

MAX_LOSS = 0.05
CONFIDENCE = 0.95
_SIMULATED_ROWS = 1000  # what was sent is too little to prove anything by


class Certified(msgspec.Struct, frozen=True):
    """The plan that was proved, and what it did on rows that took no part in that; or why there is none."""

    rows: int
    why: str | None = None  # nothing is certified
    plan: str = "the reference"
    cost_ratio: float = 1.0
    excess_loss: float = 0.0
    evidence: int = 0
    tested: int = 0


def certify(scenario: Scenario) -> Certified:
    """Backtest the rows; of simulated traffic more of its kind, where no number of requests was asked for."""
    rows = scenario.rows
    if scenario.file is None and len(rows) == SIMULATED_REQUESTS:
        rows = [
            replace(row, answers={SIMULATED_PLACES[name]: answer for name, answer in row.answers.items()})
            for row in generate_traffic(_SIMULATED_ROWS)
        ]
    prices = {name: price for name, price in scenario.prices.items() if price is not None}
    if len(prices) < len(scenario.prices):
        return Certified(len(rows), "a price is unknown")
    if importlib.util.find_spec("sklearn") is None or importlib.util.find_spec("rensa") is None:
        return Certified(len(rows), "the extra is not installed: pip install 'upstack[learn]'")
    roles = scenario.roles
    asked = Asked(Path(), roles.reference, (roles.candidate,), None, None, None, None, curve=False)
    try:
        verdict = verdict_of(asked, Wanted("auto", MAX_LOSS, CONFIDENCE), rows, prices)
    except UpstackError as error:
        return Certified(len(rows), error.message)
    if not verdict.certified:
        return Certified(len(rows), verdict.why or "it was not proved")
    policy = verdict.policy
    return Certified(
        len(rows),
        None,
        f"{policy.strategy}: {', then '.join(policy.routes)}",
        verdict.cost_ratio,
        verdict.excess_loss,
        verdict.n_evidence,
        verdict.n_test,
    )
