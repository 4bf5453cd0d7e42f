"""Graders of answers as texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from upstack.core.errors import ConfigError, EvidenceError
from upstack.inference.graders.normal import NORMALISERS

_REMEMBERED = 256  # answers, of which each is compared with several others


class _Normalising:
    """What the graders of texts share."""

    def __init__(self, normalise: Sequence[str] = ("case", "space")) -> None:
        """`normalise` names what is done to answers and truths alike, in this order; see `NORMALISERS`."""
        unknown = [name for name in normalise if name not in NORMALISERS]
        if unknown:
            raise ConfigError(f'There is no normaliser "{unknown[0]}". Allowed: {", ".join(NORMALISERS)}')
        self._normalisers = [NORMALISERS[name] for name in normalise]
        self._normal = lru_cache(_REMEMBERED)(self._normalise)

    def same(self, one: str, other: str) -> bool:
        """Whether they are equal once both are normalised."""
        return self._normal(one) == self._normal(other)

    def _normalise(self, text: str) -> str:
        for normalise in self._normalisers:
            text = normalise(text)
        return text


class Exact(_Normalising):
    """Right is what equals the truth, or one of several, once both are normalised."""

    def loss(self, answer: str, truth: Any) -> float:
        """Say 0 or 1. A truth is a text, a number, true or false, or a list of them, any of which is right."""
        normal = self._normal(answer)
        return 0.0 if any(normal == self._normal(each) for each in texts(truth)) else 1.0


class Contains(_Normalising):
    """Right is what has the truth in it, or all of several."""

    def loss(self, answer: str, truth: Any) -> float:
        """Say which share of the texts that the truth names does not occur in the answer."""
        wanted = [self._normal(each) for each in texts(truth)]
        if "" in wanted:
            raise EvidenceError("A truth for this grader is not empty: every answer contains that")
        normal = self._normal(answer)
        return sum(each not in normal for each in wanted) / len(wanted)


def texts(truth: Any) -> list[str]:
    """Read a truth as the texts it names."""
    several = truth if isinstance(truth, list | tuple) else [truth]
    found = [_text(each) for each in several]
    if not found or None in found:
        kind = "an empty list" if truth in ([], ()) else type(truth).__name__
        raise EvidenceError(
            f"A truth for this grader is a text, a number, true or false, or a list of them, not {kind}"
        )
    return [each for each in found if each is not None]


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, int | float) else None
