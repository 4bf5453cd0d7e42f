"""Values as other systems write them: times, names, tokens, and JSON that lies in a text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from upstack.core.types import Usage

_LATEST = 253_402_300_799.0  # the end of the year 9999
_MOST_TOKENS = 10**9


def objects(line: bytes) -> list[dict[str, Any]]:
    """The objects of a line: one, or a list of them. ValueError where there are none."""
    said = msgspec.json.decode(line)
    found = said if isinstance(said, list) else [said]
    if not found or not all(isinstance(each, dict) for each in found):
        raise ValueError("the line is no JSON object; `jq -c` makes a line of each")
    return found


def first(said: dict[str, Any], *names: str) -> Any:
    """The first of these members that says something."""
    return next((said[name] for name in names if said.get(name) not in (None, "")), None)


def text(value: object) -> str | None:
    """A text that says something."""
    return value if isinstance(value, str) and value else None


def seconds(value: object) -> float | None:
    """Unix seconds of a time: ISO 8601 (UTC where it does not say), or a number of seconds."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        return None
    return float(value)


def between(start: float | None, end: float | None) -> float | None:
    """Seconds from one to the other."""
    return end - start if start is not None and end is not None and end >= start else None


def usage_of(
    inputs: object, outputs: object, cached: object = 0, written: object = 0, thought: object = 0
) -> Usage | None:
    """Tokens; None where the two sums are not told. Parts that are not told are 0."""
    counts = [inputs, outputs, cached or 0, written or 0, thought or 0]
    if any(type(each) is not int or not 0 <= each <= _MOST_TOKENS for each in counts):
        return None
    return Usage(*counts)  # type: ignore[arg-type]


def unpacked(value: Any) -> Any:
    """What a text of JSON holds; all else as it is."""
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return msgspec.json.decode(value)
        except (ValueError, RecursionError):
            return value
    return value


def request_of(model: str, asked: Any, settings: Iterable[tuple[str, Any]] = ()) -> bytes | None:
    """A chat completion request of what was asked: messages, an object that has them, or a text."""
    asked = unpacked(asked)
    more = dict(settings)
    if isinstance(asked, dict) and isinstance(asked.get("messages"), list):
        more = {**more, **asked}
        asked = asked["messages"]
    if isinstance(asked, str) and asked:
        asked = [{"role": "user", "content": asked}]
    if not isinstance(asked, list) or not asked:
        return None
    return msgspec.json.encode({"model": model, **more, "messages": asked})


def answer_of(model: str, said: Any) -> bytes | None:
    """A chat completion of what was said: one, a message, or a text."""
    said = unpacked(said)
    if isinstance(said, dict) and isinstance(said.get("choices"), list):
        return msgspec.json.encode(said)
    if isinstance(said, list) and said and isinstance(said[0], dict) and "role" in said[0]:
        said = said[0]
    if isinstance(said, str) and said:
        said = {"role": "assistant", "content": said}
    if not isinstance(said, dict) or not said:
        return None
    message = said if "role" in said else {"role": "assistant", "content": msgspec.json.encode(said).decode()}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return msgspec.json.encode({"object": "chat.completion", "model": model, "choices": [choice]})
