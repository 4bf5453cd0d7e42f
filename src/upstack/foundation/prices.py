"""What a route costs: the configuration's prices first, else genai-prices, compiled once into integer picodollars.

genai-prices is read offline, as it was installed; its updater is never called. It is imported when the first price is
asked for, as that takes a quarter of a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, cast

from upstack.core.config import PriceConfig, load_price_file
from upstack.core.types import Picodollars, Price, Provider, Rates

if TYPE_CHECKING:
    from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, TieredPrices

_DAY = timedelta(days=1)
_PER_TOKEN = 1_000_000  # picodollars a token in a USD per million tokens
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
    model_price, when = _in_force(listed, _utc(now))
    tiers, rounded = _tiers(model, model_price)
    if tiers is None:
        return None
    from genai_prices import __version__ as release  # noqa: PLC0415 (imported already, with the list)

    version = f"genai-prices {release} {_list_of(provider)}/{listed.id}{when}{_ROUNDED if rounded else ''}"
    return Price(version, tiers, text_only=any(getattr(model_price, key) is not None for key in _AUDIO))


def price_changes_at(provider: Provider, model: str, now: datetime) -> datetime | None:
    """When the listed price of `model` may next differ from its price at `now` (UTC); None where it is fixed."""
    listed = _listed(provider, model)
    if listed is None:
        return None
    now = _utc(now)
    return min((moment for entry in _entries(listed) for moment in _edges(entry, now)), default=None)


def load_list() -> None:
    """Load genai-prices now, from any thread, so that the first price asked for need not wait for it."""
    import genai_prices.data  # noqa: F401, PLC0415 (a quarter of a second)


def load_prices_toml(path: Path) -> dict[str, PriceConfig]:
    """Read a file of `[prices."provider/model"]` tables and nothing else; ConfigError names what is wrong."""
    return load_price_file(path)


# --- From the configuration ------------------------------------------------------------------------------------------


def _configured(price: PriceConfig) -> Price:
    numbers = (price.input, price.output, price.cached_input)
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


def _listed(provider: Provider, model: str) -> ModelInfo | None:
    name = _list_of(provider)
    if not name:
        return None
    from genai_prices.data import providers  # noqa: PLC0415 (a quarter of a second, and only where a price is asked for)

    for supplier in providers:
        if supplier.id == name:
            # Without `all_providers` it does not fall back to the lists of other providers.
            return supplier.find_model(model)
    return None


def _entries(listed: ModelInfo) -> list[ConditionalPrice]:
    return listed.prices if isinstance(listed.prices, list) else []


def _in_force(listed: ModelInfo, now: datetime) -> tuple[ModelPrice, str]:
    """The price at `now`, and the words that tell it from the same model's prices at other times."""
    entries = _entries(listed)
    if not entries:
        return cast("ModelPrice", listed.prices), ""
    # As in genai-prices: the last whose condition holds, else the first.
    chosen = next((entry for entry in reversed(entries) if _active(entry, now)), entries[0])
    since = _since(chosen)
    daily = [entry for entry in entries if _window(entry)]
    if _window(chosen):
        return chosen.prices, f" {_window(chosen)}"
    if daily:
        since += f" outside {', '.join(map(_window, daily))}"
    return chosen.prices, since


def _active(entry: ConditionalPrice, now: datetime) -> bool:
    return entry.constraint is None or entry.constraint.active(now)


def _since(entry: ConditionalPrice) -> str:
    start = getattr(entry.constraint, "start_date", None)
    return "" if start is None else f" from {start.isoformat()}"


def _window(entry: ConditionalPrice) -> str:
    """The hours of a price that holds for some only, as "01:00-04:00Z"; else ""."""
    start, end = getattr(entry.constraint, "start_time", None), getattr(entry.constraint, "end_time", None)
    return "" if start is None or end is None else f"{start:%H:%M}-{end:%H:%M}Z"


def _edges(entry: ConditionalPrice, now: datetime) -> Iterator[datetime]:
    """The next moments after `now` at which this entry begins or ends to hold."""
    day = getattr(entry.constraint, "start_date", None)
    if day is not None:
        moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if moment > now:
            yield moment
    for name in ("start_time", "end_time"):
        time = getattr(entry.constraint, name, None)
        if time is not None:
            moment = datetime.combine(now.date(), time, tzinfo=time.tzinfo or UTC)
            yield now + ((moment - now) % _DAY or _DAY)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _tiers(model: str, price: ModelPrice) -> tuple[tuple[tuple[int, Rates], ...] | None, bool]:
    """Compile one price of the list, and whether a number was rounded; None where it is no whole price of chat."""
    prices: dict[str, Decimal | TieredPrices] = {key: value for key, value in vars(price).items() if value is not None}
    if not prices:
        # An empty price is "free" in this list, but also "not known yet". Only a model named ":free" says which.
        return (((0, Rates(input=0, output=0)),) if model.endswith(":free") else None), False
    if not {"input_mtok", "output_mtok"} <= prices.keys() or prices.keys() - _EXPRESSED.keys() - _OPTIONAL - _AUDIO:
        return None, False
    starts = {0}
    for value in prices.values():
        starts.update(tier.start for tier in getattr(value, "tiers", ()))
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


def _above(value: Decimal | TieredPrices, tokens: int) -> Decimal:
    """The price for requests with more input tokens than `tokens`, up to the next tier."""
    if isinstance(value, Decimal):
        return value
    return next((tier.price for tier in reversed(value.tiers) if tier.start <= tokens), value.base)
