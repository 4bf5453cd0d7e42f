"""The grader of answers as JSON, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from upstack.core.errors import EvidenceError

_FENCE = "```"
_DEEPEST = 32  # levels that are flattened; what lies deeper is one value


class Fields:
    """Right is an object in which the truth's fields have the truth's values; others may be there besides.

    A field of a nested object is named with a dot ("place.line"); a list is one value. 1 equals 1.0, true does not.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        """`weights` of fields by name, 1 where none is said; 0 leaves a field out."""
        self._weights = dict(weights or {})

    def loss(self, answer: str, truth: Any) -> float:
        """Say which share, by weight, of the truth's fields is missing or wrong; 1 where the answer is no object."""
        wanted = self._fields(read_object(truth) if isinstance(truth, str) else truth)
        total = sum(self._weight(name) for name in wanted or {})
        if not wanted or total <= 0:
            raise EvidenceError("A truth for this grader is an object with a field of some weight")
        found = self._fields(read_object(answer))
        if found is None:
            return 1.0
        wrong = sum(self._weight(name) for name, value in wanted.items() if not _agree(found.get(name, ...), value))
        return min(1.0, wrong / total)

    def same(self, one: str, other: str) -> bool:
        """Whether they agree in every field of some weight."""
        first, second = (self._fields(read_object(text)) for text in (one, other))
        if first is None or second is None:
            return first is second  # no objects: both are wrong, whatever the truth is
        return first.keys() == second.keys() and all(_agree(first[name], second[name]) for name in first)

    def _fields(self, value: Any) -> dict[str, Any] | None:
        """Flatten an object, without the fields of no weight; None for what is none."""
        if not isinstance(value, dict):
            return None
        found: dict[str, Any] = {}
        left: list[tuple[tuple[str, ...], dict[str, Any]]] = [((), value)]
        while left:
            path, part = left.pop()
            for key, each in part.items():
                name = ".".join((*path, key))
                if isinstance(each, dict) and each and len(path) < _DEEPEST and name not in self._weights:
                    left.append(((*path, key), each))
                elif self._weight(name) > 0:
                    found[name] = each
        return found

    def _weight(self, name: str) -> float:
        return self._weights.get(name, 1.0)


def read_object(text: str) -> Any:
    """Read JSON that may stand in a fence of Markdown; None where there is none."""
    for each in (text, _fenced(text)):
        if each is not None:
            try:
                return msgspec.json.decode(each)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                continue
    return None


def _fenced(text: str) -> str | None:
    """What stands between the first line that opens a fence and what closes it."""
    opened = text.find("\n", text.find(_FENCE)) if _FENCE in text else -1
    closed = text.find(_FENCE, opened)
    return text[opened:closed] if opened >= 0 and closed >= 0 else None


def _agree(one: Any, other: Any) -> bool:
    """Whether two values are equal; what is nested too deeply to be compared is not."""
    try:
        return _equal(one, other)
    except RecursionError:
        return False


def _equal(one: Any, other: Any) -> bool:
    """Compare as JSON does, in which true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other)
