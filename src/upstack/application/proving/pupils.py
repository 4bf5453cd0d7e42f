"""What students say to checks: worked out here, as it costs next to nothing, and asked of nobody.

What a student says to a row that it learned from is worth nothing; of such it is taken what it said while the row was
held back from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from upstack.application.proving.rows import CheckedAnswer
from upstack.core.errors import EvidenceError
from upstack.core.store.students import StudentRow, model_of, student_row
from upstack.foundation.rights import Facts
from upstack.foundation.students.student import Said, Student, load

RETRAIN = "a subject it learned from was erased"
Encoders = Callable[[str], Callable[[str], Any]]


class Learnt(msgspec.Struct, frozen=True):
    """What is kept of a student beside its model."""

    rung: str
    lessons: int
    human: int  # of them labelled by people
    weight: float  # of all of them
    accuracy: float  # of what it said unseen
    seconds: float  # that an answer takes
    unseen: Mapping[str, tuple[str, float, bool]] = {}  # by row: content, confidence, whether it is strange
    rows: tuple[str, ...] = ()  # that it learned from
    retrain: str | None = None  # why another is to be trained in its place
    rights: tuple[Facts, ...] = ()  # that its rows have
    texts: tuple[str, ...] = ()  # terms and licences by which it was permitted
    encoder: str | None = None  # digest


class Pupils:
    """The students of one ledger. Blocks."""

    def __init__(self, place: str, usd_per_second: float = 0.0, encoders: Encoders | None = None) -> None:
        self._place, self._price, self._encoders = place, usd_per_second, encoders
        self._known: dict[str, tuple[Student, Learnt]] = {}
        self._said: dict[str, dict[str, Said]] = {}  # by student and row

    def take(self, row: StudentRow, model: bytes) -> None:
        """Know a student that was just made."""
        student = load(model, f"student {row.id}", self._encoders)
        self._known[row.id] = (student, msgspec.json.decode(row.summary, type=Learnt))

    def answer(self, student: str, row_id: str, text: str) -> CheckedAnswer:
        """What a student says to a check. EvidenceError where it is not there any more."""
        return answer_of(self.said(student, row_id, text), self._known[student][1].seconds * self._price)

    def said(self, student: str, row_id: str, text: str) -> Said:
        """The same, with how sure it is."""
        said = self._said.setdefault(student, {})
        found = said.get(row_id)
        if found is None:
            found = said[row_id] = self._answer(student, row_id, text)
        return found

    def student(self, student: str) -> Student:
        """A student, ready to answer. EvidenceError where it is not there any more."""
        return self._load(student)[0]

    def learnt(self, student: str) -> Learnt:
        """What is kept of a student beside its model."""
        return self._load(student)[1]

    def _answer(self, student: str, row_id: str, text: str) -> Said:
        model, learnt = self._load(student)
        unseen = learnt.unseen.get(row_id)
        return Said(*unseen) if unseen is not None else model.say(text)

    def _load(self, student: str) -> tuple[Student, Learnt]:
        if student not in self._known:
            row, model = student_row(self._place, student), model_of(self._place, student)
            if row is None or model is None:
                raise EvidenceError(f"the student {student} is not there any more")
            self.take(row, model)
        return self._known[student]


def answer_of(said: Said, cost_usd: float) -> CheckedAnswer:
    """A student's answer as that of any model: its confidence is the probability of its one token."""
    logprob = math.log(said.confidence) if said.confidence > 0 else -100.0
    return CheckedAnswer(
        said.content,
        0,
        0,
        logprobs={"content": [{"token": said.content, "logprob": logprob}]},
        cost_usd=cost_usd,
    )


def without(learnt: Learnt, there: Collection[str]) -> Learnt:
    """What is kept of a student whose other rows were erased: it is to be trained anew."""
    rows = tuple(row for row in learnt.rows if row in there)
    unseen = {row: said for row, said in learnt.unseen.items() if row in there}
    return msgspec.structs.replace(learnt, rows=rows, unseen=unseen, retrain=RETRAIN)
