"""What a route costs: the configuration's prices first, else those of genai-prices, in integer picodollars.

The latter lie in prices.json, which `make prices` writes and every release brings along. It is read when the first
price is asked for.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import msgspec

from upstack.core.config import PriceConfig, load_price_file
from upstack.core.types import Picodollars, Price, Provider, Rates
from upstack.foundation.price_list import Entry, Listed, PriceLists, Usd, find

_FILE = Path(__file__).with_name("prices.json")
_DAY = timedelta(days=1)
_PER_TOKEN = 1_000_000  # picodollars a token in a USD per million tokens
_PER_USD = 10**12
_PER_REQUEST = 1_000_000_000  # picodollars a request in a USD per thousand requests
_ROUNDED = " (rounded to 1e-12 USD)"  # part of the version of a price that is finer than that

# What `Usage` can be priced by: the list's key -> our rate, and picodollars in one of its units.
_EXPRESSED = {
    "input_mtok": ("input", _PER_TOKEN),
    "output_mtok": ("output", _PER_TOKEN),
    "cache_read_mtok": ("cached_input", _PER_TOKEN),
    "cache_write_mtok": ("cache_write", _PER_TOKEN),
    "output_reasoning_mtok": ("reasoning", _PER_TOKEN),
    "requests_kcount": ("request", _PER_REQUEST),
}
_FREE = ((0, Rates(input=0, output=0)),)
# Audio costs something else than text. How much of it came from the cache no usage tells, so it is left unpriced.
_AUDIO = frozenset({"input_audio_mtok", "cache_audio_read_mtok"})
# Charged only for what a plain chat request does not hold or ask for. A request that does costs more than we say.
_OPTIONAL = frozenset(
    {
        "cache_write_1h_mtok",
        "web_searches_kcount",
        "storage_searches_kcount",
        "social_searches_kcount",
        "code_executions_kcount",
        "input_image_mtok",
        "input_video_mtok",
        "cache_image_read_mtok",
        "cache_video_read_mtok",
    }
)


def price_for(
    provider: Provider, model: str, overrides: Mapping[str, PriceConfig], names: Sequence[str], now: datetime
) -> Price | None:
    """Price of `model` (as the provider names it) at `now`, or None: unknown, which is never 0.

    `overrides` come from `[prices]`; the first of `names` (route name, "provider/model") found in them wins. Otherwise
    the price is that of the provider's own list alone: never a namesake's of another provider. It is None too where the
    list has prices that the usage of an answer cannot be priced by, such as images in the output. It may change with
    the date or the time of day: `price_changes_at` says when.
    """
    for name in names:
        if name in overrides:
            return _configured(overrides[name])
    listed = _listed(provider, model)
    if listed is None:
        return None
    entry, when = _in_force(listed, _utc(now))
    tiers, rounded = _tiers(model, entry)
    if tiers is None:
        return None
    version = f"{list_version()} {_list_of(provider)}/{listed.id}{when}{_ROUNDED if rounded else ''}"
    return Price(version, tiers, text_only=not _AUDIO.isdisjoint(entry.usd))


def price_changes_at(provider: Provider, model: str, now: datetime) -> datetime | None:
    """When the listed price of `model` may next differ from its price at `now` (UTC); None where it is fixed."""
    listed = _listed(provider, model)
    if listed is None:
        return None
    now = _utc(now)
    return min((moment for entry in listed.prices for moment in _edges(entry, now)), default=None)


def load_list() -> None:
    """Read the list now, from any thread, so that the first price asked for need not wait for it.

    Raises OSError or msgspec.MsgspecError where the file is gone or broken. To others no listed price is then known.
    """
    _lists()


def list_version() -> str:
    """The list and its release, as the version of a listed price begins: "genai-prices 0.2.3"."""
    return f"genai-prices {_lists().release}"


def load_prices_toml(path: Path) -> dict[str, PriceConfig]:
    """Read a file of `[prices."provider/model"]` tables and nothing else; ConfigError names what is wrong."""
    return load_price_file(path)


# --- From the configuration ------------------------------------------------------------------------------------------


def _configured(price: PriceConfig) -> Price:
    numbers = (price.input, price.output, price.cached_input)
    if price.usd_per_hour is not None:
        rate, changed = _round(Decimal(str(price.usd_per_hour)) * _PER_USD)
        digest = hashlib.sha256(repr(price.usd_per_hour).encode()).hexdigest()[:8]
        return Price(f"config {digest} per hour{_ROUNDED if changed else ''}", _FREE, per_hour=rate)
    digest = hashlib.sha256(repr(numbers).encode()).hexdigest()[:8]
    # str(float) is the shortest text that reads back the same: the number as it was written.
    exact = [None if number is None else Decimal(str(number)) * _PER_TOKEN for number in numbers]
    rounded = [(None, False) if number is None else _round(number) for number in exact]
    (input_rate, _), (output_rate, _), (cached_rate, _) = rounded
    rates = Rates(input=input_rate or 0, output=output_rate or 0, cached_input=cached_rate)
    return Price(f"config {digest}{_ROUNDED if any(changed for _, changed in rounded) else ''}", ((0, rates),))


def _round(picodollars: Decimal) -> tuple[Picodollars, bool]:
    """The nearest whole number, halves up, and whether that changed it."""
    whole = picodollars.quantize(Decimal(1), rounding=ROUND_HALF_UP)
    return int(whole), whole != picodollars


# --- From the price list ---------------------------------------------------------------------------------------------


def _list_of(provider: Provider) -> str:
    """The provider's name in the price list; "" where it has none there."""
    return provider.name if provider.catalog is None else provider.catalog


