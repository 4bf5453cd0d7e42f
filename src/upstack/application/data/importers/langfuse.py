"""Langfuse's observations, as its export and its public API (v1, ObservationsView) write them: JSON lines.

A line may also be a trace with its `observations`, or a page of the API (`data`). Only generations are requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from upstack.application.data.importers.exchange import Exchange, picodollars
from upstack.application.data.importers.reading import (
    answer_of,
    between,
    first,
    objects,
    request_of,
    seconds,
    text,
    usage_of,
)

_KINDS = {"GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL"}


def read(line: bytes) -> Iterator[Exchange]:
    """Read a line; ValueError says what it lacks. What is no generation is passed over."""
    for outer in objects(line):
        for said in _observations(outer):
            if not isinstance(said, dict) or said.get("type") not in _KINDS:
                raise ValueError("no observation of Langfuse: it has a `type` such as GENERATION")
            if said["type"] == "GENERATION":
                yield _exchange(said, text(outer.get("userId")))


def _observations(said: dict[str, Any]) -> list[Any]:
    for name in ("observations", "data"):
        inner = said.get(name)
        if isinstance(inner, list):
            return inner
    return [said]


def _exchange(said: dict[str, Any], subject: str | None) -> Exchange:
    name, named = text(said.get("id")), text(first(said, "model", "providedModelName"))
    start = seconds(said.get("startTime"))
    if name is None or start is None:
        raise ValueError("a generation without `id` or `startTime`")
    provider, _, model = named.partition("/") if named and "/" in named else ("unknown", "", named or "unknown")
    failed = said.get("level") == "ERROR"
    details, old = said.get("usageDetails"), said.get("usage")
    tokens = details if isinstance(details, dict) and details else old if isinstance(old, dict) else {}
    costs = said.get("costDetails")
    cost = costs.get("total") if isinstance(costs, dict) else None
    begun = seconds(said.get("completionStartTime"))
    return Exchange(
        source=name.encode(),
        model=model,
        provider=provider,
        request=request_of(model, said.get("input")),
        answer=None if failed else answer_of(model, said.get("output")),
        subject=subject,
        time=start,
        status=500 if failed else 200,
        error="bad_status" if failed else None,
        stream=begun is not None,
        # Parts are counted beside `input`, each under a name that its sender chose: only the two sums are sure.
        usage=usage_of(first(tokens, "input", "promptTokens"), first(tokens, "output", "completionTokens")),
        cost=picodollars(first({"total": cost, **said}, "total", "totalCost", "calculatedTotalCost")),
        first_byte_s=between(start, begun),
        duration_s=between(start, seconds(said.get("endTime"))),
    )
