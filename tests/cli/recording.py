"""A little recorded traffic for the demo, and its costs worked out by another hand."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from upstack.core.traffic import RecordedAnswer, TrafficRow, write_traffic

PRICES = """
[prices."a/dear"]
input = 3
output = 15.5
[prices."b/cheap"]
input = 0.1
output = 0.4
[prices."c/middle"]
input = 1
output = 1
"""


def recorded_row(number: int, prompt: str, names: Sequence[str] = ("a/dear", "b/cheap", "c/middle")) -> TrafficRow:
    """One recorded request; every third answer of the cheap model is wrong, the dear one is always right."""
    said = {"a/dear": "yes", "b/cheap": "no" if number % 3 == 0 else " yes\n", "c/middle": "yes"}
    answers = {name: RecordedAnswer(said[name], 10 + number, 3 + number % 5) for name in names}
    return TrafficRow(
        f"r{number}", "t", ({"role": "user", "content": prompt},), answers, truth="yes" if number < 20 else None
    )


def record(folder: Path, rows: Sequence[TrafficRow], prices: str = PRICES) -> Path:
    """Write `rows` as `some.jsonl.gz`, the prices beside it."""
    path = folder / "some.jsonl.gz"
    write_traffic(path, rows)
    if prices:
        (folder / "some.prices.toml").write_text(prices)
    return path


def independent_sum(rows: Sequence[TrafficRow], name: str, prices: str = PRICES) -> int:
    """Picodollars, in decimals from the TOML's own text: nothing of Upstack's arithmetic."""
    rates = tomllib.loads(prices, parse_float=Decimal)["prices"][name]
    usd = sum(
        row.answers[name].input_tokens * Decimal(rates["input"])
        + row.answers[name].output_tokens * Decimal(rates["output"])
        for row in rows
    )
    exact = usd * 10**6
    assert exact == int(exact)
    return int(exact)
