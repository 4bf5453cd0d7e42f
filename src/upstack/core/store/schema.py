"""The tables of the ledger in SQLite, and how an older file comes to have them.

A step is never changed once released; a new one is added at the end. `user_version` counts the steps a file has.
"""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x55505354  # "UPST"

_RECEIPT = """
    created_at TEXT NOT NULL,  -- UTC, ISO 8601, microseconds
    state TEXT NOT NULL,
    model TEXT NOT NULL,  -- as the caller named it
    task TEXT,
    strategy TEXT NOT NULL,
    plan TEXT NOT NULL,  -- the targets in the order they would be asked
    why TEXT NOT NULL,
    route TEXT,  -- the one that answered
    stream INTEGER NOT NULL,
    status INTEGER NOT NULL,  -- HTTP status the caller saw
    error TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cached_input_tokens INTEGER,  -- part of input_tokens
    cache_write_tokens INTEGER,  -- part of input_tokens
    reasoning_tokens INTEGER,  -- part of output_tokens
    cost_picodollars INTEGER,  -- 1 USD = 10^12; NULL: unknown
    first_byte_s REAL,
    duration_s REAL NOT NULL,
    attempts TEXT NOT NULL,  -- JSON, in the order they were made
    capture TEXT NOT NULL"""

# A time is text because people read these tables. Making it costs half a microsecond; a generated column would cost
# more, as SQLite works out even virtual ones with every insert. The only index is the one on `id`: ids are in order of
# time, so that all grows at the right edge and a commit touches few pages; openings, which come and go, have one tree
# only. Receipts are only ever added.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"CREATE TABLE receipts (\n    seq INTEGER PRIMARY KEY,\n    id TEXT NOT NULL UNIQUE,{_RECEIPT}\n)",
        """CREATE TABLE contents (
    receipt_seq INTEGER PRIMARY KEY REFERENCES receipts (seq),
    request,  -- TEXT, or BLOB where it is not UTF-8
    answer
)""",
        f"""CREATE TABLE openings (  -- streams that may have begun and have not ended
    id TEXT NOT NULL PRIMARY KEY,{_RECEIPT},
    request
) WITHOUT ROWID""",
    ),
)


def migrate(database: sqlite3.Connection) -> None:
    """Bring the file to the newest version, in one transaction; a kill in the middle leaves it as it was."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == len(MIGRATIONS):
        return
    database.execute("BEGIN IMMEDIATE")
    for step in MIGRATIONS[version:]:
        for statement in step:
            database.execute(statement)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    stamp(database)
    database.execute("COMMIT")


def stamp(database: sqlite3.Connection) -> None:
    """Write the newest version into the file, also where it stands there already."""
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def foreign(database: sqlite3.Connection) -> str | None:
    """Say what keeps a file from being a ledger that this version can use, or None."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        return "is another application's database; name a file of its own in server.ledger"
    if version > len(MIGRATIONS):
        return (
            f"was written by a newer Upstack (ledger version {version}, this one knows up to {len(MIGRATIONS)}); "
            "update Upstack, or name another file in server.ledger"
        )
    return None
