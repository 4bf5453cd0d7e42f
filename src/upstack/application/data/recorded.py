"""Recorded traffic and what its routes cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from upstack.core.config import PriceConfig
from upstack.core.types import Price, Provider
from upstack.foundation.prices import price_for


def prices_beside(path: Path) -> Path | None:
    """The prices that lie beside a file: zeroeval.jsonl.gz has zeroeval.prices.toml."""
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    found = path.with_name(f"{stem}.prices.toml")
    return found if found.exists() else None


def prices_of(names: Iterable[str], table: Mapping[str, PriceConfig]) -> dict[str, Price | None]:
    """Each route's price as the gateway will find it; None where it has none."""
    now = datetime.now(UTC)
    found = {}
    for name in names:
        provider, _, model = name.partition("/")
        found[name] = price_for(Provider(provider, "replay", "replay:"), model, table, (name,), now)
    return found
