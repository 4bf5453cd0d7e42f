"""Ledgers of every earlier version open, and come to have the tables of this one."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from msgspec.structs import replace

from tests.postgres import PostgresServer, ask
from upstack.core.errors import LedgerError
from upstack.core.store.engine import transaction
from upstack.core.store.migrate import migrate
from upstack.core.store.reading import list_receipts, read_receipt
from upstack.core.store.rows import COLUMNS, to_row
from upstack.core.store.schema import APPLICATION_ID, VERSION
from upstack.core.store.sqlite import SqliteLedger
from upstack.core.store.tables import metadata
from upstack.core.store.verify import verify
from upstack.core.store.writer import open_ledger
from upstack.core.types import Receipt
from upstack.testing.receipts import BARE, UNASKED, make_receipt

_RECEIPT_1 = """
    created_at TEXT NOT NULL, state TEXT NOT NULL, model TEXT NOT NULL, task TEXT, strategy TEXT NOT NULL,
    plan TEXT NOT NULL, why TEXT NOT NULL, route TEXT, stream INTEGER NOT NULL, status INTEGER NOT NULL, error TEXT,
    input_tokens INTEGER, output_tokens INTEGER, cached_input_tokens INTEGER, cache_write_tokens INTEGER,
    reasoning_tokens INTEGER, cost_picodollars INTEGER, first_byte_s REAL, duration_s REAL NOT NULL,
    attempts TEXT NOT NULL, capture TEXT NOT NULL"""
VERSION_1 = f"""
    CREATE TABLE receipts (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, {_RECEIPT_1});
    CREATE TABLE contents (receipt_seq INTEGER PRIMARY KEY REFERENCES receipts (seq), request, answer);
    CREATE TABLE openings (id TEXT NOT NULL PRIMARY KEY, {_RECEIPT_1}, request) WITHOUT ROWID;
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = 1;
"""


def _asked_before(**changes: Any) -> Receipt:
    """A receipt without what the first versions did not know."""
    return make_receipt(**UNASKED | changes)


def make_version_1(path: Path, receipts: list[Receipt], openings: list[Receipt]) -> None:
    """A ledger as the first version wrote it."""
    names = ", ".join(COLUMNS[:22])
    marks = ", ".join("?" * 22)
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript("PRAGMA journal_mode = WAL;" + VERSION_1)
        for seq, receipt in enumerate(receipts, 1):
            database.execute(f"INSERT INTO receipts (seq, {names}) VALUES (?, {marks})", (seq, *to_row(receipt)[:22]))
            if receipt.request is not None or receipt.answer is not None:
                contents = (seq, *map(_shown, (receipt.request, receipt.answer)))
                database.execute("INSERT INTO contents VALUES (?, ?, ?)", contents)
        for opening in openings:
            row = (*to_row(opening)[:22], _shown(opening.request))
            database.execute(f"INSERT INTO openings ({names}, request) VALUES ({marks}, ?)", row)


def _shown(content: bytes | None) -> str | bytes | None:
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return content


def tables_of(path: Path) -> dict[str, Any]:
    """The columns and indexes of a file: names, types, whether NULL is allowed, place in the key."""
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {
            name: sorted(row[1:4] + row[5:] for row in database.execute(f"PRAGMA table_info({name})")) for name in names
        }
        unique = {name: [row[2:4] for row in database.execute(f"PRAGMA index_list({name})")] for name in names}
    return {name: (columns[name], unique[name]) for name in names}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ledger may be made."""
    return tmp_path / "upstack.db"


