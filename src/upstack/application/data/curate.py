"""From what was captured to what may be learned: which part a row has, and why one teaches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from upstack.application.data.capture import Captured
from upstack.application.data.rights import Judge, may_teach
from upstack.application.proving.parts import Parts
from upstack.core.store.checks import Part, read_parts
from upstack.core.store.proofs import keep_parts
from upstack.core.traffic import text_of
from upstack.foundation.rights import Facts
from upstack.inference.distill.lessons import Lesson

UNANSWERED = "nobody said what is right"
NO_FAULT = frozenset({UNANSWERED, "evidence", "repeat"})  # why a row is no lesson, and could not be


class Curated(msgspec.Struct, frozen=True):
    """The lessons there are, and what is none and why."""

    lessons: tuple[Lesson, ...]
    parts: Mapping[str, Part]
    dropped: Mapping[str, str]  # id -> why
    facts: Mapping[str, Facts] = {}  # on the rights of each lesson

    @property
    def weight(self) -> float:
        """How much there is to learn: what people labelled counts more."""
        return sum(each.weighs for each in self.lessons)


def curate(place: str, task: str, rows: Sequence[Captured], decided: Parts, judge: Judge) -> Curated:
    """Decide parts, which are kept, and choose the rows to learn from; `decided` is the same at each look."""
    said = judge.said(task)
    known = read_parts(place, task)
    new = decided.decide([(row.id, text_of(row.messages), row.check) for row in rows], known)
    keep_parts(place, task, new)
    parts = {each.id: each for each in (*known, *new)}
    lessons: list[Lesson] = []
    dropped: dict[str, str] = {}
    facts: dict[str, Facts] = {}
    for row in rows:
        lesson = _lesson(row)
        if parts[row.id].part != "fit":
            dropped[row.id] = parts[row.id].part
        elif lesson is None:
            dropped[row.id] = UNANSWERED
        else:
            mine = judge.facts(row, said.get(row.id, {}))
            why = may_teach(mine, judge.of(mine))
            if why is not None:
                dropped[row.id] = why
                continue
            facts[row.id] = mine
            lessons.append(lesson)
    return Curated(tuple(lessons), parts, dropped, facts)


def _lesson(row: Captured) -> Lesson | None:
    if row.truth is not None:
        return Lesson(row.id, row.text, row.truth, human=True)
    return None if row.teacher is None else Lesson(row.id, row.text, row.teacher)
