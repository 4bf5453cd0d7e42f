"""From what was captured to what may be learned: which part a row has, and why one teaches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from upstack.application.data.capture import Captured
from upstack.application.proving.parts import Parts
from upstack.core.store.checks import Part, read_parts
from upstack.core.store.proofs import keep_parts
from upstack.core.traffic import text_of
from upstack.inference.distill.lessons import Lesson


class Curated(msgspec.Struct, frozen=True):
    """The lessons there are, and what is none and why."""

    lessons: tuple[Lesson, ...]
    parts: Mapping[str, Part]
    dropped: Mapping[str, str]  # id -> why

    @property
    def weight(self) -> float:
        """How much there is to learn: what people labelled counts more."""
        return sum(each.weighs for each in self.lessons)


def curate(place: str, task: str, rows: Sequence[Captured], decided: Parts) -> Curated:
    """Decide parts, which are kept, and choose the rows to learn from; `decided` is the same at each look."""
    known = read_parts(place, task)
    new = decided.decide([(row.id, text_of(row.messages), row.check) for row in rows], known)
    keep_parts(place, task, new)
    parts = {each.id: each for each in (*known, *new)}
    lessons: list[Lesson] = []
    dropped: dict[str, str] = {}
    for row in rows:
        lesson = _lesson(row)
        if parts[row.id].part != "fit":
            dropped[row.id] = parts[row.id].part
        elif lesson is None:
            dropped[row.id] = "nobody said what is right"
        else:
            lessons.append(lesson)
    return Curated(tuple(lessons), parts, dropped)


def _lesson(row: Captured) -> Lesson | None:
    if row.truth is not None:
        return Lesson(row.id, row.text, row.truth, human=True)
    return None if row.teacher is None else Lesson(row.id, row.text, row.teacher)
