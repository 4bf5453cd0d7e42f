"""Why nothing is certified, and what the cheapest way on is, in words."""

from __future__ import annotations

from msgspec.structs import replace

from upstack.inference.backtest.board import Board
from upstack.inference.backtest.verdict import Tried, Verdict
from upstack.inference.backtest.wanted import Wanted

_CHEAPER = 0.999  # of the reference's cost: below it something is saved


def explained(verdict: Verdict, board: Board, wanted: Wanted) -> Verdict:
    """Say why, and the way on, where a certificate was wanted and there is none."""
    if verdict.certified or not wanted.certified:
        return verdict
    why, way_on = _reasons(verdict, board, wanted)
    return replace(verdict, why=why, way_on=way_on)


def _reasons(verdict: Verdict, board: Board, wanted: Wanted) -> tuple[str, str]:
    saving = [each for each in verdict.tried if each.cost_ratio < _CHEAPER]
    unlabelled = _unlabelled(verdict)
    if not saving:
        why = (
            "No plan costs less than the reference: what is saved on the requests that a candidate answers is spent on"
            f" asking it for the others{unlabelled}"
        )
        return why, "Try a cheaper candidate, or --strategy precall, which asks one route alone"
    proofs = [each for each in saving if each.judged_on == "evidence"]
    best = min(proofs or saving, key=lambda each: each.excess_loss)
    if best.excess_loss >= wanted.max_loss:
        why = (
            f"The candidates are too weak: {_plan(best)} lost {best.excess_loss:+.4f} more than the reference on the"
            f" {best.judged_on} rows, and {wanted.max_loss:g} is tolerated{unlabelled}"
        )
        return why, "Try a stronger candidate, more rows to learn from, or tolerate more (--max-loss)"
    near = min((each for each in proofs if each.checks_left), key=lambda each: each.checks_left or 0, default=None)
    if near is None:
        why = (
            f"Too few labels: {verdict.n_evidence:,} checks cannot tell {_plan(best)}, which lost"
            f" {best.excess_loss:+.4f}, from one that loses {wanted.max_loss:g}{unlabelled}"
        )
        return why, "Check more requests, or tolerate more (--max-loss), or be less sure (--confidence)"
    columns = [board.column[route] for route in near.routes]
    usd = (near.checks_left or 0) * float(board.costs[:, columns].mean(axis=0).sum())
    why = (
        f"Too few labels: {verdict.n_evidence:,} checks do not prove {_plan(near)} yet, which lost"
        f" {near.excess_loss:+.4f} where {wanted.max_loss:g} is tolerated{unlabelled}"
    )
    way_on = (
        f"About {near.checks_left:,} more checks at the present rate, ${usd:,.2f}; it would cost"
        f" {near.cost_ratio:.0%} of the reference"
    )
    return why, way_on


def _plan(tried: Tried) -> str:
    return f"{tried.strategy} of {', '.join(tried.routes[:-1])}"


def _unlabelled(verdict: Verdict) -> str:
    if verdict.labelled_share == 1.0:
        return ""
    floor = ""
    if verdict.noise_floor is not None:
        floor = f"; the reference differs from itself in {verdict.noise_floor:.1%}, and no candidate can do better"
    return (
        f". Without a label every difference from the reference counts as a loss, as it does in"
        f" {1 - verdict.labelled_share:.0%} of the rows{floor}"
    )
