"""LiteLLM's logs: its StandardLoggingPayload (docs, "logging spec", 2025) and rows of LiteLLM_SpendLogs, as JSON lines.

A cost of 0 is known only of an answer from LiteLLM's cache: it also writes 0 where it knows no price.
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
    unpacked,
    usage_of,
)


def read(line: bytes) -> Iterator[Exchange]:
    """Read a line; ValueError says what it lacks."""
    for said in objects(line):
        yield _exchange(said)


def _exchange(said: dict[str, Any]) -> Exchange:
    name = text(first(said, "request_id", "id"))
    named = text(said.get("model"))
    start = seconds(said.get("startTime"))
    if name is None or named is None or start is None or "call_type" not in said:
        raise ValueError("no log of LiteLLM: it has `call_type`, `model`, `startTime`, and `id` or `request_id`")
    provider = text(said.get("custom_llm_provider"))
    if provider is None:
        provider, _, named = named.partition("/") if "/" in named else ("unknown", "", named)
    model = named.removeprefix(f"{provider}/")
    metadata = unpacked(said.get("metadata"))
    metadata = metadata if isinstance(metadata, dict) else {}
    failed = first(said, "status") == "failure" or metadata.get("status") == "failure"
    fault = first(said, "error_information") or metadata.get("error_information")
    fault = fault if isinstance(fault, dict) else {}
    code = str(first(fault, "error_code") or "")
    hit = said.get("cache_hit") in (True, "True", "true")
    detail = metadata.get("usage_object")
    detail = detail if isinstance(detail, dict) else {}
    parts = (_part(detail, "prompt", "cached_tokens"), _part(detail, "completion", "reasoning_tokens"))
    parameters = said.get("model_parameters")
    stream = said.get("stream") is True or (isinstance(parameters, dict) and parameters.get("stream") is True)
    begun = seconds(said.get("completionStartTime")) if stream else None
    return Exchange(
        source=name.encode(),
        model=model,
        provider=provider,
        request=request_of(model, first(said, "messages", "proxy_server_request")),
        answer=None if failed else answer_of(model, said.get("response")),
        subject=text(said.get("end_user")),
        time=start,
        status=int(code) if failed and code.isdecimal() and 400 <= int(code) <= 599 else 500 if failed else 200,
        error=(text(fault.get("error_class")) or "bad_status")[:200] if failed else None,
        stream=stream,
        usage=None
        if failed
        else usage_of(said.get("prompt_tokens"), said.get("completion_tokens"), parts[0], 0, parts[1]),
        cost=0 if hit else picodollars(first(said, "response_cost", "spend")),
        first_byte_s=between(start, begun),
        duration_s=between(start, seconds(said.get("endTime"))),
    )


def _part(usage: dict[str, Any], side: str, name: str) -> int:
    details = usage.get(f"{side}_tokens_details")
    count = details.get(name) if isinstance(details, dict) else None
    return count if type(count) is int else 0
