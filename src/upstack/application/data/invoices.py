"""Providers' invoices: a CSV of costs, read as it comes, and laid beside what the ledger recorded.

Providers name their columns as they like. The usual names are known; others can be told.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec

from upstack.core.errors import RequestError
from upstack.core.types import Picodollars

COLUMNS: Mapping[str, tuple[str, ...]] = {  # what a column holds: how providers head it, punctuation left out
    "date": ("date", "day", "usagedate", "usagedateutc", "starttime", "starttimeiso", "utcdate", "time", "timestamp"),
    "model": ("model", "modelname", "modelid", "modelversion", "lineitem", "sku", "description"),
    "cost": (
        "cost",
        "costusd",
        "costinusd",
        "amount",
        "amountusd",
        "amountvalue",
        "totalcost",
        "price",
        "usd",
        "total",
    ),
}

_MOST = Decimal(10**6)  # USD in a line
_FIELD_BYTES = 1024 * 1024
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d*)?")


class Line(msgspec.Struct, frozen=True):
    """One line of an invoice: USD for a model on a day; None where it does not say."""

    day: date | None
    model: str | None
    cost: Picodollars


class Invoice(msgspec.Struct, frozen=True):
    """What could be read, and the numbers of the lines that could not with the reason."""

    lines: tuple[Line, ...]
    rejected: tuple[tuple[int, str], ...]


class Difference(msgspec.Struct, frozen=True):
    """What an invoice and the ledger say of a model on a day; what the invoice does not tell apart is None."""

    day: str | None
    model: str | None
    invoiced: Picodollars
    recorded: Picodollars
    unknown_attempts: int  # that the ledger has no cost of


def read_invoice(path: Path, named: Mapping[str, str] = {}) -> Invoice:
    """Read a CSV. `named`: headings of `COLUMNS` where they are unusual. RequestError where it cannot be understood."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(file, path, named)
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {error}", code="invalid_invoice") from None


def compare(invoice: Invoice, recorded: Iterable[tuple[str, str, Picodollars, int]]) -> list[Difference]:
    """Lay an invoice beside the ledger's (day, model, cost, unknown attempts), by day and model where it has them.

    An invoice often names a dated version ("gpt-4o-2024-08-06") of a model that was asked for by its short name.
    """
    rows = list(recorded)
    days = any(line.day is not None for line in invoice.lines)
    models = any(line.model is not None for line in invoice.lines)
    ours = sorted({model for _, model, _, _ in rows}, key=len, reverse=True)
    billed: dict[tuple[str | None, str | None], int] = {}
    for line in invoice.lines:
        key = (line.day.isoformat() if line.day is not None else None, _matching(line.model, ours))
        billed[key] = billed.get(key, 0) + line.cost
    known: dict[tuple[str | None, str | None], tuple[int, int]] = {}
    for day, model, cost, unknown in rows:
        here = (day if days else None, model if models else None)
        before = known.get(here, (0, 0))
        known[here] = (before[0] + cost, before[1] + unknown)
    keys = sorted({*billed, *known}, key=lambda key: (key[0] or "", key[1] or ""))
    return [Difference(*key, billed.get(key, 0), *known.get(key, (0, 0))) for key in keys]


def _matching(name: str | None, ours: Sequence[str]) -> str | None:
    if name is None or name in ours:
        return name
    bare = name.lower()
    return next((model for model in ours if re.match(re.escape(model.lower()) + r"[-@: ,_]", bare)), name)


def _read(file: Iterable[str], path: Path, named: Mapping[str, str]) -> Invoice:
    csv.field_size_limit(_FIELD_BYTES)
    numbered = enumerate(file, 1)
    heading = next((text for _, text in numbered if text.strip()), "")
    comma = max(",;\t", key=heading.count)
    try:
        head = next(csv.reader([heading], delimiter=comma), [])
    except csv.Error as error:
        raise RequestError(f"{path}: no headings of a CSV: {error}", code="invalid_invoice") from None
    places = {what: _place(what, head, named) for what in COLUMNS}
    if places["cost"] is None:
        told = ", ".join(name.strip() for name in head[:20]) or "none"
        message = f"{path}: no column of costs among: {told}; name it with --column cost=HEADING"
        raise RequestError(message, code="invalid_invoice")
    lines: list[Line] = []
    rejected: list[tuple[int, str]] = []
    for number, cells in _cells(numbered, comma, rejected):
        try:
            lines.append(_line(cells, places))
        except ValueError as error:
            rejected.append((number, str(error)))
    return Invoice(tuple(lines), tuple(rejected))


def _cells(
    numbered: Iterator[tuple[int, str]], comma: str, rejected: list[tuple[int, str]]
) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line that is not empty, with its number."""
    latest = 0

    def texts() -> Iterator[str]:
        nonlocal latest
        for number, text in numbered:
            latest = number
            yield text.replace("\0", "")

    rows = csv.reader(texts(), delimiter=comma)
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            rejected.append((latest, str(error)))
            continue
        if any(cell.strip() for cell in cells):
            yield latest, cells


def _place(what: str, head: Sequence[str], named: Mapping[str, str]) -> int | None:
    bare = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in head]
    if what in named:
        wanted = re.sub(r"[^a-z0-9]", "", named[what].lower())
        if wanted not in bare:
            raise RequestError(f'there is no column "{named[what]}"', code="invalid_invoice")
        return bare.index(wanted)
    return next((bare.index(name) for name in COLUMNS[what] if name in bare), None)


def _line(cells: Sequence[str], places: Mapping[str, int | None]) -> Line:
    found = dict.fromkeys(places, "")
    for what, place in places.items():
        if place is not None and place < len(cells):
            found[what] = cells[place].strip()
    text = re.sub(r"[\s$]|USD", "", found["cost"])
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    try:
        cost = Decimal(text)
    except InvalidOperation:  # a comma before decimals too: "1,50" could be 1.5 or 150
        raise ValueError(f'"{found["cost"][:40]}" is no amount such as 1,234.56') from None
    if not cost.is_finite() or abs(cost) > _MOST:
        raise ValueError(f'"{found["cost"][:40]}" is no amount in USD')
    return Line(_day(found["date"]), found["model"] or None, round(cost * 10**12))


def _day(text: str) -> date | None:
    if not text:
        return None
    if re.fullmatch(r"\d{9,13}(\.\d+)?", text):  # Unix seconds or milliseconds
        seconds = float(text) / (1000 if len(text.partition(".")[0]) > 10 else 1)
        return datetime.fromtimestamp(seconds, UTC).date()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text[:40]}" is no date such as 2026-01-31') from None
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()
