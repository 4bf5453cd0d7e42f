"""Graders by name, as configuration and command line say them, and the one that recorded losses point to."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from upstack.core.errors import ConfigError, EvidenceError
from upstack.inference.graders.base import Grader
from upstack.inference.graders.fields import Fields
from upstack.inference.graders.text import Contains, Exact

NAMES = ("exact", "contains", "json", "outcome")
GUESSED = (
    "exact:case,space",
    "exact:answer,case,space",
    "exact:answer,latex,case",
    "exact:number",
    "exact:choice",
    "json",
)


def make_grader(name: str, weights: Mapping[str, float] | None = None) -> Grader:
    """Make the grader of a name; ConfigError where there is none.

    "exact" and "contains", each with normalisers ("exact:number,case"), "json" (`weights` by field), "outcome", or a
    function of one's own, "module:function".
    """
    kind, _, rest = name.partition(":")
    if kind in ("exact", "contains"):
        make = Exact if kind == "exact" else Contains
        return make([part.strip() for part in rest.split(",")]) if rest else make()
    if kind == "json" and not rest:
        return Fields(weights)
    if kind == "outcome" and not rest:
        return Told()
    if rest:
        return Own(load_function(name), name)
    raise ConfigError(f'There is no grader "{name}". Allowed: {", ".join(NAMES)}, or a function as "module:function"')


class Told:
    """How good an answer is somebody has told, of each by itself: an executed test, a measurement, a reviewer."""

    def loss(self, answer: str, truth: Any) -> float:  # noqa: ARG002 - of no use here
        """Nothing tells: a truth is not compared with."""
        raise EvidenceError("The grader outcome takes what was told of each answer, and no truth")

    def same(self, one: str, other: str) -> bool:
        """Whether they are the same text."""
        return one == other


class Own:
    """A function of the user's: loss(answer, truth), in 0 to 1. It may have an attribute `same`, of two answers."""

    def __init__(self, function: Callable[[str, Any], object], name: str) -> None:
        """`name` is for messages."""
        self._function, self._name = function, name
        self._same: Callable[[str, str], object] | None = getattr(function, "same", None)

    def loss(self, answer: str, truth: Any) -> float:
        """Ask the function. EvidenceError where it raises, or says something else than a number in 0 to 1."""
        try:
            value = self._function(answer, truth)
        except Exception as error:
            raise EvidenceError(f"The grader {self._name} raised {type(error).__name__}") from error
        if not isinstance(value, int | float) or not 0.0 <= value <= 1.0 or math.isnan(value):
            shown = f"{value!r}"[:60]
            raise EvidenceError(f"The grader {self._name} gave {shown}; a loss is a number in 0 to 1")
        return float(value)

    def same(self, one: str, other: str) -> bool:
        """Whether they are the same text, or the same to the function's `same`: only the user knows."""
        try:
            return one == other or (self._same is not None and bool(self._same(one, other)))
        except Exception as error:
            raise EvidenceError(f"The `same` of the grader {self._name} raised {type(error).__name__}") from error


def load_function(name: str) -> Callable[..., Any]:
    """Import "module:function". ConfigError where it cannot be."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ConfigError(f'The grader "{name}" cannot be imported: {error}') from None
    except AttributeError:
        raise ConfigError(f'The grader "{name}": the module {module} has no {attribute}') from None
    if not callable(found):
        raise ConfigError(f'The grader "{name}" is no function')
    function: Callable[..., Any] = found
    return function


def guess_grader(rows: Iterable[tuple[Sequence[str], Sequence[float | None], Any]]) -> str:
    """Name the grader that recorded losses point to; each row has answers, their losses, and a truth or None.

    Answers that are the same should have the same loss, and two that are right should be the same. Where there are no
    losses they are those that the grader finds by the truth.
    """
    rows = list(rows)
    faults = {name: _faults(make_grader(name), rows) for name in GUESSED}
    return min(GUESSED, key=lambda name: faults[name])


def _faults(grader: Grader, rows: Sequence[tuple[Sequence[str], Sequence[float | None], Any]]) -> float:
    faults = 0.0
    for answers, recorded, truth in rows:
        losses: Sequence[float | None] = recorded
        if truth is not None and None in recorded:
            try:
                losses = [grader.loss(answer, truth) for answer in answers]
            except EvidenceError:
                faults += len(answers)
                continue
            faults += (
                sum(loss for loss in losses if loss is not None) / 2
            )  # a truth that nobody meets is not read right
        for one in range(1, len(answers)):
            first, second = losses[one - 1], losses[one]
            if first is None or second is None:
                continue
            if grader.same(answers[one - 1], answers[one]):
                faults += abs(first - second)
            else:
                faults += first == second == 0.0
    return faults
