"""The interface of a grader."""

from __future__ import annotations

from typing import Any, Protocol


class Grader(Protocol):
    """Compares an answer with a truth, and two answers with each other.

    What is `same` has the same loss whatever the truth is: where two routes gave the same there is nothing to label.
    """

    def loss(self, answer: str, truth: Any) -> float:
        """How bad an answer is, 0 (as good as can be) to 1. EvidenceError where no answer could meet such a truth."""
        ...

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are worth the same for sure."""
        ...
