"""Real recorded answers through keys, budgets and rates: what is booked equals a sum made apart, to the picodollar."""

from __future__ import annotations

import json
import threading
import tomllib
from collections import Counter
from decimal import Decimal
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from benchmarks.converters import zeroeval
from tests.cli.calling import call
from tests.gateway.serving import Serving
from tests.postgres import PostgresServer
from upstack.application.gateway.auth import new_key
from upstack.core.store.reading import spend_sums, spent_by
from upstack.core.store.verify import verify
from upstack.core.traffic import TrafficRow, read_traffic

ROUTES = ("openai/gpt-4o-2024-08-06", "openai/gpt-4o-mini-2024-07-18")
KEYS = {name: new_key() for name in ("one", "two")}
LIMITS = "budget_usd = { day = 100, total = 1000 }\nrate = { tokens_per_minute = 900000000, parallel_requests = 50 }\n"
TABLES = (
    "".join(f'[keys.{name}]\nhash = "{KEYS[name][1]}"\nteam = "t"\n{LIMITS}' for name in KEYS) + f"[teams.t]\n{LIMITS}"
)


def ask(port: int, jobs: list[tuple[str, str, TrafficRow]], costs: Counter[tuple[str, str]], prices: Any) -> None:
    """Ask one after the other, and add up apart what each answer costs by the recorded tokens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    for key, route, row in jobs:
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEYS[key][0]}"}
        body = json.dumps({"model": route, "messages": row.messages})
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        said, price = row.answers[route], prices[route]
        usd = Decimal(str(price["input"])) * said.input_tokens + Decimal(str(price["output"])) * said.output_tokens
        picodollars = usd * 10**6
        assert picodollars == int(picodollars)
        costs[key, route] += int(picodollars)
    connection.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_zeroeval_costs_the_same_sum_everywhere(
    data: Path, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """In the sums of spend by key and route, in what budgets count, and on the command line, on both databases."""
    if not (data / "zeroeval").is_dir():
        pytest.skip("UPSTACK_DATA holds no zeroeval")
    for _ in zeroeval.convert(data, tmp_path, None):
        pass
    traffic, listed = tmp_path / "zeroeval.jsonl.gz", tmp_path / "zeroeval.prices.toml"
    prices = tomllib.loads(listed.read_text())["prices"]
    server: PostgresServer | None = request.getfixturevalue("postgres") if kind == "postgres" else None
    place = str(tmp_path / "upstack.db") if server is None else server.new_ledger()
    rows = [row for row in read_traffic(traffic) if all(row.answers[route].content for route in ROUTES)]
    jobs = [(("one", "two")[number % 2], ROUTES[number % 3 == 0], row) for number, row in enumerate(rows)]
    sums: list[Counter[tuple[str, str]]] = [Counter() for _ in range(4)]
    flags = ("--ledger", place, "--replay", str(traffic), "--prices", str(listed), "--workers", "2")
    with Serving(tmp_path, TABLES, *flags) as serving:
        threads = [
            threading.Thread(target=ask, args=(serving.port, jobs[number::4], sums[number], prices))
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    wanted = sum(sums, Counter())
    assert len(jobs) > 1000
    booked = {(key, route): cost for key, route, _, _, _, _, cost, *_ in spend_sums(place, ("key", "route"))}
    assert booked == dict(wanted)
    used = spent_by(place, 4e9)
    assert {name: used[f"key/{name}"].total for name in KEYS} == {
        name: sum(cost for (key, _), cost in wanted.items() if key == name) for name in KEYS
    }
    assert used["team/t"].total == wanted.total()
    told = call("spend", "--by", "key", "--ledger", place, "--json", cwd=tmp_path).json
    assert sum(each["cost_picodollars"] for each in told["rows"]) == wanted.total()
    assert verify(place).found == 0
