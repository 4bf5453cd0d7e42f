"""Reading a ledger beside a gateway that writes it: by read-only connections, opened for each call."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from upstack.core.errors import LedgerError
from upstack.core.store.cipher import decrypt
from upstack.core.store.places import is_postgres, keystore_of, shown
from upstack.core.store.rows import COLUMNS, moment, to_receipt
from upstack.core.store.schema import VERSION, foreign, version_of
from upstack.core.store.spending import KEYS, SUMS, Spent
from upstack.core.store.sqlite import describe
from upstack.core.types import Receipt

LEDGER_EMPTY = "ledger_empty"  # the code of the error where nothing was ever recorded

_WAIT_S = 5.0
_NAMES = ", ".join(COLUMNS)
_COUNT = len(COLUMNS)
_FINISHED = (
    f"SELECT {_NAMES}, request, answer, subject, cipher_key"
    " FROM receipts LEFT JOIN contents ON receipt_seq = seq WHERE id = ?"
)
_OPEN = f"SELECT {_NAMES}, request, NULL, subject, cipher_key FROM openings WHERE id = ?"
_NEWEST = f"SELECT {_NAMES} FROM receipts ORDER BY id DESC LIMIT ?"
_LAST_ASKED = "SELECT id FROM receipts WHERE check_of IS NULL ORDER BY id DESC LIMIT 1"
_BEFORE = f"SELECT {_NAMES} FROM receipts WHERE id < ? ORDER BY id DESC LIMIT ?"

_CHARGED = "cost_picodollars + unknown_reserved_picodollars"
_SPENT = (
    f"SELECT {{kind}}, sum(CASE WHEN day = ? THEN {_CHARGED} ELSE 0 END),"
    f" sum(CASE WHEN day LIKE ? THEN {_CHARGED} ELSE 0 END), sum({_CHARGED}), sum(requests)"
    " FROM spend WHERE {kind} <> ''{here} GROUP BY {kind}"
)

Ask = Callable[..., list[Any]]  # a statement and its values: the rows


def read_receipt(place: Path | str, receipt_id: str, keystore: str | None = None) -> Receipt | None:
    """Find a receipt by its id, that of an open stream included; LedgerError where the ledger cannot be read.

    Encrypted contents are decrypted with the keystore; where that cannot be they are left out, and `encrypted` is set.
    """
    with reading(str(place)) as ask:
        for query in (_FINISHED, _OPEN, _FINISHED):  # a stream may end between the first look and the second
            for row in ask(query, receipt_id):
                *stored, subject, cipher_key = row[_COUNT:]
                request, answer = map(to_bytes, stored)
                if cipher_key is not None:
                    parts = ((request, "request"), (answer, "answer"))
                    request, answer = decrypted(keystore_of(str(place), keystore), cipher_key, receipt_id, parts)
                return to_receipt(row[:_COUNT], (request, answer, subject, cipher_key is not None))
    return None


def list_receipts(place: Path | str, limit: int, before: str | None = None) -> list[Receipt]:
    """List finished receipts, newest first, without request and answer; those older than the id `before`, if given."""
    with reading(str(place)) as ask:
        rows = ask(_NEWEST, limit) if before is None else ask(_BEFORE, before, limit)
    return [to_receipt(row) for row in rows]


def last_asked(place: Path | str) -> str | None:
    """The id of the newest receipt of what a caller asked; None where there is none."""
    with reading(str(place)) as ask:
        rows = ask(_LAST_ASKED)
    return str(rows[0][0]) if rows else None


def known_ids(place: Path | str, ids: Sequence[str]) -> set[str]:
    """Which of these receipts there are, those of open streams left out."""
    marks = ", ".join("?" * len(ids))
    with reading(str(place)) as ask:
        return {row[0] for row in ask(f"SELECT id FROM receipts WHERE id IN ({marks})", *ids)}


def spent_by(place: Path | str, now: float, chain: int | None = None) -> dict[str, Spent]:
    """What every key, team and task has spent, by "key/NAME" and so on; day and month are those of `now` (UTC).

    Of one chain, if given.
    """
    here = "" if chain is None else f" AND chain = {chain:d}"
    day = moment(now)[:10]
    found: dict[str, Spent] = {}
    with reading(str(place)) as ask:
        for kind in ("key", "team", "task"):
            rows = ask(_SPENT.format(kind=kind, here=here), day, f"{day[:7]}%")
            found |= {f"{kind}/{name}": Spent(*(int(number) for number in sums)) for name, *sums in rows}
    return found


def spend_sums(place: Path | str, by: Sequence[str], since: str = "", until: str = "9") -> list[tuple[Any, ...]]:
    """Sum up what was spent from day `since` (included) to `until` (not included): the values of `by`, then of SUMS.

    `by`: some of day, key, team, task, route, provider, model. Rows come in the order of `by`.
    """
    names = ", ".join(name for name in KEYS if name in by and name != "chain")
    sums = ", ".join(f"sum({name})" for name in SUMS)
    query = f"SELECT {names}, {sums} FROM spend WHERE day >= ? AND day < ? GROUP BY {names} ORDER BY {names}"
    with reading(str(place)) as ask:
        rows = ask(query, since, until)
    count = len(by)
    return [(*row[:count], *(int(number or 0) for number in row[count:])) for row in rows]


def check_version(place: str) -> None:
    """Raise LedgerError where the ledger is not there, is another application's, or is not of this version."""
    with reading(place):
        pass


