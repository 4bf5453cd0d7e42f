"""Providers' invoices: read in the shapes they come in, and what cannot be read is named and not guessed."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from upstack.application.data.invoices import Difference, Line, compare, read_invoice
from upstack.core.errors import RequestError

DAY = date(2026, 1, 31)
USD = 10**12


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("date,model,cost\n2026-01-31,gpt-4o,1.50\n", [Line(DAY, "gpt-4o", 3 * USD // 2)]),
        ("\ufeffstart_time,amount_value,line_item\r\n1769817600,0.000001,gpt-4o\r\n", [Line(DAY, "gpt-4o", 10**6)]),
        ("start_time_iso;cost_in_usd\n2026-01-31T23:30:00-01:00;2\n", [Line(date(2026, 2, 1), None, 2 * USD)]),
        ('usage_date_utc,model,cost_usd\n2026-01-31,"c, old","$1,234.56"\n', [Line(DAY, "c, old", 123456 * 10**10)]),
        ("Model\tTotal cost\ngpt-4o\t-0.25 USD\n\n", [Line(None, "gpt-4o", -USD // 4)]),
        ("cost\n", []),
    ],
)  # fmt: skip
def test_invoices_come_in_several_shapes(tmp_path: Path, text: str, lines: list[Line]) -> None:
    """Commas, semicolons or tabs; a mark at the beginning; days, moments and Unix seconds; credits."""
    path = tmp_path / "invoice.csv"
    path.write_text(text, newline="")
    assert list(read_invoice(path).lines) == lines


@pytest.mark.parametrize("amount", ["NaN", "inf", "1e400", "€5", "1,50", "1.234,56", "", "5 apples", "9" * 5000, "x"])
def test_what_is_no_amount_is_named_by_its_line(tmp_path: Path, amount: str) -> None:
    """It is not guessed, and the rest is read."""
    path = tmp_path / "invoice.csv"
    path.write_text(f'date,cost\n2026-01-31,1\n2026-01-31,"{amount}"\nyesterday,1\n2026-01-31,2\n')
    invoice = read_invoice(path)
    assert [line.cost for line in invoice.lines] == [USD, 2 * USD]
    assert [number for number, _ in invoice.rejected] == [3, 4]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"a,b\n1,2\n",
        b"\xff\xfe\x00cost",
        os.urandom(1000),
        b"cost" * 20_000_000,
        b"\0" * 5000,
    ],
)
def test_what_is_no_invoice_is_refused(tmp_path: Path, content: bytes) -> None:
    """With a named error, whatever it is."""
    path = tmp_path / "invoice.csv"
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_invoice(path)
    assert caught.value.code == "invalid_invoice"
    with pytest.raises(RequestError, match="cannot be read"):
        read_invoice(tmp_path / "none.csv")


def test_columns_may_be_named(tmp_path: Path) -> None:
    """Where their headings are unusual; a heading that is not there is an error."""
    path = tmp_path / "invoice.csv"
    path.write_text("When,What,Betrag\n2026-01-31,gpt-4o,3\n")
    named = {"date": "When", "model": "what", "cost": "Betrag"}
    assert read_invoice(path, named).lines == (Line(DAY, "gpt-4o", 3 * USD),)
    with pytest.raises(RequestError, match="no column"):
        read_invoice(path, {"cost": "Preis"})


def test_differences_are_by_day_and_model_where_the_invoice_has_them(tmp_path: Path) -> None:
    """A dated version is its model; what only one side has is shown."""
    recorded = [("2026-01-31", "gpt-4o", 2 * USD, 0), ("2026-01-31", "gpt-4o-mini", USD, 1), ("2026-02-01", "x", 5, 0)]
    path = tmp_path / "invoice.csv"
    path.write_text("date,model,cost\n2026-01-31,gpt-4o-2024-08-06,2.5\n2026-01-31,gpt-4o-mini,1\n2026-01-30,new,1\n")
    assert compare(read_invoice(path), recorded) == [
        Difference("2026-01-30", "new", USD, 0, 0),
        Difference("2026-01-31", "gpt-4o", 5 * USD // 2, 2 * USD, 0),
        Difference("2026-01-31", "gpt-4o-mini", USD, USD, 1),
        Difference("2026-02-01", "x", 0, 5, 0),
    ]
    path.write_text("cost\n3.5\n")
    assert compare(read_invoice(path), recorded) == [Difference(None, None, 7 * USD // 2, 3 * USD + 5, 1)]
