"""Metrics stay bounded whatever callers name."""

from __future__ import annotations

from upstack.application.gateway.metrics import LABELS, OTHER, Metrics
from upstack.core.types import Attempt, Receipt


def ended(route: str) -> Receipt:
    """The receipt of a request that failed on a route."""
    attempt = Attempt(route, "p", "m", "v", 0, 500, "bad_status", 0.0, None, 0.1)
    return Receipt(
        id="r",
        created_at=0.0,
        state="failed",
        model=route,
        task=None,
        strategy="fallback",
        plan="a",
        why="",
        route=route,
        stream=False,
        status=502,
        error="bad_status",
        first_byte_s=None,
        duration_s=0.1,
        usage=None,
        cost_picodollars=None,
        attempts=(attempt,),
        capture="none",
    )


def test_routes_beyond_the_limit_share_one_label() -> None:
    """Callers can make up any number of routes: those after the first many are counted together, the first apart."""
    metrics = Metrics()
    for number in range(LABELS + 50):
        metrics.note(ended(f"p/{number}"))
    metrics.note(ended("p/0"))
    assert metrics.failures["p/0", "bad_status"] == 2
    assert metrics.failures[OTHER, "bad_status"] == 50
    assert len(metrics.failures) == LABELS + 1
    assert metrics.rows["p/0", None, "failed"].count == 2
    assert metrics.rows[OTHER, None, "failed"].count == 50
