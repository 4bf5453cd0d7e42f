"""What makes a SQLite file a ledger, and which version of it: cheap to ask, as every start does.

The tables themselves are in `tables`, how they came about in `migrations`. A new file takes a short way: the statements
of schema.sql, which are what the migrations make (`make schema` writes them, a test compares).
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

from upstack.core.errors import LedgerError
from upstack.core.store.places import hushed, shown

APPLICATION_ID = 0x55505354  # "UPST"
VERSION = 5  # migrations so far


def version_of(database: sqlite3.Connection) -> int:
    """How many migrations a file has seen; 0: none, it is empty."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)


def create(database: sqlite3.Connection) -> None:
    """Make the tables in an empty file, in one transaction."""
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    database.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA application_id = {APPLICATION_ID};")
    stamp(database)
    database.execute("COMMIT")


def stamp(database: sqlite3.Connection) -> None:
    """Write the newest version into the file, also where it stands there already."""
    database.execute(f"PRAGMA user_version = {VERSION}")


def foreign(database: sqlite3.Connection) -> str | None:
    """Say what keeps a file from being a ledger that this version can use, or None."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    version = version_of(database)
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        return "is another application's database; name a file of its own in server.ledger"
    if version > VERSION:
        return (
            f"was written by a newer Upstack (ledger version {version}, this one knows up to {VERSION}); "
            "update Upstack, or name another file in server.ledger"
        )
    return None


def migrate_apart(place: str) -> None:
    """Bring an older ledger to the newest version, in a process that ends with it; LedgerError says what kept it."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "upstack.core.store.migrate"],
        input=place,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stdout.strip() or "its migration ended without a word; standard error says why"
        words = f"the ledger {shown(place)} could not be brought to version {VERSION}: {reason}"
        raise LedgerError(hushed(words, place))
