"""Attempts to certify and certificates, as a ledger keeps them. What is written is written in one transaction each."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence

import msgspec
import sqlalchemy as sa

from upstack.core.errors import LedgerError
from upstack.core.store.checks import Part
from upstack.core.store.engine import connected, saying, transaction
from upstack.core.store.places import is_postgres
from upstack.core.store.tables import certificates, parts, submissions

RENEWED = "renewed"  # why a certificate ended that another took on from before it expired
_LOCK = 0x50524F46  # "PROF"


class Submission(msgspec.Struct, frozen=True):
    """An attempt to certify a task. Its members are the columns, in their order; times as the ledger has them."""

    task: str
    number: int  # from 1
    created_at: str
    since: str  # the first id that may be evidence
    rows: int
    terms: bytes
    plans: bytes
    digest: str
    delta: float
    ended_at: str | None = None
    ended_why: str | None = None
    eager: int | None = None


class Certificate(msgspec.Struct, frozen=True):
    """What was proved once, and whether it is in force. Its members are the columns, in their order."""

    id: str
    task: str
    submission: int
    place: int
    issued_at: str
    expires_at: str
    plan: bytes
    summary: str
    ended_at: str | None = None
    ended_why: str | None = None


class History(msgspec.Struct, frozen=True):
    """All that was ever attempted and issued for a task, the oldest first."""

    submissions: tuple[Submission, ...]
    certificates: tuple[Certificate, ...]

    @property
    def open(self) -> Submission | None:
        """The attempt that goes on."""
        return next((each for each in reversed(self.submissions) if each.ended_at is None), None)

    @property
    def in_force(self) -> Certificate | None:
        """The certificate that has not ended."""
        return next((each for each in reversed(self.certificates) if each.ended_at is None), None)


def history(place: str, task: str) -> History:
    """Read what there is of a task."""
    with saying(place), transaction(place) as database:
        tried = sa.select(submissions).where(submissions.c.task == task).order_by(submissions.c.number)
        issued = sa.select(certificates).where(certificates.c.task == task)
        issued = issued.order_by(certificates.c.issued_at, certificates.c.id)
        return History(
            tuple(Submission(*row) for row in database.execute(tried)),
            tuple(Certificate(*row) for row in database.execute(issued)),
        )


def keep_parts(place: str, task: str, decided: Sequence[Part]) -> None:
    """Keep what checks may be used for."""
    rows = [{"id": each.id, "task": task, "cluster": each.cluster, "part": each.part} for each in decided]
    if rows:
        with saying(place), transaction(place, write=True) as database:
            database.execute(parts.insert(), rows)


def submit(place: str, submission: Submission) -> None:
    """Write an attempt before its evidence is read; the one before it ends."""
    with saying(place), transaction(place, write=True) as database:
        _end_submissions(database, submission.task, submission.created_at, "another attempt follows")
        database.execute(submissions.insert().values(**msgspec.structs.asdict(submission)))


def issue(place: str, certificate: Certificate, why: str = "replaced") -> None:
    """Promote: the certificate is in force from here on, in place of the one before it, which ends for that reason."""
    with saying(place), transaction(place, write=True) as database:
        _end_certificates(database, certificate.task, certificate.issued_at, why)
        database.execute(certificates.insert().values(**msgspec.structs.asdict(certificate)))


def hasten(place: str, task: str, number: int, eager: int) -> None:
    """Note whether an attempt wants all requests to be checks."""
    this = sa.and_(submissions.c.task == task, submissions.c.number == number)
    with saying(place), transaction(place, write=True) as database:
        database.execute(submissions.update().where(this).values(eager=eager))


def end(place: str, task: str, at: str, why: str) -> None:
    """End what is in force and what is attempted of a task."""
    with saying(place), transaction(place, write=True) as database:
        _end_certificates(database, task, at, why)
        _end_submissions(database, task, at, why)


def _end_submissions(database: sa.Connection, task: str, at: str, why: str) -> None:
    going_on = sa.and_(submissions.c.task == task, submissions.c.ended_at.is_(None))
    database.execute(submissions.update().where(going_on).values(ended_at=at, ended_why=why))


def _end_certificates(database: sa.Connection, task: str, at: str, why: str) -> None:
    in_force = sa.and_(certificates.c.task == task, certificates.c.ended_at.is_(None))
    database.execute(certificates.update().where(in_force).values(ended_at=at, ended_why=why))


@contextlib.contextmanager
def proving(place: str) -> Iterator[bool]:
    """Be the only one that proves by this ledger, where nobody else is; a process that ends lets go."""
    if is_postgres(place):
        with saying(place), connected(place, write=True) as database:
            got = database.execute(sa.text("SELECT pg_try_advisory_lock(:lock, 0)"), {"lock": _LOCK}).scalar_one()
            database.commit()
            try:
                yield bool(got)
            finally:
                if got:
                    database.execute(sa.text("SELECT pg_advisory_unlock(:lock, 0)"), {"lock": _LOCK})
                    database.commit()
        return
    try:
        descriptor = os.open(f"{os.path.realpath(place)}.proving", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerError(f"the lock beside the ledger {place} cannot be made: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
