"""A copy of a ledger's file beside a gateway that writes it, and back. PostgreSQL has pg_dump for that."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from upstack.core.errors import LedgerError
from upstack.core.store.lock import Lock
from upstack.core.store.places import is_postgres, make
from upstack.core.store.reading import check_version
from upstack.core.store.sqlite import describe
from upstack.core.store.transfer import ChainEnd, snapshot

_PAGES = 2000  # 16 MB between two rests
_REST_S = 0.01  # in which the disk belongs to the gateway
_COMPANIONS = ("-wal", "-shm")


def backup(place: str, target: str) -> tuple[ChainEnd, ...]:
    """Copy the ledger at `place` into a new file, sound and whole or not at all; where its chains end."""
    _for_files(place, "pg_dump makes a backup of it; `upstack export --everything` works, too")
    _new(target)
    check_version(place)
    return _copy(place, target)


def restore(source: str, place: str, now: float) -> tuple[tuple[ChainEnd, ...], str | None]:
    """Put a backup in the ledger's place: where its chains end, and the name that the ledger before it has now.

    LedgerError while a gateway holds the ledger, or where the backup is none.
    """
    _for_files(place, "pg_restore brings back what pg_dump wrote")
    lock = Lock(place, 0.0)
    try:
        check_version(source)
        draft = f"{place}.restoring"
        for each in ("", *_COMPANIONS):  # of a restore that was killed; nobody else has the lock
            Path(draft + each).unlink(missing_ok=True)
        ends = _copy(source, draft)
        aside = _set_aside(place, now)
        os.rename(draft, place)  # noqa: PTH104 - both are in one folder
        _sync(place)
    except OSError as error:
        raise LedgerError(f"the ledger {place} cannot be restored: {error.strerror}") from None
    finally:
        lock.release()
    return ends, aside


def _copy(source: str, target: str) -> tuple[ChainEnd, ...]:
    draft = f"{target}.{os.getpid()}.tmp"
    uri = f"file:{quote(str(Path(source).absolute()))}?mode=ro"
    try:
        make(draft)
        with closing(sqlite3.connect(uri, uri=True, timeout=5)) as read, closing(sqlite3.connect(draft)) as written:
            read.execute("BEGIN")  # one moment: else each commit of the gateway would begin the copy anew
            read.execute("SELECT count(*) FROM sqlite_master").fetchone()
            read.backup(written, pages=_PAGES, progress=lambda *_: time.sleep(_REST_S))
            (said,) = written.execute("PRAGMA integrity_check").fetchone()
            if said != "ok":
                raise LedgerError(f"the copy of {source} is damaged, as the ledger may be: {said.splitlines()[0]}")
            written.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
        with snapshot(draft) as copy:
            ends = copy.ends()
        _sync(draft)
        os.link(draft, target)  # unlike a rename it replaces nothing
        _sync(target)
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, sqlite3.Error):
            raise LedgerError(describe(source, error)) from None
        raise LedgerError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        for each in ("", "-journal", *_COMPANIONS):
            with suppress(OSError):
                Path(draft + each).unlink(missing_ok=True)
    return ends


def _set_aside(place: str, now: float) -> str | None:
    """Give the ledger that is there a dated name, with what SQLite has beside it."""
    if not Path(place).exists():
        return None
    aside = f"{place}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    _new(aside)
    for each in ("", *_COMPANIONS):
        with suppress(FileNotFoundError):
            os.rename(place + each, aside + each)  # noqa: PTH104 - of the ledger under lock
    return aside


def _sync(path: str) -> None:
    for each in (path, Path(path).absolute().parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _new(target: str) -> None:
    if os.path.lexists(target):
        raise LedgerError(f"{target} is there already, and nothing is overwritten; name a new file", code="file_exists")


def _for_files(place: str, instead: str) -> None:
    if is_postgres(place):
        raise LedgerError(f"the ledger is in PostgreSQL: {instead}", code="not_a_file")
