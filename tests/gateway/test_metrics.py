"""Metrics stay bounded whatever callers name, and are written so that Prometheus reads them back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.serving import Serving, chat, make_gateway, provider
from upstack.application.gateway.exposition import METRICS, exposition
from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.metrics import BUCKETS, LABELS, OTHER, Metrics
from upstack.application.gateway.state import build_state
from upstack.core.config import Config
from upstack.core.store.client import LedgerClient
from upstack.core.types import Attempt, Receipt
from upstack.testing import EchoProvider, Fault, FlakyProvider

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def ended(route: str) -> Receipt:
    """The receipt of a request that failed on a route."""
    attempt = Attempt(route, "p", "m", "v", 0, 500, "bad_status", 0.0, None, 0.1)
    return Receipt(
        id="r",
        created_at=0.0,
        state="failed",
        model=route,
        task=None,
        strategy="fallback",
        plan="a",
        why="",
        route=route,
        stream=False,
        status=502,
        error="bad_status",
        first_byte_s=None,
        duration_s=0.1,
        usage=None,
        cost_picodollars=None,
        attempts=(attempt,),
        capture="none",
    )


def test_routes_beyond_the_limit_share_one_label() -> None:
    """Callers can make up any number of routes: those after the first many are counted together, the first apart."""
    metrics = Metrics()
    for number in range(LABELS + 50):
        metrics.note(ended(f"p/{number}"))
    metrics.note(ended("p/0"))
    assert metrics.failures["p/0", "bad_status"] == 2
    assert metrics.failures[OTHER, "bad_status"] == 50
    assert len(metrics.failures) == LABELS + 1
    assert metrics.rows["p/0", None, "failed"].count == 2
    assert metrics.rows[OTHER, None, "failed"].count == 50


def parsed(text: str) -> list[Metric]:
    """What a reader of the format makes of it."""
    return list(text_string_to_metric_families(text))


def samples(families: list[Metric]) -> Samples:
    """Every sample by its name and labels."""
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def row(name: str, value: float, **labels: str) -> Samples:
    """One sample; its name without the prefix."""
    return {(f"upstack_{name}", frozenset(labels.items())): value}


def test_everything_a_gateway_exposes_is_read_back(tmp_path: Path) -> None:
    """Each metric with its type, help and values; a route that a caller named may hold quotes and backslashes."""
    odd = r'a/q"uo\te{,}='
    with EchoProvider() as echo, FlakyProvider(Fault.STATUS_401) as shut:
        config = provider("a", echo.base_url) + provider("shut", shut.base_url)
        config += '[tasks.t]\ncandidates = ["shut/m", "a/m"]\n[prices."a/m"]\ninput = 1.5\noutput = 2\n'
        with Serving(tmp_path, config) as serving:
            answers = [serving.post(chat(model)) for model in (odd, odd, "task/t")]
            scrape = serving.get("/metrics")
    assert [answer.status_code for answer in answers] == [200] * 3
    assert scrape.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = parsed(scrape.text)
    found = {family.name: (family.type, family.documentation) for family in families}
    assert found == {name.removesuffix("_total"): (kind, text) for name, kind, text in METRICS}

    used: list[dict[str, Any]] = [answer.json()["usage"] for answer in answers]
    cost = used[2]["prompt_tokens"] * 1.5e-6 + used[2]["completion_tokens"] * 2e-6
    expected = row("requests_total", 2, route=odd, task="", state="answered")
    expected |= row("requests_total", 1, route="a/m", task="t", state="answered")
    expected |= row("attempts_failed_total", 1, route="shut/m", failure="provider_auth")
    expected |= row("tokens_total", 2 * used[0]["prompt_tokens"], route=odd, kind="input")
    expected |= row("tokens_total", 2 * used[0]["completion_tokens"], route=odd, kind="output")
    expected |= row("tokens_total", used[2]["prompt_tokens"], route="a/m", kind="input")
    expected |= row("tokens_total", used[2]["completion_tokens"], route="a/m", kind="output")
    expected |= row("cost_usd_total", 0, route=odd) | row("cost_usd_total", round(cost, 12), route="a/m")
    expected |= row("cost_unknown_total", 2, route=odd) | row("cost_unknown_total", 0, route="a/m")
    expected |= row("target_resting", 1, target="shut/m") | row("in_flight", 0) | row("ledger_queue_bytes", 0)
    expected |= row("receipts_dropped_total", 0) | row("config_generation", 1) | row("config_reloads_refused_total", 0)
    assert {key: value for key, value in samples(families).items() if "_seconds" not in key[0]} == expected


def test_seconds_are_counted_up_to_each_bound(tmp_path: Path) -> None:
    """A value on a bound lies in its bucket; the last bucket, the count and the sum hold all."""
    seconds = (0.001, 0.005, 0.7, 3.25, 500.0)

    async def run() -> str:
        gateway = idle(tmp_path)
        for value in seconds:
            gateway.metrics.duration.note(value)
        return exposition(gateway).decode()

    found = samples(parsed(asyncio.run(run())))
    for bound in (*BUCKETS, float("inf")):
        label = "+Inf" if bound == float("inf") else str(bound)
        below = sum(each <= bound for each in seconds)
        assert found["upstack_request_seconds_bucket", frozenset({("le", label)})] == below
        assert found["upstack_first_byte_seconds_bucket", frozenset({("le", label)})] == 0
    assert found["upstack_request_seconds_count", frozenset()] == 5
    assert found["upstack_request_seconds_sum", frozenset()] == sum(seconds)


def test_labels_of_any_text_are_read_back(tmp_path: Path) -> None:
    """Line breaks, quotes, backslashes in any order and other scripts come out as they went in."""
    hostile = [
        "",
        "a\nb",
        '"',
        "\\",
        "\\n",
        "\\\n",
        '\\"',
        "\\\\",
        '} 1\nupstack_in_flight 9\n#{x="',
        "Прицел,日本 🚂",
        "\r\t",
        " x ",
    ]

    async def run() -> str:
        gateway = idle(tmp_path)
        for route in hostile:
            gateway.metrics.note(ended(route))
        return exposition(gateway).decode()

    found = samples(parsed(asyncio.run(run())))
    for route in hostile:
        assert found["upstack_attempts_failed_total", frozenset({("route", route), ("failure", "bad_status")})] == 1
        labels = {("route", route), ("task", ""), ("state", "failed")}
        assert found["upstack_requests_total", frozenset(labels)] == 1
    assert found["upstack_in_flight", frozenset()] == 0


def idle(folder: Path) -> Gateway:
    """A gateway that nobody asks."""
    config = Config()
    ledger = LedgerClient(folder / "upstack.db")
    state = build_state(config, {}, 1)
    return make_gateway(config, state, ledger)