def _listed(provider: Provider, model: str) -> Listed | None:
    try:
        models = _models(_list_of(provider))
    except (OSError, msgspec.MsgspecError):
        return None
    return find(models, model)


@functools.cache
def _lists() -> PriceLists:
    return msgspec.json.decode(_FILE.read_bytes(), type=PriceLists)


@functools.cache
def _models(name: str) -> tuple[Listed, ...]:
    lists = _lists().lists
    return msgspec.json.decode(lists[name], type=tuple[Listed, ...]) if name in lists else ()


def _in_force(listed: Listed, now: datetime) -> tuple[Entry, str]:
    """The price at `now`, and the words that tell it from the same model's prices at other times."""
    # As in genai-prices: the last whose condition holds, else the first.
    chosen = next((entry for entry in reversed(listed.prices) if _active(entry, now)), listed.prices[0])
    if _window(chosen):
        return chosen, f" {_window(chosen)}"
    since = "" if chosen.start_date is None else f" from {chosen.start_date.isoformat()}"
    daily = ", ".join(filter(None, map(_window, listed.prices)))
    return chosen, f"{since} outside {daily}" if daily else since


def _active(entry: Entry, now: datetime) -> bool:
    start, end, clock = entry.start_time, entry.end_time, now.timetz()
    if start is not None and end is not None:
        return (clock >= start or clock < end) if end < start else start <= clock < end
    return entry.start_date is None or now.date() >= entry.start_date


def _window(entry: Entry) -> str:
    """The hours of a price that holds for some only, as "01:00-04:00Z"; else ""."""
    start, end = entry.start_time, entry.end_time
    return "" if start is None or end is None else f"{start:%H:%M}-{end:%H:%M}Z"


def _edges(entry: Entry, now: datetime) -> Iterator[datetime]:
    """The next moments after `now` at which this entry begins or ends to hold."""
    day = entry.start_date
    if day is not None:
        moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if moment > now:
            yield moment
    for clock in (entry.start_time, entry.end_time):
        if clock is not None:
            yield now + ((datetime.combine(now.date(), clock) - now) % _DAY or _DAY)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _tiers(model: str, entry: Entry) -> tuple[tuple[tuple[int, Rates], ...] | None, bool]:
    """Compile one price of the list, and whether a number was rounded; None where it is no whole price of chat."""
    prices = entry.usd
    if not prices:
        # An empty price is "free" in this list, but also "not known yet". Only a model named ":free" says which.
        return (_FREE if model.endswith(":free") else None), False
    if not {"input_mtok", "output_mtok"} <= prices.keys() or prices.keys() - _EXPRESSED.keys() - _OPTIONAL - _AUDIO:
        return None, False
    starts = {0}
    for value in prices.values():
        if isinstance(value, tuple):
            starts.update(start for start, _ in value)
    tiers = []
    rounded = False
    for start in sorted(starts):
        rates: dict[str, Picodollars] = {}
        for key, (rate, unit) in _EXPRESSED.items():
            if key in prices:
                rates[rate], changed = _round(_above(prices[key], start) * unit)
                rounded = rounded or changed
        tiers.append((start, Rates(**rates)))
    return tuple(tiers), rounded


def _above(value: Usd, tokens: int) -> Decimal:
    """The price for requests with more input tokens than `tokens`, up to the next tier."""
    if isinstance(value, Decimal):
        return value
    return next(price for start, price in reversed(value) if start <= tokens)
