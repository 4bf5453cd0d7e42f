"""The gateway's metrics in the Prometheus text format, made when somebody scrapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.metrics import Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

METRICS = (  # name, type, help: the reference is generated from it
    ("upstack_requests_total", "counter", "Requests by route, task and how they ended."),
    ("upstack_attempts_failed_total", "counter", "Attempts that failed, by route and failure."),
    ("upstack_tokens_total", "counter", "Tokens of served answers, by route and kind (input, output)."),
    ("upstack_cost_usd_total", "counter", "Known cost of all attempts in USD, by route that was served."),
    ("upstack_cost_unknown_total", "counter", "Requests whose cost is unknown, by route that was served."),
    ("upstack_request_seconds", "histogram", "Seconds from the request to the end of its answer."),
    ("upstack_first_byte_seconds", "histogram", "Seconds from the request to the provider's first byte."),
    ("upstack_target_resting", "gauge", "1 while a target rests after failures."),
    ("upstack_in_flight", "gauge", "Requests in flight."),
    ("upstack_ledger_queue_bytes", "gauge", "Bytes of receipts waiting to be durable."),
    ("upstack_receipts_dropped_total", "counter", "Receipts that could not be kept."),
    ("upstack_config_generation", "gauge", "Generation of the configuration in use; grows with every reload."),
    ("upstack_config_reloads_refused_total", "counter", "Reloads refused because the new file was broken."),
)


def exposition(gateway: Gateway) -> bytes:
    """Write all metrics in the Prometheus text format."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - only a scrape needs it

    registry = CollectorRegistry()
    registry.register(_Collector(gateway))
    return generate_latest(registry)


class _Collector:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import (  # noqa: PLC0415 - only a scrape needs it
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        gateway, metrics = self._gateway, self._gateway.metrics
        helps = {name: text for name, _, text in METRICS}

        def counter(name: str, labels: list[str], rows: Mapping[Any, float]) -> Metric:
            family = CounterMetricFamily(name.removesuffix("_total"), helps[name], labels=labels)
            for values, value in rows.items():
                family.add_metric(values, value)
            return family

        def gauge(name: str, value: float) -> Metric:
            return GaugeMetricFamily(name, helps[name], value=value)

        def histogram(name: str, found: Histogram) -> Metric:
            return HistogramMetricFamily(name, helps[name], buckets=found.cumulative(), sum_value=found.total)

        requests: Counter[tuple[str, str, str]] = Counter()
        tokens: Counter[tuple[str, str]] = Counter()
        usd: Counter[tuple[str]] = Counter()
        unknown: Counter[tuple[str]] = Counter()
        for (route, task, state), row in metrics.rows.items():
            name = route or ""
            requests[name, task or "", state] += row.count
            tokens[name, "input"] += row.input
            tokens[name, "output"] += row.output
            usd[name,] += row.cost
            unknown[name,] += row.unknown
        yield counter("upstack_requests_total", ["route", "task", "state"], requests)
        yield counter("upstack_attempts_failed_total", ["route", "failure"], metrics.failures)
        yield counter("upstack_tokens_total", ["route", "kind"], tokens)
        yield counter("upstack_cost_usd_total", ["route"], {key: cost / 1e12 for key, cost in usd.items()})
        yield counter("upstack_cost_unknown_total", ["route"], unknown)
        yield histogram("upstack_request_seconds", metrics.duration)
        yield histogram("upstack_first_byte_seconds", metrics.first_byte)
        resting = GaugeMetricFamily("upstack_target_resting", helps["upstack_target_resting"], labels=["target"])
        now = gateway.clock.monotonic()
        for key, until in gateway.health.resting.items():
            resting.add_metric([key], float(until > now))
        yield resting
        yield gauge("upstack_in_flight", len(gateway.live))
        yield gauge("upstack_ledger_queue_bytes", gateway.ledger.queue_bytes)
        yield counter("upstack_receipts_dropped_total", [], {(): float(gateway.ledger.dropped)})
        yield gauge("upstack_config_generation", gateway.state.generation)
        yield counter("upstack_config_reloads_refused_total", [], {(): float(metrics.reloads_refused)})
