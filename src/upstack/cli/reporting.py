"""The demo's report, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from upstack.application.demo.certified import CONFIDENCE, MAX_LOSS, Certified
from upstack.application.demo.loss import Excess
from upstack.application.demo.report import CLAIM, Report
from upstack.application.demo.scenario import Scenario
from upstack.application.demo.sending import AT_ONCE
from upstack.application.gateway.explain import usd
from upstack.cli.output import new_sheet, say, show, styled, usd_per_million
from upstack.core.types import Picodollars, Price

SIMULATED = "SIMULATED traffic, models and prices: nothing here is a real answer."
REPLAYED_SIMULATION = "SIMULATED traffic and models: nothing here is a real answer."
Line = tuple[str, str, str]  # name, value, style


def print_report(scenario: Scenario, report: Report, took_s: float, ledger: Path | None, url: str | None) -> None:
    """Print the table; `took_s`: seconds from start to report; `url` where the gateway stays up."""
    say(f"\nUpstack demo: {scenario.source}", style="bold")
    if scenario.simulated:
        say(SIMULATED if scenario.file is None else REPLAYED_SIMULATION, style="bold yellow")
    if scenario.file is not None:
        say(f"Answers recorded in {scenario.file.name}, replayed; no provider is called.")
    if scenario.silent:
        say(f"{scenario.silent:,} of {2 * len(scenario.rows):,} answers have no content.")
    lines = new_sheet()
    for section in (
        _traffic_lines(scenario, report),
        _route_lines(scenario),
        _money_lines(report),
        _proof_lines(report.certified),
        _record_lines(report, took_s, ledger, url),
    ):
        for name, value, style in section:
            lines.add_row(name, styled(value, style))
        lines.add_section()
    show(lines)


def _traffic_lines(scenario: Scenario, report: Report) -> Iterator[Line]:
    routes = sorted(report.by_route.items(), key=lambda each: -each[1])
    by = f" ({', '.join(f'{count:,} by {name}' for name, count in routes)})" if len(routes) > 1 else ""
    style = "bold red" if report.failed else ""
    yield "Requests", f"{report.answered:,} answered{by}, {report.failed:,} failed; {report.streamed:,} streamed", style
    if report.first_error:
        yield "First failure", " ".join(report.first_error.split())[:200], "red"
    if scenario.skipped:
        yield "Left out", f"{scenario.skipped:,} rows without an answer of both routes", ""
    left = scenario.usable - len(scenario.rows)
    if left:
        yield "Left out", f"{left:,} of {scenario.usable:,} rows, at even distances; --requests takes more", ""


def _route_lines(scenario: Scenario) -> Iterator[Line]:
    for title, name in (("Asked first", scenario.roles.candidate), ("Reference", scenario.roles.reference)):
        yield title, f"{name}\n{_price(scenario.prices[name])}", ""
    yield "Chosen", scenario.choice, ""
    yield "Prices", scenario.price_source, ""


def _money_lines(report: Report) -> Iterator[Line]:
    saved = report.saved
    sums = _aligned(report.served, report.always_reference, None if saved is None else abs(saved))
    yield "Cost as served", sums[0] if report.served is None else f"{sums[0]}, by the receipts", ""
    yield "Always the reference", sums[1], ""
    if saved is None or saved >= 0:
        yield "Saved", _with_share(sums[2], report, ""), "bold green" if saved else "bold"
    else:
        yield "Cost more", _with_share(sums[2], report, " more"), "bold"
    yield "Excess loss, measured", _excess(report.excess), "bold"
    yield "As served", CLAIM, "bold yellow"


def _proof_lines(certified: Certified | None) -> Iterator[Line]:
    if certified is None:
        return
    claim = f"at most {MAX_LOSS:g} worse than the reference, with confidence {CONFIDENCE:g}"
    if certified.why is not None:
        yield "Certified saving", f"none: {certified.why}", "bold yellow"
        yield "To be proved", f"{claim}, by a backtest of {certified.rows:,} rows", ""
        return
    saved = 100 * (1 - certified.cost_ratio)
    yield "Certified saving", f"{saved:.1f} %: {claim}", "bold green"
    yield "Plan", certified.plan, ""
    how = f"of {certified.rows:,} rows: proved on {certified.evidence:,}, then measured on {certified.tested:,} others"
    yield "Backtest", f"{how}:\nexcess loss {certified.excess_loss:+.4f}", ""


def _record_lines(report: Report, took_s: float, ledger: Path | None, url: str | None) -> Iterator[Line]:
    where = "the ledger" if ledger is None else str(ledger)
    yield "Receipts written", f"{report.receipts:,}, counted in {where}; {report.answered:,} requests answered", ""
    if report.checked and not report.faults:
        part = "all" if report.checked == report.answered else f"{report.checked:,}"
        yield "Checked", f"{part} costs equal the traffic's own, to the picodollar", ""
    times = f"p50 {_ms(report.p50_s)}, p99 {_ms(report.p99_s)} at the client, {AT_ONCE} at a time"
    yield "Latency", f"{times}\nwithout the time that models take", ""
    yield "The demo took", f"{took_s:.1f} s", ""
    if url is not None:
        yield "Gateway", f"{url}/v1", "bold"


def _price(price: Price | None) -> str:
    if price is None:
        return "price unknown"
    rates = price.tiers[0][1]
    more = ", more for long requests" if len(price.tiers) > 1 else ""
    return f"${usd_per_million(rates.input)} in, ${usd_per_million(rates.output)} out per million tokens{more}"


def _aligned(*costs: Picodollars | None) -> list[str]:
    """Write sums so that their decimal points stand below each other."""
    written = ["unknown" if cost is None else f"${usd(cost)}" for cost in costs]
    places = [len(each.partition(".")[0]) for each, cost in zip(written, costs, strict=True) if cost is not None]
    return [
        each if cost is None else " " * (max(places) - len(each.partition(".")[0])) + each
        for each, cost in zip(written, costs, strict=True)
    ]


def _with_share(said: str, report: Report, word: str) -> str:
    saved, whole = report.saved, report.always_reference
    if saved is None:
        return "unknown, as a price is"
    return f"{said} ({100 * abs(saved) / whole:,.1f} %{word})" if whole else said


def _excess(found: Excess | None) -> str:
    if found is None:
        return "unknown: no row says how good its answers are"
    return (
        f"{found.mean:+.4f} against the reference (loss: 0 good, 1 bad)\n"
        f"on {found.rows:,} rows, 95 %: {found.low:+.4f} to {found.high:+.4f}\n({found.method})"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def as_json(scenario: Scenario, report: Report, took_s: float, ledger: Path | None) -> dict[str, Any]:
    """Everything, exactly: money in picodollars beside decimal USD."""
    saved, whole = report.saved, report.always_reference
    return {
        "simulated": scenario.simulated,
        "source": scenario.source,
        "answers_without_content": scenario.silent,
        "prices": scenario.price_source,
        "requests": {
            "answered": report.answered,
            "failed": report.failed,
            "streamed": report.streamed,
            "by_route": report.by_route,
            "skipped_rows": scenario.skipped,
            "rows_not_sent": scenario.usable - len(scenario.rows),
            "first_failure": report.first_error or None,
        },
        "candidate": _route_json(scenario.roles.candidate, scenario),
        "reference": _route_json(scenario.roles.reference, scenario),
        "cost_as_served": _cost_json(report.served),
        "cost_always_reference": _cost_json(whole),
        "saved": _cost_json(saved) | {"share": None if saved is None or not whole else saved / whole},
        "excess_loss": None if report.excess is None else msgspec.to_builtins(report.excess),
        "chosen": scenario.choice,
        "claim": CLAIM,
        "certified": report.certified
        and {"max_loss": MAX_LOSS, "confidence": CONFIDENCE, **msgspec.to_builtins(report.certified)},
        "receipts": report.receipts,
        "ledger": None if ledger is None else str(ledger),
        "costs_checked": report.checked,
        "faults": report.faults,
        "latency_s": {"p50": report.p50_s, "p99": report.p99_s, "at_once": AT_ONCE},
        "took_s": took_s,
        "url": None,  # the gateway is gone when this is read
    }


def _route_json(name: str, scenario: Scenario) -> dict[str, Any]:
    price = scenario.prices[name]
    return {"route": name, "price_version": None if price is None else price.version}


def _cost_json(cost: Picodollars | None) -> dict[str, Any]:
    if cost is None:
        return {"picodollars": None, "usd": None}
    return {"picodollars": cost, "usd": f"{'-' if cost < 0 else ''}{usd(abs(cost))}"}
