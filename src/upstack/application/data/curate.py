"""From what was captured to what may be learned: which part a row has, and why one teaches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from upstack.application.data.capture import Captured
from upstack.application.data.cleaning import clean
from upstack.application.data.rights import Judge, may_teach
from upstack.application.data.trust import Believed, Said, believe
from upstack.application.proving.parts import Parts
from upstack.core.store.checks import Part, read_parts
from upstack.core.store.proofs import keep_parts
from upstack.core.traffic import text_of
from upstack.foundation.rights import Facts
from upstack.inference.distill.lessons import Lesson

UNANSWERED = "nobody said what is right"
_AGAIN = 2  # times that an answer comes on average, where there is a set of them
NO_FAULT = frozenset({UNANSWERED, "evidence", "repeat"})  # why a row is no lesson, and could not be


class Curated(msgspec.Struct, frozen=True):
    """The lessons there are, and what is none and why."""

    lessons: tuple[Lesson, ...]
    parts: Mapping[str, Part]
    dropped: Mapping[str, str]  # id -> why
    facts: Mapping[str, Facts] = {}  # on the rights of each lesson
    quarantined: Mapping[str, str] = {}  # sources of feedback that are not believed, and why

    @property
    def weight(self) -> float:
        """How much there is to learn: what people labelled counts more."""
        return sum(each.weighs for each in self.lessons)


def curate(
    place: str, task: str, rows: Sequence[Captured], decided: Parts, judge: Judge, *, keep: bool = True
) -> Curated:
    """Decide parts, which are kept, and choose the rows to learn from; `decided` is the same at each look."""
    said = judge.said(task)
    known = read_parts(place, task)
    new = decided.decide([(row.id, text_of(row.messages), row.check) for row in rows], known)
    if keep:
        keep_parts(place, task, new)
    parts = {each.id: each for each in (*known, *new)}
    lessons: list[Lesson] = []
    dropped: dict[str, str] = {}
    facts: dict[str, Facts] = {}
    believed = _believed(rows)
    for row in rows:
        lesson = _lesson(row, believed)
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
    kept, unfit = clean(lessons)
    return Curated(tuple(kept), parts, dropped | unfit, facts, believed.quarantined)


def _believed(rows: Sequence[Captured]) -> Believed:
    """What is learned of what sources claim."""
    truths = {row.id: row.truth for row in rows if row.truth is not None}
    claims = [Said(row.id, source, answer) for row in rows for source, answer in row.claims]
    answers = [answer for row in rows if (answer := row.truth or row.teacher) is not None]
    known = set(answers)
    classes = len(known) * _AGAIN <= len(answers)  # else answers hardly come again, and any may be new
    return believe(claims, truths, len(answers), known if classes else None)


def _lesson(row: Captured, believed: Believed) -> Lesson | None:
    if row.truth is not None:
        return Lesson(row.id, row.text, row.truth, human=True)
    if row.id in believed.answers:
        answer, weight = believed.answers[row.id]
        return Lesson(row.id, row.text, answer, weight=weight)
    return None if row.teacher is None else Lesson(row.id, row.text, row.teacher)
