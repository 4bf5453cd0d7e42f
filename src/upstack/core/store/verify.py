"""Goes along the chains of a ledger and names every receipt that was edited, removed, added or moved.

What it cannot see: a ledger whose owner has chained it anew from some row on. Checkpoints that left the machine can.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain as flatten
from typing import Any

import msgspec
import sqlalchemy as sa

from upstack.core.errors import LedgerError
from upstack.core.store.chain import CHAIN_ROWS, commit, link
from upstack.core.store.engine import transaction
from upstack.core.store.places import hushed, shown
from upstack.core.store.reading import check_version
from upstack.core.store.rows import COLUMNS
from upstack.core.store.tables import chains, contents, receipts

MOST_FINDINGS = 1000  # that are kept; more are only counted

_PAGE = 1000
_COUNT = len(COLUMNS)


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was written. `receipt` is None where it has no id any more."""

    chain: int
    position: int  # in the chain, from 1
    receipt: str | None
    what: str


class Verification(msgspec.Struct, frozen=True):
    """What came of it. `findings` is empty where all is as it was written."""

    chains: int
    receipts: int  # that were looked at
    contents: int
    findings: tuple[Finding, ...]  # the first MOST_FINDINGS
    found: int


def verify(place: str, since: str | None = None, until: str | None = None) -> Verification:
    """Check receipts with ids from `since` (included) to `until` (not included), all without them.

    Reads a snapshot, beside whoever writes. LedgerError where the ledger cannot be read.
    """
    check_version(place)
    tally = _Tally()
    try:
        with transaction(place) as database:
            rows = database.execute(sa.select(chains).order_by(chains.c.id)).all()
            for row in rows:
                _walk(database, row, tally, since, until)
            if since is until is None:
                _look_for_strays(database, [row.id for row in rows], tally)
    except sa.exc.DBAPIError as error:
        words = f"the ledger {shown(place)} could not be read: {str(error.orig).splitlines()[0]}"
        raise LedgerError(hushed(words, place)) from None
    return Verification(len(rows), tally.receipts, tally.contents, tuple(tally.findings), tally.found)


class _Tally:
    """Counts, and what was found."""

    def __init__(self) -> None:
        self.receipts = self.contents = self.found = 0
        self.findings: list[Finding] = []

    def note(self, seq: int, receipt: str | None, what: str) -> None:
        self.found += 1
        if len(self.findings) < MOST_FINDINGS:
            chain, position = divmod(seq, CHAIN_ROWS)
            self.findings.append(Finding(chain, position, receipt, what))


def _walk(database: sa.Connection, chain: Any, tally: _Tally, since: str | None, until: str | None) -> None:
    """Follow one chain from link to link."""
    start, end = _bounds(database, chain.id, since, until)
    if start > end:
        return
    seq, previous = chain.id * CHAIN_ROWS, chain.genesis
    if since is not None:
        before = database.execute(sa.select(receipts.c.seq, receipts.c.hash).where(receipts.c.seq == start - 1)).first()
        seq, previous = (before.seq, before.hash) if before is not None else (start - 1, previous)
    for row in _rows(database, start, end):
        tally.receipts += 1
        here, values, stored = row[0], tuple(row[1 : _COUNT + 1]), row.hash
        if here != seq + 1:
            tally.note(seq + 1, None, _missing(here - seq - 1, f"before {row.id}"))
        elif stored != link(previous, here, values, row.commitment):
            tally.note(here, row.id, "does not follow from the receipt before it: edited, moved or put in")
        elif here == chain.head_seq and stored != chain.head_hash:
            tally.note(here, row.id, "is not what the chain ended with: the chain was made anew")
        _check_content(row, tally)
        seq, previous = here, stored
    if until is None and seq < chain.head_seq:
        tally.note(seq + 1, None, _missing(chain.head_seq - seq, "at the end"))


def _missing(count: int, where: str) -> str:
    return f"{count} receipt{'s are' if count > 1 else ' is'} missing {where}"


def _bounds(database: sa.Connection, chain: int, since: str | None, until: str | None) -> tuple[int, int]:
    """The part of a chain to look at: from its first row not older than `since`, up to the last before `until`."""
    first, last = chain * CHAIN_ROWS + 1, (chain + 1) * CHAIN_ROWS - 1
    here = receipts.c.seq.between(first, last)
    if since is not None:
        found = database.execute(sa.select(sa.func.min(receipts.c.seq)).where(here, receipts.c.id >= since)).scalar()
        first = last + 1 if found is None else found
    if until is not None:
        found = database.execute(sa.select(sa.func.max(receipts.c.seq)).where(here, receipts.c.id < until)).scalar()
        last = first - 1 if found is None else found
    return first, last


def _rows(database: sa.Connection, first: int, last: int) -> Iterator[Any]:
    """Receipts with their contents, in the order of the chain, page by page."""
    query = (
        sa.select(
            receipts.c.seq,
            *(receipts.c[name] for name in COLUMNS),
            receipts.c.commitment,
            receipts.c.hash,
            contents.c.receipt_seq,
            *(_raw(contents.c[name]) for name in ("request", "answer", "salt")),
        )
        .outerjoin(contents)
        .where(receipts.c.seq.between(sa.bindparam("first"), last))
        .order_by(receipts.c.seq)
        .limit(_PAGE)
    )
    while rows := database.execute(query, {"first": first}).all():
        yield from rows
        first = rows[-1].seq + 1


def _raw(column: sa.Column[Any]) -> sa.Label[Any]:
    """A column of bytes that SQLite may hold as text."""
    return sa.type_coerce(column, sa.types.NullType()).label(column.name)


def _check_content(row: Any, tally: _Tally) -> None:
    if row.receipt_seq is None:
        if row.commitment is not None:
            tally.note(row.seq, row.id, "its content is missing")
        return
    tally.contents += 1
    content = _bytes(row.request), _bytes(row.answer)
    if row.commitment is None or row.salt is None or commit(bytes(row.salt), *content) != row.commitment:
        tally.note(row.seq, row.id, "its content is not what was recorded")


def _bytes(content: Any) -> bytes | None:
    return content.encode() if isinstance(content, str) else None if content is None else bytes(content)


def _look_for_strays(database: sa.Connection, known: list[int], tally: _Tally) -> None:
    """Rows that belong to nothing."""
    places = [receipts.c.seq.between(chain * CHAIN_ROWS + 1, (chain + 1) * CHAIN_ROWS - 1) for chain in known]
    strays = database.execute(sa.select(receipts.c.seq, receipts.c.id).where(~sa.or_(sa.false(), *places)).limit(100))
    alone = database.execute(
        sa.select(contents.c.receipt_seq, sa.null()).outerjoin(receipts).where(receipts.c.seq.is_(None)).limit(100)
    )
    for seq, receipt in flatten(strays.all(), ((seq, None) for seq, _ in alone.all())):
        tally.note(seq, receipt, "belongs to no chain" if receipt else "is a content without its receipt")
