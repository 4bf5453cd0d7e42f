"""What the demo will send, and to whom: recorded traffic from a file, or simulated traffic of Upstack's own making."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from upstack.application.data.generate import (
    SIMULATED_LARGE,
    SIMULATED_PRICES,
    SIMULATED_SMALL,
    SIMULATED_TASK,
    generate_traffic,
)
from upstack.application.data.recorded import prices_beside, prices_of
from upstack.application.demo.roles import Roles, choose_roles
from upstack.core.config import PriceConfig
from upstack.core.errors import ConfigError
from upstack.core.traffic import TrafficRow, read_traffic
from upstack.core.types import Price
from upstack.foundation.prices import list_version, load_prices_toml

TASK = "demo"
SIMULATED_REQUESTS = 300
MOST_REQUESTS = 2000  # of a file, unless another number is asked for
# The simulated models, each at a provider of its own.
SIMULATED_PLACES = {SIMULATED_LARGE: "simulated-a/large", SIMULATED_SMALL: "simulated-b/small"}


class Wanted(msgspec.Struct, frozen=True):
    """What the command line was given."""

    traffic: Path | None
    prices: Path | None
    reference: str | None
    candidate: str | None
    requests: int | None
    port: int
    ledger: Path | None


class Scenario(msgspec.Struct, frozen=True):
    """The rows to send and all that is known of them. Every row has an answer of both routes."""

    source: str  # in words
    file: Path | None  # what the rows were read from; None: made here, and simulated
    rows: list[TrafficRow]
    usable: int  # rows that could have been sent
    skipped: int  # rows without an answer of both
    roles: Roles
    prices: Mapping[str, Price | None]  # of the two routes
    price_source: str  # where the prices come from, in words
    choice: str  # how the two were found, in words
    price_file: Path | None
    price_table: Mapping[str, PriceConfig]  # for the configuration, where no file holds them

    @property
    def simulated(self) -> bool:
        """Whether no model ever gave these answers: the rows are of Upstack's own making."""
        return all(row.task == SIMULATED_TASK for row in self.rows)

    @property
    def silent(self) -> int:
        """How many answers of the two routes have no content."""
        names = (self.roles.reference, self.roles.candidate)
        return sum(not row.answers[name].content for row in self.rows for name in names)

    @property
    def whole(self) -> bool:
        """Whether every row of the file is sent."""
        return self.skipped == 0 and len(self.rows) == self.usable


def prepare(wanted: Wanted) -> Scenario:
    """Read or make the traffic and choose the roles. Raises ConfigError."""
    if wanted.traffic is not None:
        return _recorded(wanted, wanted.traffic)
    if wanted.prices is not None:
        raise ConfigError("--prices goes with --traffic; the simulated models have made-up prices of their own")
    table = {SIMULATED_PLACES[name]: price for name, price in SIMULATED_PRICES.items()}
    rows = [
        replace(row, answers={SIMULATED_PLACES[name]: answer for name, answer in row.answers.items()})
        for row in generate_traffic(wanted.requests or SIMULATED_REQUESTS)
    ]
    prices = prices_of(table, table)
    roles = choose_roles(prices, wanted.reference, wanted.candidate)
    choice = _choice(wanted, prices)
    return Scenario("simulated traffic", None, rows, len(rows), 0, roles, prices, "made up", choice, None, table)


def configuration(scenario: Scenario, base_urls: Mapping[str, str]) -> str:
    """Write the gateway's TOML: the task, and the providers at `base_urls` with their prices."""
    roles = scenario.roles
    lines = [f"[tasks.{TASK}]", 'strategy = "fallback"', f"candidates = [{_text(roles.candidate)}]"]
    lines.append(f"reference = {_text(roles.reference)}")
    for name, url in base_urls.items():
        lines += ["", f"[providers.{name}]", f"base_url = {_text(url)}", 'auth = "none"']
    for name, price in scenario.price_table.items():
        lines += ["", f"[prices.{_text(name)}]", f"input = {price.input}", f"output = {price.output}"]
    return "\n".join(lines) + "\n"


def _recorded(wanted: Wanted, path: Path) -> Scenario:
    price_file = wanted.prices or prices_beside(path)
    table = {} if price_file is None else load_prices_toml(price_file)
    # The file is read twice and never held: it may be far larger than what is sent.
    kinds = Counter(frozenset(row.answers) for row in read_traffic(path) if row.answers)
    names = sorted(frozenset[str]().union(*kinds))
    if not names:
        raise ConfigError(f"{path} holds no recorded answers, so there is nothing to replay")
    prices = prices_of(names, table)
    roles = choose_roles(prices, wanted.reference, wanted.candidate)
    both = {roles.reference, roles.candidate}
    usable = sum(count for kind, count in kinds.items() if both <= kind)
    if not usable:
        raise ConfigError(
            f"{path}: no row has answers of both {roles.candidate} and {roles.reference}; name --candidate, --reference"
        )
    limit = min(usable, wanted.requests or MOST_REQUESTS)
    usable_rows = (row for row in read_traffic(path) if both <= row.answers.keys())
    rows = list(_spread(usable_rows, usable, limit))
    chosen = {name: prices[name] for name in both}
    choice = _choice(wanted, prices)
    source = f"recorded traffic, {path.name}"
    priced = _price_source([name for name in both if prices[name] is not None], table, price_file)
    return Scenario(source, path, rows, usable, kinds.total() - usable, roles, chosen, priced, choice, price_file, {})


def _price_source(priced: Iterable[str], table: Mapping[str, PriceConfig], file: Path | None) -> str:
    found = {file.name if file is not None and name in table else list_version() for name in priced}
    return " and ".join(sorted(found)) or "none known"


def _choice(wanted: Wanted, prices: Mapping[str, Price | None]) -> str:
    known = sum(price is not None for price in prices.values())
    of = f"{known} routes" if known == len(prices) else f"{known} routes with a known price ({len(prices)} in all)"
    if wanted.candidate and wanted.reference:
        return "both as named"
    if wanted.candidate or wanted.reference:
        return f"one as named, the other the {'dearest' if wanted.candidate else 'cheapest'} of {of}"
    return f"cheapest and dearest of {of}, by price alone"


def _spread(rows: Iterator[TrafficRow], usable: int, limit: int) -> Iterator[TrafficRow]:
    """Take `limit` of `usable` rows at even distances: files are often in order of subject."""
    for number, row in enumerate(rows):
        if number * limit // usable != (number - 1) * limit // usable:
            yield row


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
