"""Erasure: takes all contents of a subject, or of one receipt, out of a ledger, and destroys the subject's key.

The key goes first, so that backups of the ledger become unreadable at once. Killed in between, it is called again. What
comes in meanwhile about the same subject is a new content, under a new key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from upstack.core.errors import LedgerError
from upstack.core.store.engine import connected, saying, transaction
from upstack.core.store.keystore import Keystore, subject_scope
from upstack.core.store.links import OUTCOMES, RECEIPTS, Kind
from upstack.core.store.places import is_postgres
from upstack.core.store.removal import ChangedError, Remover, removing
from upstack.core.store.signing import Signer
from upstack.core.store.tables import openings, outcomes, receipts

_TRIES = 20
_PAUSE = 5  # times as long as each transaction takes: it is rare, and somebody waits for it
_WAL_S = 10.0  # for which readers are waited for that still look at what was erased


class Erased(msgspec.Struct, frozen=True):
    """What was erased. `keys_elsewhere`: contents had been encrypted under keys that this keystore does not have."""

    contents: int
    openings: int
    keys: int
    keys_elsewhere: tuple[str, ...]
    in_file: bool = False  # an old copy may stand in the write-ahead log until readers have gone


def erase_subject(place: str, keystore: Keystore, signer: Signer, subject: str) -> Erased:
    """Erase whatever is about a subject; again, it finds nothing. LedgerError where the ledger cannot be changed."""
    keys = keystore.forget(subject_scope(subject))
    _wait_for_writers(place)

    def mine(kind: Kind) -> sa.Select[Any]:
        return sa.select(kind.owner, kind.kept.c.cipher_key).where(kind.kept.c.subject == subject)

    why = f"erasure of a subject ({signer.digest(subject)})"
    return _erase(place, signer, why, mine, openings.c.subject == subject, keys)


def erase_receipt(place: str, signer: Signer, receipt_id: str) -> Erased:
    """Erase request and answer of one receipt, and what was said about it. Its key stays, as others' content has it."""

    def mine(kind: Kind) -> sa.Select[Any]:
        this = receipts.c.id == receipt_id if kind is RECEIPTS else outcomes.c.receipt == receipt_id
        return sa.select(kind.owner, sa.null()).select_from(kind.kept.join(kind.rows)).where(this)

    return _erase(place, signer, "erasure of a receipt's content", mine, openings.c.id == receipt_id, [])


def _erase(
    place: str,
    signer: Signer,
    why: str,
    mine: Callable[[Kind], sa.Select[Any]],
    begun: sa.ColumnElement[bool],
    keys: Sequence[str],
) -> Erased:
    """Delete contents page by page; `begun` says which openings' requests go with them."""
    total = 0
    under: set[str] = set()
    with removing(place, signer, pause=_PAUSE) as remover:
        for kind in (RECEIPTS, OUTCOMES):
            total += _empty(remover, kind, mine(kind), why, under)
    with saying(place), transaction(place, write=True) as database:
        nothing = {"request": None, "subject": None, "cipher_key": None}
        there = openings.c.request.is_not(None) | openings.c.subject.is_not(None)
        blanked = database.execute(openings.update().where(begun, there).values(nothing)).rowcount
    done = is_postgres(place) or _truncate_log(place)
    return Erased(total, blanked, len(keys), tuple(sorted(under - set(keys))), not done)


def _empty(remover: Remover, kind: Kind, query: sa.Select[Any], why: str, under: set[str]) -> int:
    """Empty the rows that the query finds now: what comes later is a content of its own."""
    with remover.reading.begin():
        rows = remover.reading.execute(query.order_by(kind.owner)).all()
    found: dict[int, str | None] = {owner: key for owner, key in rows}  # noqa: C416 - rows are no tuples to mypy
    total, tries = 0, _TRIES
    while found:
        owners = list(found)[: remover.rows]
        try:
            total += remover.remove_contents(kind, owners, why)
        except ChangedError:
            tries -= 1
            if not tries:
                raise LedgerError("another process removes from this ledger at the same time; let it finish") from None
            with remover.reading.begin():
                there = remover.reading.execute(sa.select(kind.owner).where(kind.owner.in_(owners))).scalars().all()
            for owner in {*owners} - {*there}:
                del found[owner]
        else:
            under.update(key for key in map(found.pop, owners) if key is not None)
    return total


def _wait_for_writers(place: str) -> None:
    """Return when no transaction is open any more that may have had the key at hand before it was destroyed."""
    with saying(place), transaction(place, write=True) as database:
        if is_postgres(place):
            database.execute(sa.text("LOCK TABLE contents IN SHARE MODE"))


def _truncate_log(path: str) -> bool:
    """Empty the write-ahead log, in which old pages stand; whether that was possible."""
    deadline = time.monotonic() + _WAL_S
    while True:
        with connected(path, write=True) as database:
            raw = database.connection.driver_connection
            busy = raw is None or raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if not busy:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
