"""Writes src/upstack/foundation/prices.json from the installed genai-prices; `--check` says whether it is stale.

One model a line, in the order in which genai-prices looks through them, which is also that of their names. Prices are
copied under their own keys, those included that `foundation/prices.py` cannot express: they tell it so. What a price
is by region, batch or service tier (`price_variants`) is left out, as no request here is priced by it.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import msgspec
from genai_prices import types
from genai_prices.data import providers

from upstack.foundation.price_list import Clause, Entry, Listed, Usd

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "src" / "upstack" / "foundation" / "prices.json"
ABOUT = "Prices of genai-prices, https://github.com/pydantic/genai-prices. Written by `make prices`, not by hand."
_JSON = msgspec.json.Encoder(decimal_format="number")


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` compare; 1 where it is stale, or NOTICE lacks the licence of what it holds."""
    distribution = importlib.metadata.distribution("genai-prices")
    licence = (distribution.read_text("licenses/LICENSE") or "").strip()
    text = compile_prices(distribution.version, licence)
    if "--check" not in arguments:
        FILE.write_text(text, encoding="utf-8")
    wrong = []
    if (FILE.read_text(encoding="utf-8") if FILE.exists() else None) != text:
        wrong.append(f"{FILE.relative_to(ROOT)} is not what genai-prices {distribution.version} gives: run make prices")
    if not licence or licence not in (ROOT / "NOTICE").read_text(encoding="utf-8"):
        wrong.append("NOTICE lacks the licence of genai-prices as it is installed")
    count = sum(len(supplier.models) for supplier in providers)
    print("\n".join(wrong or [f"Prices: {count} models of genai-prices {distribution.version}."]))
    return 1 if wrong else 0


def compile_prices(release: str, licence: str) -> str:
    """The file's text: JSON that differs by lines."""
    head = {"about": ABOUT, "licence": licence, "release": release}
    lists = ",\n".join(map(_list, sorted(providers, key=lambda supplier: supplier.id)))
    lines = [f"{json.dumps(key)}:{json.dumps(text)}," for key, text in head.items()]
    return "\n".join(["{", *lines, '"lists":{', lists, "}}", ""])


def _list(supplier: types.Provider) -> str:
    models = ",\n".join(_JSON.encode(_listed(model)).decode() for model in supplier.models)
    return f"{json.dumps(supplier.id)}:[\n{models}\n]"


def _listed(model: types.ModelInfo) -> Listed:
    prices = model.prices if isinstance(model.prices, list) else [types.ConditionalPrice(prices=model.prices)]
    return Listed(model.id, _clause(model.match), tuple(map(_entry, prices)))


def _clause(clause: types.MatchLogic) -> Clause:
    if isinstance(clause, types.ClauseOr):
        return Clause(any_of=tuple(map(_clause, clause.or_)))
    if isinstance(clause, types.ClauseAnd):
        return Clause(all_of=tuple(map(_clause, clause.and_)))
    if isinstance(clause, types.ClauseRegex):
        return Clause(regex=clause.regex)
    # Any other is a text in whatever case under the clause's name. One that `Clause` does not know raises TypeError.
    return Clause(**{name: text.lower() for name, text in vars(clause).items()})


def _entry(entry: types.ConditionalPrice) -> Entry:
    usd = {key: _usd(value) for key, value in vars(entry.prices).items() if value is not None}
    condition = entry.constraint
    if isinstance(condition, types.StartDateConstraint):
        return Entry(usd, start_date=condition.start_date)
    if isinstance(condition, types.TimeOfDateConstraint):
        return Entry(usd, start_time=_utc(condition.start_time), end_time=_utc(condition.end_time))
    if condition is not None:
        raise TypeError(f"a price has a condition of an unknown kind: {condition}")
    return Entry(usd)


def _usd(price: Decimal | types.TieredPrices) -> Usd:
    if isinstance(price, Decimal):
        return price
    return ((0, price.base), *((tier.start, tier.price) for tier in price.tiers))


def _utc(moment: time) -> time:
    """A time of the list without a zone is UTC."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return datetime.combine(date(1970, 1, 1), moment).astimezone(UTC).timetz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
