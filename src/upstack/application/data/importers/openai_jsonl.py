"""What OpenAI's API writes a line each (API reference, chat completions and batches, 2025): request and response pairs.

A line is one of: a batch's output (`response.body`, with its request's `body` beside it where both were joined), a pair
(`request`, `response`), a stored completion (`choices`, its `messages` beside it), an example of chat fine-tuning
(`messages` that end with the assistant's, which is the right answer, of no known model).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from upstack.application.data.importers.exchange import Exchange, completion
from upstack.core.types import Usage
from upstack.inference.cost import read_usage

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def read(line: bytes) -> Iterator[Exchange]:
    """Read a line; ValueError says why it is no pair."""
    said = _decode(line)
    response = said.get("response")
    if isinstance(response, dict):
        status: Any = 200
        body: Any = response
        if "body" in response or "status_code" in response:
            status, body = response.get("status_code", 200), response.get("body")
        request = said.get("body", said.get("request"))
        yield _exchange(line, request if isinstance(request, dict) else None, body, status)
    elif isinstance(said.get("error"), dict) and "custom_id" in said:
        yield _exchange(line, said.get("body"), {"error": said["error"]}, 500)
    elif isinstance(said.get("choices"), list):
        messages = said.get("messages")
        request = {"model": said.get("model"), "messages": messages} if isinstance(messages, list) else None
        yield _exchange(line, request, said, 200)
    elif isinstance(said.get("messages"), list):
        yield _example(line, said)
    elif "body" in said and "custom_id" in said:
        raise ValueError("a batch's request without its response; import the batch's output")
    else:
        raise ValueError("neither `response`, `choices` nor `messages`: no request and response of OpenAI's API")


def _exchange(line: bytes, request: dict[str, Any] | None, body: Any, status: Any) -> Exchange:
    if not isinstance(body, dict) or type(status) is not int or not 100 <= status <= 599:
        raise ValueError("the response has no body, or no HTTP status")
    failed = status >= 400 or isinstance(body.get("error"), dict)
    model = body.get("model") or (request or {}).get("model")
    if not isinstance(model, str) or not model:
        raise ValueError("there is no `model`, neither with the response nor with the request")
    if not failed and not isinstance(body.get("choices"), list):
        raise ValueError("the response has no `choices`")
    created: Any = body.get("created")
    name = body.get("id")
    usage = body.get("usage")
    return Exchange(
        source=name.encode() if isinstance(name, str) and name and not failed else line.strip(),
        model=model,
        provider="openai",
        request=None if request is None else msgspec.json.encode(request),
        answer=None if failed else msgspec.json.encode(body),
        time=float(created) if type(created) in {int, float} and created > 0 else None,
        status=status,
        error=_code(body) if failed else None,
        stream=(request or {}).get("stream") is True,
        usage=read_usage(msgspec.json.encode(usage)) if isinstance(usage, dict) else None,
    )


def _code(body: dict[str, Any]) -> str:
    error = body.get("error")
    code = (error.get("code") or error.get("type")) if isinstance(error, dict) else None
    return code[:200] if isinstance(code, str) and code else "bad_status"


def _example(line: bytes, said: dict[str, Any]) -> Exchange:
    *before, last = said["messages"] or [None]
    if not before or not isinstance(last, dict) or last.get("role") != "assistant":
        raise ValueError("`messages` does not end with an answer of the assistant's to another message")
    request = {name: value for name, value in said.items() if name in {"tools", "functions", "parallel_tool_calls"}}
    content = last.get("content")
    answer = completion("unknown", content if isinstance(content, str) else None, None, _NO_USAGE)
    return Exchange(
        source=line.strip(),
        model="unknown",
        provider="unknown",
        request=msgspec.json.encode({"model": "unknown", "messages": before, **request}),
        answer=answer
        if isinstance(content, str)
        else msgspec.json.encode({"choices": [{"index": 0, "message": last}]}),
        truth=content,
    )


_NO_USAGE: Usage | None = None
