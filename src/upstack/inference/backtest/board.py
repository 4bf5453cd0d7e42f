"""Recorded requests as a table: what each route said, what it cost, how wrong it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from upstack.core.errors import EvidenceError
from upstack.core.grams import shorten
from upstack.core.traffic import RecordedAnswer, TrafficRow, prompt_of
from upstack.inference.graders.base import Grader
from upstack.inference.learning import signs
from upstack.inference.learning.signs import Answer, answer_of
from upstack.inference.learning.training import Counted

Floats = NDArray[np.float64]
Cost = Callable[[str, RecordedAnswer], float]  # of a route's answer, in USD

_MOST_GAPS = 0.5  # share of the rows that a candidate may be missing from


class Board:
    """Rows by routes. `labelled` says of which rows the losses are losses, and not differences from the reference."""

    def __init__(self, rows: Sequence[TrafficRow], routes: Sequence[str], grader: Grader, cost: Cost) -> None:
        """All rows have an answer of all routes, of which the first is the reference."""
        self.rows, self.routes, self._grader = rows, tuple(routes), grader
        self.column = {route: at for at, route in enumerate(self.routes)}
        self.prompts = [prompt_of(row) for row in rows]
        shape = (len(rows), len(self.routes))
        costs = [[cost(route, row.answers[route]) for route in routes] for row in rows]
        self.costs: Floats = np.array(costs, float).reshape(shape)
        self.contents = [[row.answers[route].content or "" for route in routes] for row in rows]
        losses = [self._losses(row) for row in rows]
        self.labelled = np.array([each is not None for each in losses], bool)
        self.losses: Floats = np.array(
            [self._differences(at) if each is None else each for at, each in enumerate(losses)], float
        ).reshape(shape)

    @cached_property
    def answers(self) -> list[dict[str, Answer]]:
        """What a decision may look at, by route."""
        return [{route: as_answer(row.answers[route]) for route in self.routes} for row in self.rows]

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """Answers of a row that are the same to the grader have the same number."""
        return np.array([self._classes(texts) for texts in self.contents])

    @cached_property
    def has_content(self) -> dict[str, bool]:
        """Of which routes it is known what they said."""
        known = np.array([[bool(text) for text in texts] for texts in self.contents])
        return {route: bool(known[:, at].any()) for at, route in enumerate(self.routes)}

    def noise_floor(self) -> float | None:
        """How often the reference differs from itself, where it was asked again; None where it never was."""
        pairs = [
            not self._grader.same(row.answers[self.routes[0]].content or "", sample)
            for row in self.rows
            for sample in row.answers[self.routes[0]].samples or ()
        ]
        return sum(pairs) / len(pairs) if pairs else None

    def counted(self, source: int, kind: str) -> Counted:
        """Count what occurs in requests (-1) or in the answers of a route, by its column."""
        key = (source, kind)
        if key not in self._counts:
            texts = self.prompts if source < 0 else [texts[source] for texts in self.contents]
            self._counts[key] = Counted([shorten(text) for text in texts], kind)
        return self._counts[key]

    @cached_property
    def prompt_signs(self) -> Floats:
        """How hard the requests look."""
        return np.array([signs.of_prompt(prompt) for prompt in self.prompts], float)

    def answer_signs(self, route: str) -> Floats:
        """How the answers of a route look."""
        if route not in self._signs:
            rows = zip(self.prompts, self.answers, strict=True)
            self._signs[route] = np.array([signs.of_answer(prompt, said[route]) for prompt, said in rows], float)
        return self._signs[route]

    @cached_property
    def _signs(self) -> dict[str, Floats]:
        return {}

    @cached_property
    def _counts(self) -> dict[tuple[int, str], Counted]:
        return {}

    def _losses(self, row: TrafficRow) -> list[float] | None:
        """The losses recorded, else graded; None where they are not known.

        Nor are they where a reference that is to be graded said nothing: all that are as empty would be as good.
        """
        found: list[float] = []
        for at, route in enumerate(self.routes):
            answer = row.answers[route]
            if answer.loss is not None:
                found.append(answer.loss)
            elif row.truth is not None and (at or answer.content):
                found.append(self._grade(row, answer.content or ""))
            else:
                return None
        return found

    def _grade(self, row: TrafficRow, content: str) -> float:
        try:
            return self._grader.loss(content, row.truth)
        except EvidenceError as error:
            raise EvidenceError(f"Row {row.id[:100]}: {error}") from error

    def _differences(self, at: int) -> list[float]:
        """Count what differs from the reference as a loss, and what nobody knows to be the same: empty answers."""
        reference, *others = self._classes(self.contents[at])
        texts = self.contents[at][1:]
        return [0.0, *(float(other != reference or not text) for other, text in zip(others, texts, strict=True))]

    def _classes(self, texts: Sequence[str]) -> list[int]:
        speakers: list[str] = []
        found: list[int] = []
        for text in texts:
            number = next((at for at, other in enumerate(speakers) if self._grader.same(text, other)), len(speakers))
            if number == len(speakers):
                speakers.append(text)
            found.append(number)
        return found


class View:
    """One row as a strategy sees it: only what it has asked for."""

    def __init__(self, board: Board, row: int) -> None:
        """Nothing is asked yet."""
        self._board, self._row = board, row
        self.asked: list[str] = []

    @property
    def prompt(self) -> str:
        """The request's text."""
        return self._board.prompts[self._row]

    def answer(self, route: str) -> Answer | None:
        """What was recorded, once it is asked for."""
        return self._board.answers[self._row][route] if route in self.asked else None

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are the same to the grader."""
        classes, column = self._board.classes[self._row], self._board.column
        return bool(classes[column[one]] == classes[column[other]])


class Gaps(msgspec.Struct, frozen=True):
    """What was left out because answers are missing."""

    rows: int
    candidates: tuple[str, ...]


def complete(
    rows: Sequence[TrafficRow], reference: str, candidates: Sequence[str]
) -> tuple[list[TrafficRow], list[str], Gaps]:
    """Leave out candidates that most rows lack, then rows that lack an answer of the reference or another candidate.

    EvidenceError where nothing is left.
    """
    with_reference = [row for row in rows if reference in row.answers]
    if not with_reference:
        seen = Counter(route for row in rows for route in row.answers)
        known = ", ".join(route for route, _ in seen.most_common(8))
        raise EvidenceError(f'No row has an answer of the reference "{reference}". Routes there: {known or "none"}')
    has = Counter(route for row in with_reference for route in row.answers)
    kept = [route for route in candidates if has[route] >= _MOST_GAPS * len(with_reference)]
    whole = [row for row in with_reference if all(route in row.answers for route in kept)]
    if not kept or not whole:
        raise EvidenceError(
            "No candidate has answers to at least half of what the reference answered, and all of them to the same rows"
        )
    missing = tuple(route for route in candidates if route not in kept)
    return whole, kept, Gaps(len(rows) - len(whole), missing)


def as_answer(answer: RecordedAnswer) -> Answer:
    """What a decision may look at of a recorded answer."""
    return answer_of(answer.content or "", answer.output_tokens, answer.logprobs, answer.finish_reason)
