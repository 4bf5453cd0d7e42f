"""Spans of the GenAI semantic conventions (OpenTelemetry 1.36 and before, and 1.37 on) in OTLP's JSON, a batch a line.

That is what the collector's file exporter writes: {"resourceSpans": [{"scopeSpans": [{"spans": [...]}]}]}. Spans that
are no call of a model are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from upstack.application.data.importers.exchange import Exchange
from upstack.application.data.importers.reading import (
    answer_of,
    between,
    objects,
    request_of,
    seconds,
    text,
    unpacked,
    usage_of,
)
from upstack.application.data.importers.reading import first as first_of

_CALLS = {"chat", "text_completion", "generate_content", None}
_STATUS_ERROR = (2, "STATUS_CODE_ERROR")


def read(line: bytes) -> Iterator[Exchange]:
    """Read a batch; ValueError where it is none, or a span of it cannot be read."""
    for batch in objects(line):
        if not isinstance(batch.get("resourceSpans"), list):
            raise ValueError("no spans of OTLP in JSON: there is no `resourceSpans`")  # noqa: TRY004 - of the data
        for resource in _inner(batch, "resourceSpans"):
            for scope in _inner(resource, "scopeSpans"):
                for span in _inner(scope, "spans"):
                    said = {
                        each["key"]: _value(each.get("value")) for each in _inner(span, "attributes") if "key" in each
                    }
                    model = text(first_of(said, "gen_ai.response.model", "gen_ai.request.model"))
                    if model is not None and said.get("gen_ai.operation.name") in _CALLS:
                        yield _exchange(span, said, model)


def _inner(outer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    inner = outer.get(name) or []
    if not isinstance(inner, list) or not all(isinstance(each, dict) for each in inner):
        raise ValueError(f"`{name}` is no list of objects")
    return inner


def _exchange(span: dict[str, Any], said: dict[str, Any], model: str) -> Exchange:
    trace, name = text(span.get("traceId")), text(span.get("spanId"))
    start, end = (_nanoseconds(span.get(f"{each}TimeUnixNano")) for each in ("start", "end"))
    if trace is None or name is None or start is None:
        raise ValueError("a span without `traceId`, `spanId` or `startTimeUnixNano`")
    status = span.get("status")
    failed = isinstance(status, dict) and status.get("code") in _STATUS_ERROR
    return Exchange(
        source=f"{trace}/{name}".encode(),
        model=model,
        provider=text(first_of(said, "gen_ai.provider.name", "gen_ai.system")) or "unknown",
        request=request_of(model, _messages(first_of(said, "gen_ai.input.messages", "gen_ai.prompt"))),
        answer=None
        if failed
        else answer_of(model, _messages(first_of(said, "gen_ai.output.messages", "gen_ai.completion"))),
        time=start,
        status=500 if failed else 200,
        error=(text(said.get("error.type")) or "bad_status")[:200] if failed else None,
        usage=usage_of(
            first_of(said, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
            first_of(said, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        ),
        duration_s=between(start, end),
    )


def _messages(value: Any) -> Any:
    """Messages of parts as messages of a chat completion request; all else as it is."""
    found = unpacked(value)
    if not isinstance(found, list):
        return found
    return [
        _message(each) if isinstance(each, dict) and isinstance(each.get("parts"), list) else each for each in found
    ]


def _message(said: dict[str, Any]) -> dict[str, Any]:
    parts = [each for each in said["parts"] if isinstance(each, dict)]
    texts = [each["content"] for each in parts if each.get("type") == "text" and isinstance(each.get("content"), str)]
    if len(texts) == len(said["parts"]):
        return {"role": said.get("role", "user"), "content": "".join(texts)}
    return {"role": said.get("role", "user"), "content": said["parts"]}


def _value(value: Any) -> Any:
    """A value as OTLP wraps it; 64-bit integers are texts there."""
    if not isinstance(value, dict):
        return None
    if "intValue" in value:
        count = value["intValue"]
        return int(count) if isinstance(count, int) or (isinstance(count, str) and count.isdecimal()) else None
    for name in ("stringValue", "doubleValue", "boolValue"):
        if name in value:
            return value[name]
    if isinstance(value.get("arrayValue"), dict):
        return [_value(each) for each in _inner(value["arrayValue"], "values")]
    if isinstance(value.get("kvlistValue"), dict):
        return {each.get("key"): _value(each.get("value")) for each in _inner(value["kvlistValue"], "values")}
    return None


def _nanoseconds(value: object) -> float | None:
    if isinstance(value, str) and value.isdecimal() and len(value) <= 20:
        value = int(value)
    return seconds(value / 1e9) if type(value) is int else None
