"""`upstack spend`: what was spent, on what, and where a provider's invoice differs from it."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec

from upstack.application.data.invoices import COLUMNS, Difference, compare, read_invoice
from upstack.application.gateway.explain import usd
from upstack.cli.options import ledger_of
from upstack.cli.output import Name, new_table, print_json, say, show, styled
from upstack.core.errors import ConfigError
from upstack.core.store.places import shown
from upstack.core.store.reading import spend_sums
from upstack.core.store.spending import KEYS, SUMS

_BY = tuple(name for name in KEYS if name != "chain")
_SHOWN_REJECTS = 20
_NEAR = 0.01  # of the invoiced amount: a difference below it is not made much of


class Wanted(msgspec.Struct, frozen=True):
    """What the command line was given."""

    by: tuple[str, ...]
    since: str | None
    until: str | None
    invoice: Path | None
    provider: str | None
    columns: tuple[str, ...]


def run(wanted: Wanted, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Print a table, or JSON. ConfigError where a day or a column cannot be read."""
    place = ledger_of(ledger, config)
    since, until = _day(wanted.since, "--since") or "", _day(wanted.until, "--until") or "9"
    if wanted.invoice is not None:
        _reconcile(wanted, place, since, until, as_json=as_json)
        return
    by = [name for name in _BY if name in wanted.by]
    if set(wanted.by) - set(_BY):
        raise ConfigError(f"--by: expected one of {', '.join(_BY)}, or several")
    rows = [dict(zip((*by, *SUMS), row, strict=True)) for row in spend_sums(place, by, since, until)]
    if as_json:
        print_json({"ledger": shown(place), "by": by, "rows": [_with_usd(row) for row in rows], "total": _total(rows)})
        return
    if not rows:
        say(f"{shown(place)} has no spending in that time.")
        return
    numbers = ("requests", "tokens in", "tokens out", "cost", "of unknown cost")
    table = new_table(*by, *numbers, right=numbers)
    for row in [*rows, _total(rows)] if len(rows) > 1 else rows:
        total = row.keys().isdisjoint(by)
        names = ["total", *[""] * (len(by) - 1)] if total else [str(row[name]) or "(none)" for name in by]
        table.add_row(*map(Name, names), *_cells(row), style="bold" if total else "")
    show(table)
    if any(row["unknown_attempts"] for row in rows):
        say("Some attempts have no known cost: a price or the usage is missing. Budgets count what was held for them.")


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['requests']:,}",
        f"{row['input_tokens']:,}",
        f"{row['output_tokens']:,}",
        f"${usd(row['cost_picodollars'])}",
        f"{row['unknown_attempts']:,}" if row["unknown_attempts"] else "",
    ]


def _total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return _with_usd({name: sum(row[name] for row in rows) for name in SUMS})


def _with_usd(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "cost_usd": usd(row["cost_picodollars"])}


def _reconcile(wanted: Wanted, place: str, since: str, until: str, *, as_json: bool) -> None:
    assert wanted.invoice is not None  # noqa: S101 - the caller has looked
    named = dict(column.partition("=")[::2] for column in wanted.columns)
    if not set(named) <= set(COLUMNS) or not all(named.values()):
        raise ConfigError(f"--column: expected one of {', '.join(f'{name}=HEADING' for name in COLUMNS)}")
    invoice = read_invoice(wanted.invoice, named)
    days = [line.day for line in invoice.lines if line.day is not None]
    if days and wanted.since is None and wanted.until is None:
        since, until = min(days).isoformat(), (max(days) + timedelta(days=1)).isoformat()
    sums = (dict(zip(("day", "provider", "model", *SUMS), row, strict=True)) for row in _by_model(place, since, until))
    recorded = [
        (row["day"], row["model"], row["cost_picodollars"], row["unknown_attempts"])
        for row in sums
        if row["provider"] and wanted.provider in {None, row["provider"]}
    ]
    differences = compare(invoice, recorded)
    if as_json:
        rows = [{**msgspec.to_builtins(each), "difference_usd": usd_signed(each)} for each in differences]
        print_json({"ledger": shown(place), "invoice": str(wanted.invoice), "rows": rows, "rejected": invoice.rejected})
        return
    _print(differences)
    for number, reason in invoice.rejected[:_SHOWN_REJECTS]:
        say(f"line {number}: {reason}", style="yellow")
    if len(invoice.rejected) > _SHOWN_REJECTS:
        say(f"... and {len(invoice.rejected) - _SHOWN_REJECTS:,} more lines that could not be read", style="yellow")


def _by_model(place: str, since: str, until: str) -> list[tuple[Any, ...]]:
    return spend_sums(place, ("day", "provider", "model"), since, until)


def _print(differences: list[Difference]) -> None:
    numbers = ("invoiced", "recorded", "difference")
    table = new_table("day", "model", *numbers, "", right=numbers)
    for each in differences:
        gap = abs(each.invoiced - each.recorded)
        far = gap > _NEAR * abs(each.invoiced)
        table.add_row(
            each.day or "all",
            Name(each.model or "all"),
            f"${usd(each.invoiced)}" if each.invoiced else "",
            f"${usd(each.recorded)}" if each.recorded else "",
            styled(usd_signed(each), "bold red" if far else "") if gap else "",
            f"{each.unknown_attempts:,} attempts of unknown cost" if each.unknown_attempts else "",
        )
    show(table)
    invoiced, recorded = (sum(getattr(each, name) for each in differences) for name in ("invoiced", "recorded"))
    total = usd_signed(Difference(None, None, invoiced, recorded, 0))
    say(f"Invoiced ${usd(invoiced)}, recorded ${usd(recorded)}: a difference of {total}.", style="bold")


def usd_signed(each: Difference) -> str:
    """Invoiced less recorded."""
    gap = each.invoiced - each.recorded
    return f"{'-' if gap < 0 else '+'}${usd(abs(gap))}" if gap else "$0"


def _day(text: str | None, option: str) -> str | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ConfigError(f'{option} "{text}": expected a day such as 2026-01-31; sums are kept by day (UTC)') from None
