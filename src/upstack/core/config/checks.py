"""What the types of the tables do not say: ranges, and what must go together."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from upstack.core.config.tables import (
    CERTIFIED_RANGES,
    HASH,
    LOOP_RANGES,
    MOST_DAYS,
    MOST_USD,
    NAME,
    RANGES,
    UNCERTIFIED,
    Config,
    PriceConfig,
    ServerConfig,
    TaskConfig,
)
from upstack.core.errors import ConfigError


def check(config: Config, source: str) -> None:
    """Raise ConfigError over what does not hold together; `source` is where it stands."""
    for table in ("providers", "routes", "tasks", "keys", "teams"):
        for name in getattr(config, table):
            if not re.fullmatch(NAME, name):
                raise ConfigError(f"{source}: {table}.{name}: a name has letters, digits and . _ : - only")
    for name, route in config.routes.items():
        if "/" not in route.model:
            raise ConfigError(f'{source}: routes.{name}.model: expected "provider/model", got "{route.model}"')
    if "task" in config.providers:
        raise ConfigError(f"{source}: providers.task: task/NAME asks for a task; name the provider otherwise")
    for name, task in config.tasks.items():
        if not task.candidates and task.reference is None:
            raise ConfigError(f"{source}: tasks.{name}: name a reference, or candidates in fallback order")
        _check_task(task, config.server, f"{source}: tasks.{name}")
    for name, (low, high) in LOOP_RANGES.items():
        if not low <= getattr(config.loop, name) <= high:
            raise ConfigError(f"{source}: loop.{name}: lies in {low:,} to {high:,}")
    check_prices(config.prices, source)
    _check_keys(config, source)
    _check_limits(config, source)
    for name in RANGES:
        check_range(name, getattr(config.server, name), f"{source}: server.{name}")


def _check_task(task: TaskConfig, server: ServerConfig, where: str) -> None:
    for field, value in (("max_loss", task.max_loss), ("confidence", task.confidence)):
        if not 0 < value < 1:
            raise ConfigError(f"{where}.{field}: lies between 0 and 1")
    for field, weight in task.fields.items():
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"{where}.fields.{field}: a weight is 0 or more")
    if len(set(task.candidates)) < len(task.candidates):
        raise ConfigError(f"{where}.candidates: names one of them twice")
    if task.strategy not in UNCERTIFIED:
        _check_certified(task, server, where)


def _check_certified(task: TaskConfig, server: ServerConfig, where: str) -> None:
    """Check what a task needs whose answers are to be proved good enough."""
    strategy = f'strategy = "{task.strategy}"'
    for field, missing in (
        ("reference", task.reference is None),
        ("candidates", not set(task.candidates) - {task.reference}),
        ("grader", task.grader is None),
    ):
        if missing:
            hint = '; "first" asks the first candidate alone' if task.strategy == "single" else ""
            raise ConfigError(f"{where}.{field}: {strategy} needs it, to prove plans against the reference{hint}")
    if server.receipts == "off" or (task.capture or server.capture) != "full":
        raise ConfigError(f'{where}: {strategy} compares answers: it needs receipts, and capture = "full"')
    for name, (low, high) in CERTIFIED_RANGES.items():
        value = getattr(task, name)
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{where}.{name}: lies in {low:,} to {high:,}")
    if task.judge is not None and task.judge in (task.reference, *task.candidates):
        raise ConfigError(f"{where}.judge: one of the routes that it would judge")
    if task.revoke_loss is not None and not task.max_loss < task.revoke_loss:
        raise ConfigError(f"{where}.revoke_loss: lies above max_loss")


def check_prices(prices: dict[str, PriceConfig], source: str) -> None:
    """Raise ConfigError over a price that is none."""
    for name, price in prices.items():
        if any(value is not None and not 0 <= value < 1e6 for value in msgspec.structs.astuple(price)):
            raise ConfigError(f"{source}: prices.{name}: USD per million tokens or per hour lie in 0 to 1,000,000")
        tokens = (price.input, price.output, price.cached_input)
        if (price.usd_per_hour is None and None in tokens[:2]) or (
            price.usd_per_hour is not None and tokens != (None, None, None)
        ):
            raise ConfigError(f"{source}: prices.{name}: give input and output, or usd_per_hour alone")


def _check_keys(config: Config, source: str) -> None:
    seen: dict[str, str] = {}
    for name, key in config.keys.items():
        where = f"{source}: keys.{name}"
        for field, digest in (("hash", key.hash), ("old_hash", key.old_hash)):
            if digest is None:
                continue
            if not re.fullmatch(HASH, digest):  # what stands there may be the key itself, and is not shown
                raise ConfigError(
                    f'{where}.{field}: expected "sha256:" and 64 hexadecimal digits, of `upstack keys new`'
                )
            if digest in seen:
                raise ConfigError(f"{where}.{field}: the same as that of keys.{seen[digest]}")
            seen[digest] = name
        if (key.old_hash is None) != (key.old_until is None):
            raise ConfigError(f"{where}: old_hash and old_until come together")
        for field, moment in (("expires", key.expires), ("old_until", key.old_until)):
            if moment is not None and moment.tzinfo is None:
                raise ConfigError(f"{where}.{field}: say of which time zone, such as 2027-01-31T00:00:00Z")
        for task in key.tasks:
            if task not in config.tasks:
                raise ConfigError(f'{where}.tasks: there is no task "{task}"')


def _check_limits(config: Config, source: str) -> None:
    for table in ("keys", "teams", "tasks"):
        for name, row in getattr(config, table).items():
            where = f"{source}: {table}.{name}"
            amounts = dict(zip(("day", "month", "total"), msgspec.structs.astuple(row.budget_usd), strict=True))
            if table == "tasks":
                amounts["value_usd"] = row.value_usd
                beside = zip(("day", "month", "total"), msgspec.structs.astuple(row.shadow_budget_usd), strict=True)
                amounts |= {f"shadow_budget_usd.{field}": amount for field, amount in beside}
            for field, amount in amounts.items():
                if amount is not None and not 0 <= amount <= MOST_USD:
                    key = field if field.startswith(("value", "shadow")) else f"budget_usd.{field}"
                    raise ConfigError(f"{where}.{key}: USD lie in 0 to {MOST_USD:,}")
            if table == "tasks" and not 0 <= row.maturity_days <= MOST_DAYS:
                raise ConfigError(f"{where}.maturity_days: lies in 0 to {MOST_DAYS:,}")
            for field, limit in msgspec.structs.asdict(row.rate).items():
                if limit is not None and not 0 <= limit <= 10**9:
                    raise ConfigError(f"{where}.rate.{field}: lies in 0 to 1,000,000,000")
    for name, route in config.routes.items():
        if route.max_output_tokens is not None and not 1 <= route.max_output_tokens <= 10**7:
            raise ConfigError(f"{source}: routes.{name}.max_output_tokens: lies in 1 to 10,000,000")


def check_range(name: str, value: Any, where: str) -> None:
    """Raise ConfigError where a number of `[server]` is out of its range."""
    if name in RANGES:
        low, high = RANGES[name]
        if not low <= value <= high:  # NaN is in no range
            raise ConfigError(f"{where}: lies in {low:,} to {high:,}")
