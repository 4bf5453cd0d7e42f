"""The gateway's metrics in the Prometheus text format, written when somebody scrapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.metrics import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
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


_LARGEST = frozenset({"upstack_target_resting", "upstack_config_generation"})  # the same in every worker
_LONGEST_FIRST = sorted((name for name, _, _ in METRICS), key=len, reverse=True)
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})  # in the value of a label


def exposition(gateway: Gateway) -> bytes:
    """Write all metrics."""
    samples = _samples(gateway)
    lines: list[str] = []
    for name, kind, text in METRICS:
        lines += (f"# HELP {name} {text}", f"# TYPE {name} {kind}")
        lines += (f"{name}{sample}" for sample in samples[name])
    return "\n".join([*lines, ""]).encode()


def add_up(pages: Iterable[bytes], *, counters_alone: bool = False) -> bytes:
    """Make one page of several: counters and amounts are added, of the other gauges the largest counts."""
    kinds = {name: kind for name, kind, _ in METRICS}
    found: dict[str, dict[str, float]] = {name: {} for name in kinds}
    for page in pages:
        for line in page.decode().splitlines():
            if line.startswith("#"):
                continue
            sample, _, text = line.rpartition(" ")
            name = next(name for name in _LONGEST_FIRST if sample.startswith(name))
            if counters_alone and kinds[name] == "gauge":
                continue
            rows, number = found[name], float(text)
            rows[sample] = max(rows.get(sample, 0.0), number) if name in _LARGEST else rows.get(sample, 0.0) + number
    lines: list[str] = []
    for name, kind, text in METRICS:
        lines += (f"# HELP {name} {text}", f"# TYPE {name} {kind}")
        lines += (f"{sample}{_value(number)}" for sample, number in found[name].items())
    return "\n".join([*lines, ""]).encode()


def _samples(gateway: Gateway) -> dict[str, Iterable[str]]:
    """Each metric's lines without its name."""
    metrics = gateway.metrics
    requests, tokens, usd, unknown = (Counter[tuple[str, ...]]() for _ in range(4))
    for (route, task, state), row in metrics.rows.items():
        name = route or ""
        requests[name, state, task or ""] += row.count
        tokens["input", name] += row.input
        tokens["output", name] += row.output
        usd[name,] += row.cost
        unknown[name,] += row.unknown
    failures = {(failure, route): count for (route, failure), count in metrics.failures.items()}
    now = gateway.clock.monotonic()
    resting = {(key,): until > now for key, until in gateway.health.resting.items()}
    return {
        "upstack_requests_total": _labelled("route state task", requests),
        "upstack_attempts_failed_total": _labelled("failure route", failures),
        "upstack_tokens_total": _labelled("kind route", tokens),
        "upstack_cost_usd_total": _labelled("route", {key: cost / 1e12 for key, cost in usd.items()}),
        "upstack_cost_unknown_total": _labelled("route", unknown),
        "upstack_request_seconds": _histogram(metrics.duration),
        "upstack_first_byte_seconds": _histogram(metrics.first_byte),
        "upstack_target_resting": _labelled("target", resting),
        "upstack_in_flight": [_value(len(gateway.live))],
        "upstack_ledger_queue_bytes": [_value(gateway.ledger.queue_bytes)],
        "upstack_receipts_dropped_total": [_value(gateway.ledger.dropped)],
        "upstack_config_generation": [_value(gateway.state.generation)],
        "upstack_config_reloads_refused_total": [_value(metrics.reloads_refused)],
    }


def _labelled(names: str, rows: Mapping[Any, float]) -> Iterator[str]:
    """One sample for each row, whose key holds the labels' values in the order of `names`."""
    for key, number in rows.items():
        pairs = zip(names.split(), key, strict=True)
        labels = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs)
        yield f"{{{labels}}}{_value(number)}"


def _histogram(found: Histogram) -> Iterator[str]:
    buckets = found.cumulative()
    yield from (f'_bucket{{le="{bound}"}}{_value(count)}' for bound, count in buckets)
    yield f"_count{_value(buckets[-1][1])}"
    yield f"_sum{_value(found.total)}"


def _value(number: float) -> str:
    return f" {float(number)!r}"
