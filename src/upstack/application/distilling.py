"""When a task's student is made anew, from which rung of the ladder, and which students there are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from upstack.application.data.curate import NO_FAULT, Curated
from upstack.application.data.rights import Judge, may_teach
from upstack.application.data.snapshots import Snapshot
from upstack.application.learning import Wish
from upstack.application.proving.pupils import Learnt, Pupils, without
from upstack.core.errors import EvidenceError
from upstack.core.store import proofs
from upstack.core.store.enrolment import end_students, keep_student
from upstack.core.store.rows import moment
from upstack.core.store.standings import Summary
from upstack.core.store.students import StudentRow, still_there, students_of
from upstack.core.types import student_of, student_route
from upstack.foundation.rights import Rights
from upstack.foundation.students.encoder import Encoder
from upstack.foundation.students.student import digest_of
from upstack.inference.distill.training import Teacher, Trained, train

_AGAIN = 1.05  # times as much there has to be to learn, where nothing came of it
_TICK_S = 1e-3  # between students of one snapshot, so that they stand in the order of the ladder
_TIMED = 50  # answers by which a student's time is measured


class Distiller:
    """Makes the students of one task. Blocks."""

    def __init__(self, place: str, wish: Wish, pupils: Pupils, judge: Judge, encoder: Encoder | None = None) -> None:
        self._place, self._wish, self._pupils = place, wish, pupils
        self._ladder = ["linear"] if encoder is None else ["linear", encoder]
        self._judge = judge
        self._failed = 0.0  # what there was to learn when nothing came of it
        self._judged = ""  # by which version of the table the students were judged
        self.why: str | None = None  # there is no student, or no newer one

    def arms(self) -> tuple[tuple[str, str], ...]:
        """The routes of the students that live, with their versions: the one that serves, and the newest."""
        return tuple((student_route(each.task, each.id), each.id) for each in self._living())

    def is_due(self, curated: Curated, now: float) -> bool:  # noqa: ARG002
        """Whether there is so much more to learn that a new student is worth an attempt."""
        living = self._living()
        least = float(self._wish.fewest)
        if living:
            newest = msgspec.json.decode(living[-1].summary, type=Learnt)  # as it stands now: a subject may be gone
            whole = sum(each.snapshot == living[-1].snapshot for each in living) == len(self._ladder)
            least = self._wish.growth * newest.weight if newest.retrain is None and whole else 0.0
        return curated.weight >= max(least, _AGAIN * self._failed)

    def why_none(self, curated: Curated) -> str:
        """Why there is no student."""
        if self.why is not None:
            return f"no student: {self.why}"
        left = Counter(why for why in curated.dropped.values() if why not in NO_FAULT)
        most = "".join(f"; of {count} it is that {why}" for why, count in left.most_common(1))
        return f"no student yet: {len(curated.lessons)} rows to learn from, of {self._wish.fewest}{most}"

    def distil(self, snapshot: Snapshot, now: float) -> None:
        """Train a student of each rung on a snapshot; where nothing comes of it `why` says so."""
        rights = self._judge.student(snapshot.rights)
        teacher = Teacher(
            self._wish.task,
            self._wish.schema,
            snapshot.id,
            conditions=rights.conditions,
            obligations=rights.obligations,
        )
        try:
            for step, rung in enumerate(self._ladder):  # the cheapest first; the plan that promises most is proved
                encoder = rung if isinstance(rung, Encoder) else None
                trained = train(snapshot.lessons, teacher, encoder, None if encoder is None else encoder.digest)
                self._keep(trained, snapshot, rights, now + step * _TICK_S)
        except EvidenceError as error:
            self.why, self._failed = error.message, sum(each.weighs for each in snapshot.lessons)
            return
        self.why, self._failed = None, 0.0
        self._retire(snapshot.id, now)

    def _keep(self, trained: Trained, snapshot: Snapshot, rights: Rights, now: float) -> None:
        model = trained.student.to_bytes()
        learnt = _learnt(trained, snapshot, rights)
        row = StudentRow(digest_of(model), self._wish.task, moment(now), snapshot.id, _text(learnt))
        keep_student(self._place, row, model)
        there = still_there(self._place, learnt.rows)
        if len(there) < len(
            learnt.rows
        ):  # erased while it learned; what is erased from now on reaches it as it is kept
            row = replace(row, summary=_text(without(learnt, there)))
            keep_student(self._place, row, model)
        self._pupils.take(row, model)

    def forbid(self, now: float) -> None:
        """End the students of rows that may not be learned from any more."""
        if self._judge.version == self._judged:
            return
        for each in self._living():
            learnt = msgspec.json.decode(each.summary, type=Learnt)
            why = next((why for facts in learnt.rights if (why := may_teach(facts, self._judge.of(facts)))), None)
            if why is not None:
                end_students(self._place, [each.id], moment(now), f"forbidden: {why}")
        self._judged = self._judge.version

    def disputed(self, curated: Curated) -> list[str]:
        """Lessons of the teacher's that the newest student would have answered otherwise, the surest first.

        Where it is sure and says something else, one of the two is wrong in a way that training would keep.
        """
        living = self._living()
        if not living:
            return []
        newest = living[-1].id
        teachers = [each for each in curated.lessons if not each.human]
        said = {each.id: self._pupils.said(newest, each.id, each.text) for each in teachers}
        differ = [each.id for each in teachers if said[each.id].content != each.answer.strip()]
        return sorted(differ, key=lambda row: -said[row].confidence)

    def _living(self) -> list[StudentRow]:
        return [each for each in students_of(self._place, self._wish.task) if each.ended_at is None]

    def _retire(self, snapshot: str, now: float) -> None:
        """End all but the newest, which learned from this snapshot, and the one that serves."""
        serving = proofs.history(self._place, self._wish.task).in_force
        arms = msgspec.json.decode(serving.summary, type=Summary).arms if serving is not None else ()
        kept = {student_of(route) for route, _ in arms}
        old = [each.id for each in self._living() if each.snapshot != snapshot and each.id not in kept]
        if old:
            end_students(self._place, old, moment(now), f"replaced by those of snapshot {snapshot[:16]}")


def _text(learnt: Learnt) -> str:
    return msgspec.json.encode(learnt).decode()


def _learnt(trained: Trained, snapshot: Snapshot, rights: Rights) -> Learnt:
    lessons: Sequence[Any] = snapshot.lessons
    return Learnt(
        rung=trained.student.facts.rung,
        lessons=len(lessons),
        human=sum(each.human for each in lessons),
        weight=sum(each.weighs for each in lessons),
        accuracy=trained.accuracy,
        seconds=_seconds(trained, [each.text for each in lessons[-_TIMED:]]),
        unseen={name: (said.content, said.confidence, said.strange) for name, said in trained.unseen.items()},
        rows=tuple(each.id for each in lessons),
        rights=snapshot.rights,
        texts=rights.texts,
        encoder=trained.student.facts.encoder,
    )


def _seconds(trained: Trained, texts: Sequence[str]) -> float:
    """What an answer takes, on average."""
    began = time.process_time()
    for text in texts:
        trained.student.say(text)
    return (time.process_time() - began) / max(1, len(texts))
