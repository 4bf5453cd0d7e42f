"""Answers that call tools, for graders that compare texts: they are the same only where they call the same. Pure."""

from __future__ import annotations

from typing import Any

from upstack.core.completion import CALLS
from upstack.inference.graders.base import Grader


class ToolWise:
    """A grader that no number or letter in the arguments of two calls can make take one for the other."""

    def __init__(self, grader: Grader) -> None:
        """`grader` is for all other answers, and for a call beside a truth: it reads it as JSON."""
        self._grader = grader

    def loss(self, answer: str, truth: Any) -> float:
        """Have the grader compare; a call is an object of name and arguments."""
        return self._grader.loss(answer.removeprefix(CALLS), truth)

    def same(self, one: str, other: str) -> bool:
        """Whether they call the same, or none does and they are the same to the grader."""
        if one.startswith(CALLS) or other.startswith(CALLS):
            return one == other
        return self._grader.same(one, other)
