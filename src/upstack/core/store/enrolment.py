"""Students and snapshots come into a ledger, and go: each in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import sqlalchemy as sa

from upstack.core.store.engine import saying, transaction
from upstack.core.store.students import SnapshotRow, StudentRow
from upstack.core.store.tables import contents, outcome_contents, outcomes, receipts, rights, snapshots, students


def keep_snapshot(place: str, snapshot: SnapshotRow) -> None:
    """Keep a snapshot, where it is not there."""
    with saying(place), transaction(place, write=True) as database:
        if database.execute(sa.select(snapshots.c.id).where(snapshots.c.id == snapshot.id)).first() is None:
            database.execute(snapshots.insert().values(**msgspec.structs.asdict(snapshot)))


def keep_student(place: str, student: StudentRow, model: bytes) -> None:
    """Keep a student, where it is not there. One that ended and comes about again lives again."""
    values = msgspec.structs.asdict(student)
    with saying(place), transaction(place, write=True) as database:
        database.execute(students.delete().where(students.c.id == student.id))
        database.execute(students.insert().values(**values, model=model))


def end_students(place: str, ids: Sequence[str], at: str, why: str) -> None:
    """End students, and remove their models."""
    these = sa.and_(students.c.id.in_(ids), students.c.ended_at.is_(None))
    with saying(place), transaction(place, write=True) as database:
        database.execute(students.update().where(these).values(ended_at=at, ended_why=why, model=None))


def ids_of_subject(place: str, subject: str) -> set[str]:
    """The receipts whose content is about a subject, or about which something was told of it."""
    with saying(place), transaction(place) as database:
        asked = sa.select(receipts.c.id).join(contents).where(contents.c.subject == subject)
        told = sa.select(outcomes.c.receipt).join(outcome_contents).where(outcome_contents.c.subject == subject)
        found = [*database.execute(asked).scalars(), *database.execute(told).scalars()]
    return {each for each in found if each is not None}


def rewrite(
    place: str, student: Callable[[str], str | None], snapshot: Callable[[str], str | None], ids: set[str]
) -> tuple[tuple[str, ...], int]:
    """Change what students and snapshots say of themselves, where a function gives other words than there are.

    What was said of the rights of the rows `ids` goes. Gives the students, and how many snapshots there were.
    """
    changed: list[str] = []
    count = 0
    with saying(place), transaction(place, write=True) as database:
        for own_id, summary in database.execute(sa.select(students.c.id, students.c.summary)).all():
            words = student(summary)
            if words is not None:
                database.execute(students.update().where(students.c.id == own_id).values(summary=words))
                changed.append(own_id)
        for own_id, manifest in database.execute(sa.select(snapshots.c.id, snapshots.c.manifest)).all():
            words = snapshot(manifest)
            if words is not None:
                database.execute(snapshots.update().where(snapshots.c.id == own_id).values(manifest=words))
                count += 1
        database.execute(rights.delete().where(rights.c.id.in_(ids)))
    return tuple(changed), count
