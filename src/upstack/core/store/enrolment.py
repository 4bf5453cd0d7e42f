"""Students and snapshots come into a ledger, and go: each in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from upstack.core.store.engine import saying, transaction
from upstack.core.store.students import SnapshotRow, StudentRow
from upstack.core.store.tables import snapshots, students


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
