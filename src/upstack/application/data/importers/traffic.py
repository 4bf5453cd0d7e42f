"""The project's own recorded traffic (`core/traffic.py`): a receipt for each model's answer to a row."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from upstack.application.data.importers.exchange import Exchange, completion
from upstack.core.traffic import TrafficRow
from upstack.core.types import Usage

_decode = msgspec.json.Decoder(TrafficRow).decode


def read(line: bytes) -> Iterator[Exchange]:
    """Read a row; ValueError where it is none. An answer of which only the loss is known has no content.

    A row without answers and with a truth is a request that nobody was asked: something to learn from.
    """
    row = _decode(line)
    if not row.answers and row.truth is not None:
        yield Exchange(
            source=msgspec.json.encode((row.id, row.task, row.messages, row.truth)),
            model="",
            provider="",
            request=msgspec.json.encode({"model": row.task, "messages": row.messages}),
            task=row.task,
            subject=row.subject,
            time=row.time,
            truth=row.truth,
            rights=row.rights,
        )
    for route, answer in row.answers.items():
        provider, _, model = route.partition("/")
        usage = Usage(answer.input_tokens, answer.output_tokens)
        request = {"model": route, "messages": row.messages}
        if row.tools:
            request["tools"] = row.tools
        body = msgspec.json.encode(request)
        yield Exchange(
            source=msgspec.json.encode((row.id, row.task, route, row.time, row.messages, answer)),
            model=model,
            provider=provider,
            request=body,
            answer=completion(model, answer.content, answer.finish_reason, usage) if answer.content else None,
            task=row.task,
            subject=row.subject,
            time=row.time,
            usage=usage,
            duration_s=answer.latency_s,
            truth=row.truth,
            rights=row.rights,
            score=None if answer.loss is None else 1 - answer.loss,
        )