@contextmanager
def reading(place: str) -> Iterator[Ask]:
    """Give what asks a ledger; LedgerError where it cannot be read. Statements have `?` for a value in either kind."""
    with _postgres(place) if is_postgres(place) else _sqlite(place) as ask:
        yield ask


@contextmanager
def _sqlite(path: str) -> Iterator[Ask]:
    if not Path(path).exists():
        raise LedgerError(f"there is no ledger {path}; name the file in server.ledger, or serve a request first")
    if Path(path).is_dir():
        raise LedgerError(f"the ledger {path} is a folder; name a file in server.ledger")
    try:
        uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)) as database:
            _check(path, foreign(database), version_of(database))
            yield lambda query, *values: database.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise LedgerError(describe(path, error)) from None


@contextmanager
def _postgres(url: str) -> Iterator[Ask]:
    from upstack.core.store import postgres  # noqa: PLC0415 - an extra, and large

    try:
        with postgres.connect(url) as database:
            _check(url, postgres.foreign(database), postgres.version_of(database))
            yield lambda query, *values: database.execute(query.replace("?", "%s").encode(), values).fetchall()
    except postgres.Error as error:
        raise LedgerError(postgres.describe(url, error)) from None


def _check(place: str, wrong: str | None, version: int) -> None:
    """Raise LedgerError where the ledger is `wrong`, or not of this version."""
    if wrong is None and version == 0:
        raise LedgerError(f"{shown(place)} has no receipts yet; serve a request first", code=LEDGER_EMPTY)
    if wrong is None and version < VERSION:
        wrong = f"is of ledger version {version}; `upstack serve` brings it to version {VERSION}"
    if wrong is not None:
        raise LedgerError(f"{shown(place)} {wrong}")


def decrypted(
    path: str, cipher_key: str, owner: str, parts: Iterable[tuple[bytes | None, str]]
) -> tuple[bytes | None, ...]:
    """The parts of a content, each with the name of its field; None where the keystore or the key is not there."""
    parts = tuple(parts)
    from upstack.core.store.keystore import Keystore  # noqa: PLC0415 - most ledgers need none

    with contextlib.suppress(LedgerError), closing(Keystore(path)) as keystore:
        key = keystore.key(cipher_key)
        if key is not None:
            return tuple(part and decrypt(key, part, owner, field) for part, field in parts)
    return (None,) * len(parts)


def to_bytes(content: bytes | str | None) -> bytes | None:
    """A stored content as it came in."""
    return content.encode() if isinstance(content, str) else content
