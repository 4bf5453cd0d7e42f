"""Students and the snapshots they learned from, as a ledger keeps them: what is read, beside a gateway too."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from upstack.core.store.reading import reading, to_bytes

_LIVE = "SELECT id, task, created_at, snapshot, summary, ended_at, ended_why FROM students WHERE task = ?"
_ONE = "SELECT id, task, created_at, snapshot, summary, ended_at, ended_why FROM students WHERE id = ?"
_MODEL = "SELECT model FROM students WHERE id = ?"
_THERE = "SELECT id FROM receipts JOIN contents ON receipt_seq = seq WHERE request IS NOT NULL AND id IN"
_PAGE = 500
_TASKS = "SELECT DISTINCT task FROM students WHERE ended_at IS NULL ORDER BY task"
_SNAPSHOT = "SELECT id, task, created_at, manifest FROM snapshots WHERE id = ?"
_SNAPSHOTS = "SELECT id, task, created_at FROM snapshots WHERE task = ? ORDER BY created_at, id"


class StudentRow(msgspec.Struct, frozen=True):
    """A student, its model apart. Times as the ledger has them."""

    id: str
    task: str
    created_at: str
    snapshot: str
    summary: str  # JSON
    ended_at: str | None = None
    ended_why: str | None = None


class SnapshotRow(msgspec.Struct, frozen=True):
    """A frozen set of rows."""

    id: str
    task: str
    created_at: str
    manifest: str  # JSON


def students_of(place: str, task: str) -> list[StudentRow]:
    """All students there ever were of a task, the oldest first."""
    with reading(place) as ask:
        return [StudentRow(*row) for row in ask(f"{_LIVE} ORDER BY created_at, id", task)]


def student_row(place: str, student: str) -> StudentRow | None:
    """A student by its id."""
    with reading(place) as ask:
        rows = ask(_ONE, student)
    return StudentRow(*rows[0]) if rows else None


def model_of(place: str, student: str) -> bytes | None:
    """A student's file; None where it was removed, or never was."""
    with reading(place) as ask:
        rows = ask(_MODEL, student)
    return to_bytes(rows[0][0]) if rows else None


def still_there(place: str, rows: Sequence[str]) -> set[str]:
    """Which of these receipts still have their content."""
    found: set[str] = set()
    with reading(place) as ask:
        for at in range(0, len(rows), _PAGE):
            page = rows[at : at + _PAGE]
            marks = ", ".join("?" * len(page))
            found.update(str(row[0]) for row in ask(f"{_THERE} ({marks})", *page))
    return found


def snapshot_of(place: str, snapshot: str) -> SnapshotRow | None:
    """A snapshot with its manifest."""
    with reading(place) as ask:
        rows = ask(_SNAPSHOT, snapshot)
    return SnapshotRow(*rows[0]) if rows else None


def snapshots_of(place: str, task: str) -> list[tuple[str, str, str]]:
    """Id, task and time of a task's snapshots, the oldest first."""
    with reading(place) as ask:
        return [(str(row[0]), str(row[1]), str(row[2])) for row in ask(_SNAPSHOTS, task)]