def test_a_ledger_of_the_first_version_opens_with_all_it_had(path: Path) -> None:
    """Receipts, contents that are no text, openings: all are there, and the chain covers them."""
    receipts = [
        _asked_before(),
        _asked_before(**BARE),
        _asked_before(answer=None),
        _asked_before(request=b"\xff", answer=b"\0"),
        *(_asked_before(model=f"m{number}") for number in range(1500)),
    ]
    opening = _asked_before(state="open", stream=True, answer=None)
    make_version_1(path, receipts, [opening])
    with pytest.raises(LedgerError, match=r"ledger version 1.*upstack serve"):
        list_receipts(path, 1)
    ledger = SqliteLedger(str(path))
    assert [read_receipt(path, receipt.id) for receipt in receipts[:5]] == receipts[:5]
    assert verify(str(path)).receipts == len(receipts)
    assert ledger.recover() == 1
    later = _asked_before()
    assert ledger.record(([to_row(later)], [(later.request, later.answer, None, False)], [], [])) == []
    ledger.close()
    done = verify(str(path))
    assert (done.found, done.receipts, done.contents) == (0, len(receipts) + 2, len(receipts) + 1)
    assert read_receipt(path, opening.id) == replace(opening, state="truncated", error="gateway_restarted")


def test_an_empty_ledger_of_the_first_version_opens(path: Path) -> None:
    """One that was made and never used."""
    make_version_1(path, [], [])
    SqliteLedger(str(path)).close()
    assert (list_receipts(path, 9), verify(str(path)).found) == ([], 0)


def test_the_short_way_makes_what_the_migrations_make(path: Path, tmp_path: Path) -> None:
    """A new file has the same tables as one that went through every version."""
    SqliteLedger(str(path)).close()
    long_way = tmp_path / "long.db"
    long_way.touch()
    migrate(str(long_way))
    assert tables_of(path) == tables_of(long_way)
    with closing(sqlite3.connect(path)) as short, closing(sqlite3.connect(long_way)) as long:
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT version_num FROM upstack_version"):
            assert short.execute(query).fetchall() == long.execute(query).fetchall()


def test_the_migrations_make_the_tables_that_the_code_knows(postgres: PostgresServer) -> None:
    """Alembic finds nothing to add in PostgreSQL, and there is a migration for each version."""
    url = postgres.new_database()
    migrate(url)
    with transaction(url) as database:
        context = MigrationContext.configure(database, opts={"version_table": "upstack_version"})
        assert [change for change in compare_metadata(context, metadata) if not _is_comment(change)] == []
        assert database.execute(sa.text("SELECT version_num FROM upstack_version")).scalar() == f"{VERSION:04}"


def _is_comment(change: Any) -> bool:
    kind = change[0][0] if isinstance(change, list) else change[0]
    return str(kind) in {"modify_comment", "add_table_comment"}


def test_a_migration_that_is_killed_leaves_the_ledger_as_it_was(path: Path) -> None:
    """At whatever moment: what was there is there, in the old version or the new, and the next start goes on."""
    receipts = [_asked_before(request=b"x" * 500) for _ in range(3000)]
    make_version_1(path, receipts, [])
    rng = random.Random(5)
    for _ in range(8):
        command = [sys.executable, "-m", "upstack.core.store.migrate"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stdin is not None
        process.stdin.write(str(path).encode())
        process.stdin.close()
        time.sleep(rng.uniform(0.2, 1.5))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert database.execute("SELECT count(*) FROM receipts").fetchone() == (3000,)
            assert database.execute("PRAGMA user_version").fetchone()[0] in {1, VERSION}
    SqliteLedger(str(path)).close()
    done = verify(str(path))
    assert (done.found, done.receipts) == (0, 3000)


def test_a_newer_database_is_refused_and_left_as_it_is(postgres: PostgresServer) -> None:
    """The remedy is named, as for a file."""
    url = postgres.new_database()
    migrate(url)
    with transaction(url, write=True) as database:
        database.execute(sa.text("UPDATE upstack_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match="newer Upstack"):
        open_ledger(url, 0.0)
    assert ask(url, "SELECT version_num FROM upstack_version") == [("9999",)]


def test_another_applications_database_is_refused_and_left_as_it_is(postgres: PostgresServer) -> None:
    """A table of one of our names is somebody's, and nothing is added beside it."""
    url = postgres.new_database()
    with transaction(url, write=True) as database:
        database.execute(sa.text("CREATE TABLE receipts (amount integer)"))
    for use in (lambda: open_ledger(url, 0.0), lambda: list_receipts(url, 1)):
        with pytest.raises(LedgerError, match="of another application"):
            use()
    assert ask(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("receipts",)]
