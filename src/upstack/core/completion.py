"""What an answer says: the first choice of a chat completion."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

CALLS = "\x1ecalls:"  # begins the content of an answer that calls tools; no text does


def content_of(answer: bytes | None) -> str:
    """The text of a chat completion; of one that calls tools what it calls, as JSON behind CALLS."""
    message = _choice(answer).get("message")
    if not isinstance(message, dict):
        return ""
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        called = [_call(call) for call in calls]
        whole = called[0] if len(called) == 1 else {"tool_calls": called}
        return CALLS + msgspec.json.encode(whole, order="sorted").decode()
    content = message.get("content")
    return content if isinstance(content, str) else ""


def finish_reason_of(answer: bytes | None) -> str | None:
    """Why a chat completion ended."""
    reason = _choice(answer).get("finish_reason")
    return reason if isinstance(reason, str) else None


def logprobs_of(answer: bytes | None) -> dict[str, Any] | None:
    """The log-probabilities of its tokens, as the choice has them."""
    logprobs = _choice(answer).get("logprobs")
    return logprobs if isinstance(logprobs, dict) else None


def _call(call: Any) -> Any:
    """A tool call without its id: its function's name and arguments."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # else it stands as it is
            arguments = msgspec.json.decode(arguments)
    return {"name": function.get("name"), "arguments": arguments}


def _choice(answer: bytes | None) -> dict[str, Any]:
    try:
        whole = msgspec.json.decode(answer or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    choices = whole.get("choices") if isinstance(whole, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
