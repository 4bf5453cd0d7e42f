"""The deltas of a stream, put together as the messages they tell bit by bit. Pure.

A delta is text alone, the most frequent one, or an object of members. Those nobody here has heard of are kept too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Delta = str | dict[str, Any]

_WHOLE = frozenset({"id", "type", "index", "format"})  # told whole each time, never bit by bit


class Said:
    """What one choice has said so far."""

    __slots__ = ("deltas", "finish_reason", "logprobs")

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.logprobs: list[Any] = []
        self.finish_reason: str | None = None

    def choice(self, index: int) -> dict[str, Any]:
        """Return the choice as a completion has it; TypeError or ValueError where its members do not fit together."""
        members = _gathered(delta for delta in self.deltas if not isinstance(delta, str))
        for name in ("role", "content"):
            members.pop(name, None)
        contents = [delta if isinstance(delta, str) else delta.get("content") for delta in self.deltas]
        message = {"role": "assistant", "content": _content([content for content in contents if content])}
        calls = _tool_calls(members.pop("tool_calls", []))
        if calls:
            message["tool_calls"] = calls
        message |= {key: _joined(values, key) for key, values in members.items()}
        whole: dict[str, Any] = {"index": index, "message": message, "finish_reason": self.finish_reason}
        if self.logprobs:
            whole["logprobs"] = _joined(self.logprobs)
        return whole


def says_something(delta: dict[str, Any]) -> bool:
    """Say whether a delta holds more than its role and empty members, known ones or not."""
    return any(value for key, value in delta.items() if key != "role")


def _gathered(pieces: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each member, without the empty ones."""
    members: dict[str, list[Any]] = {}
    for piece in pieces:
        for key, value in piece.items():
            if value or value == 0:
                members.setdefault(key, []).append(value)
    return members


def _joined(values: list[Any], key: str = "") -> Any:
    """Texts one after the other, lists as one, objects member by member; of anything else the last."""
    if len(values) == 1 or key in _WHOLE:
        return values[-1]
    if all(isinstance(value, str) for value in values):
        return "".join(values)
    if all(isinstance(value, list) for value in values):
        return [item for value in values for item in value]
    if all(isinstance(value, dict) for value in values):
        return {name: _joined(parts, name) for name, parts in _gathered(values).items()}
    return values[-1]


def _content(values: list[Any]) -> str | list[Any] | None:
    texts = [value for value in values if isinstance(value, str)]
    parts = [part for value in values if isinstance(value, list) for part in value]
    if parts:
        return parts + [{"type": "text", "text": text} for text in texts]
    return "".join(texts) or None


def _tool_calls(values: list[Any]) -> list[dict[str, Any]]:
    pieces: dict[Any, list[dict[str, Any]]] = {}
    for value in values:
        for piece in value:
            if isinstance(piece, dict):
                pieces.setdefault(piece.get("index", len(pieces)), []).append(piece)
    calls = [_joined(group) for group in pieces.values()]
    return [{key: value for key, value in call.items() if key != "index"} for call in calls]
