"""The keystore: a SQLite file of its own, with the keys that contents are encrypted under and the key that signs.

It lies beside the ledger and is never in its exports and backups: who destroys a key here makes what was encrypted
under it unreadable in every copy. A content's key belongs to a scope: "subject/NAME", or for contents without a subject
"month/2026-01" (UTC, when it was written).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from upstack.core.errors import LedgerError
from upstack.core.store.cipher import KEY_BYTES
from upstack.core.store.places import make, place_of
from upstack.core.store.rows import moment
from upstack.core.store.signing import Signer, new_seed

KEYSTORE_MISSING = "keystore_missing"  # the code of the error where there is none

_APPLICATION_ID = 0x5550534B  # "UPSK"
_VERSION = 1
_WAIT_S = 5.0
_TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS content_keys (
    id TEXT NOT NULL PRIMARY KEY, created_at TEXT NOT NULL, scope TEXT NOT NULL UNIQUE, key BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS signing_keys (created_at TEXT NOT NULL, seed BLOB NOT NULL);
"""
_ADD = "INSERT INTO content_keys (id, created_at, scope, key) VALUES (?, ?, ?, ?) ON CONFLICT (scope) DO NOTHING"
_FIND = "SELECT id, key FROM content_keys WHERE scope = ?"


class ContentKey(NamedTuple):
    """A key and what the ledger calls it."""

    id: str
    key: bytes


def subject_scope(subject: str) -> str:
    """The scope of what is about a subject."""
    return f"subject/{subject}"


def scope_of(subject: str | None, now: float) -> str:
    """The scope of a content that is written now."""
    return f"month/{moment(now)[:7]}" if subject is None else subject_scope(subject)


class Keystore:
    """An open keystore. Every method raises LedgerError where the file does not do what it should."""

    def __init__(self, path: str, *, write: bool = False, new: bool = False) -> None:
        """Open the file, with `new` an empty one where there is none."""
        self.path = path
        file = Path(path)
        if not file.is_file() and not (new and (not file.exists() or file.is_file())):  # another may make it meanwhile
            raise LedgerError(
                f"there is no keystore {path}; put it back, or name the file in server.keystore (`upstack ledger key "
                "--new` makes one; what was encrypted under the keys of another stays unreadable)",
                code=KEYSTORE_MISSING,
            )
        with self._saying():
            if new:
                _create(path)
            uri = f"file:{quote(str(Path(path).absolute()))}?mode={'rw' if write else 'ro'}"
            self._database = sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)
            try:
                _check(path, self._database)
                self._database.execute("PRAGMA secure_delete = ON")
                self._database.execute("PRAGMA synchronous = EXTRA")
            except BaseException:
                self._database.close()
                raise
        self._place = place_of(path)
        self._version = self._data_version()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def stands(self) -> bool:
        """Whether the file that is open is the one that stands there."""
        return self._place == place_of(self.path)

    def changed(self) -> bool:
        """Whether somebody else has changed it since this was last asked."""
        before, self._version = self._version, self._data_version()
        return before != self._version

    def key(self, key_id: str) -> bytes | None:
        """Find a key by its id."""
        with self._saying():
            row = self._database.execute("SELECT key FROM content_keys WHERE id = ?", (key_id,)).fetchone()
        return None if row is None else bytes(row[0])

    def find(self, scope: str) -> ContentKey | None:
        """Find the key of a scope."""
        with self._saying():
            row = self._database.execute(_FIND, (scope,)).fetchone()
        return None if row is None else ContentKey(*row)

    def add(self, scopes: Iterable[str]) -> None:
        """Make the keys of scopes that have none, durably."""
        now = moment(time.time())
        rows = [(f"key_{os.urandom(8).hex()}", now, scope, os.urandom(KEY_BYTES)) for scope in scopes]
        with self._transaction() as database:
            database.executemany(_ADD, rows)

    def forget(self, scope: str) -> list[str]:
        """Destroy the key of a scope; the ids of what was destroyed."""
        with self._transaction() as database:
            ids = [key_id for (key_id,) in database.execute("SELECT id FROM content_keys WHERE scope = ?", (scope,))]
            database.execute("DELETE FROM content_keys WHERE scope = ?", (scope,))
        return ids

    def signer(self) -> Signer | None:
        """The key that signs, if there is one."""
        with self._saying():
            row = self._database.execute("SELECT seed FROM signing_keys ORDER BY rowid LIMIT 1").fetchone()
        return None if row is None else Signer(bytes(row[0]))

    def add_signer(self) -> None:
        """Make the key that signs where there is none."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO signing_keys (created_at, seed) SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM signing_keys)",
                (moment(time.time()), new_seed()),
            )

    def _data_version(self) -> int:
        with self._saying():
            return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._saying():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _saying(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(
                f"the keystore {self.path} failed: {error}; check the file, its disk and its folder"
            ) from None


def _create(path: str) -> None:
    """Make the file and its tables, both where they are not there yet; only its owner may read it."""
    make(path)
    with closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as database:
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            database.execute("PRAGMA synchronous = EXTRA")
            database.executescript(
                f"{_TABLES} PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {_VERSION}; COMMIT;"
            )


def _check(path: str, database: sqlite3.Connection) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        raise LedgerError(f"{path} is no keystore; name a file of its own in server.keystore")
    if version > _VERSION:
        raise LedgerError(f"the keystore {path} was written by a newer Upstack; update Upstack")
